# %% [markdown]
# # A fitted router, looked at
#
# What a user does in a notebook before a router is let loose: fit, look at the chains, ask whether
# its probabilities mean what they say on queries that it has not seen, what it is unsure of, and
# which queries would change its mind.
#
# - **Real**: prompts and scores of LLMs' answers (`--data`; `paretobandit3`, which comes with the
#   package, where its file or the extra `embed` is absent, and in `--smoke`).
# - **Simulated**: the log. Users take or retry by the scores; a gateway shows each query to two
#   LLMs at random. The fit sees a log of training queries, calibration a log of held-out ones.
# - **Seeds**: `--seed` decides all.
# - Queries are named by id and task; their text is never shown.
#
# A full run on `routerbench3k` found (seed 0; 7 CPU minutes with the embedding of its queries):
# `auto` chose Laplace (k-hat 0.14); its means are 0.99 Monte Carlo standard errors (rms) from
# NUTS's, and no row has a k-hat above 0.7. On 4,000 held-out rows log-loss is 0.536 against 0.572
# of the base rate, and the calibration error, 0.032, is within what chance alone makes of it
# (0.036: rows of a query go together), though three bins of ten are just outside two standard
# errors. The router sends 793 of 945 queries to the best single LLM, and gains nothing on it in
# real scores (0.000 ± 0.005). It is least sure of programming tasks (`mbpp`: for a fifth of the
# queries the chosen LLM is best in fewer than half the draws), but its doubt does not tell where
# points are lost.
#
#     python analyses/router_diagnostics.py [--smoke] [--out FOLDER] [--seed N] [--data NAME]
#     python analyses/router_diagnostics.py --redraw [--out FOLDER]

# %%
import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import arviz_base
import arviz_plots
import arviz_stats
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import cqbayes
from cqbayes import (
    ChoiceData,
    Posterior,
    ScoreTable,
    Situation,
    agreement,
    departure_probability,
    over_seeds,
    progress_bar,
    provenance,
    reliability,
    replacing,
    save_figure,
    scripts_end_in_one_line,
    writable_folder,
    write_netcdf,
)
from cqbayes.datasets.load import lacking
from cqbayes.diagnostics.plots import rank_figure
from cqbayes.preference import layout, utilities
from cqbayes.report.demo import simulated_log

parser = argparse.ArgumentParser(description="Diagnostics of a fitted router.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/router_diagnostics"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data", default="routerbench3k", help="a data set of `cqbayes data list`")
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
num_choices, dim = (300, 3) if settings.smoke else (4_000, 8)
DRAWS = 1_000  # at most, where every query meets every draw

# %% [markdown]
# ## The log and the fits


# %%
def real_scores(name: str, dim: int) -> ScoreTable:
    """A data set with contexts; `paretobandit3` where something that it takes is absent."""
    if absent := lacking(name):
        print(f"{name}: no {absent[0]} here; paretobandit3 instead")
        name = "paretobandit3"
    return cqbayes.load_scores(name, dim, method="contrastive", progress=True)


def fits(key: Any, data: ChoiceData, llms: list[str]) -> dict[str, Posterior]:
    """Posteriors by two ways, saved with all of ArviZ's groups."""
    model = cqbayes.load_model("disjoint_mnl")
    found = {}
    with progress_bar("fits", total=2) as advance:
        for engine in ("auto", "nuts"):
            brief = {"num_warmup": 100, "num_draws": 100} if settings.smoke else {}
            posterior, info = cqbayes.infer(
                key, model, data, engine=engine, **(brief if engine == "nuts" else {})
            )
            cqbayes.save_posterior(
                out / f"{engine}.nc", posterior, info, data=data, llms=llms, seed=settings.seed
            )
            found[engine] = posterior
            advance(1)
    return found


# %% [markdown]
# ## What it predicts for queries that it has not seen


# %%
def over_draws(posterior: Posterior, context: Any) -> jax.Array:
    """Utilities `[draw, query, llm]` of queries under draws of the posterior."""
    vectors = posterior.draws(jax.random.key(0), DRAWS)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    vectors = vectors[:: -(-len(vectors) // DRAWS)]
    form = layout(posterior.model, posterior.sizes)
    situation = Situation(jnp.asarray(context))
    return jax.lax.map(
        lambda vector: utilities(posterior.model, form.params(vector), situation), vectors
    )


def beliefs(posteriors: dict[str, Posterior], scores: ScoreTable) -> xr.Dataset:
    """What the router believes of every held-out query, and what the scores say."""
    every = {
        engine: np.asarray(jax.nn.sigmoid(over_draws(posterior, scores.context)), np.float64)
        for engine, posterior in posteriors.items()
    }
    chance = every["nuts"]
    best = chance.argmax(axis=-1)
    wins = np.stack([(best == llm).mean(axis=0) for llm in range(chance.shape[-1])], axis=-1)
    mean = chance.mean(axis=0)
    chosen = mean.argmax(axis=-1)
    rows = np.arange(len(chosen))
    return xr.Dataset(
        {
            "mean": (("query", "llm"), mean),
            "sd": (("query", "llm"), chance.std(axis=0)),
            "wins": (("query", "llm"), wins),
            "chosen": ("query", chosen),
            # How much better the best of a draw is than the LLM that is chosen, on average.
            "at_stake": ("query", (chance.max(axis=-1) - chance[:, rows, chosen]).mean(axis=0)),
            "task": ("query", scores.task.astype(str)),
            "score": (("query", "llm"), scores.score),
            # Of each LLM, over queries; engines have draws of their own number.
            **{
                f"average_{engine}": ((f"draw_{engine}", "llm"), values.mean(axis=1))
                for engine, values in every.items()
            },
        },
        coords={"query": scores.query_id.astype(str), "llm": list(scores.llms)},
    )


def predictions(posterior: Posterior, log: ChoiceData) -> xr.Dataset:
    """Of every row of a held-out log: probability that an answer is taken, and whether it was."""
    chance = departure_probability(
        over_draws(posterior, log.context), jnp.asarray(log.offered)[None]
    )
    chance = np.asarray(chance, np.float64)
    context = np.asarray(log.context)
    return xr.Dataset(
        {
            "chance": ("row", chance.mean(axis=0)),
            "drawn": (
                ("draw", "row"),
                (np.random.default_rng(settings.seed).random(chance.shape) < chance).astype("i1"),
            ),
            "taken": ("row", (np.asarray(log.choice) > 0).astype("i1")),
            # Rows of one query stand or fall together.
            "cluster": ("row", np.unique(context, axis=0, return_inverse=True)[1].ravel()),
        }
    )


def run_all() -> None:
    """Fits, and all that tables and pictures need, into files."""
    scores = real_scores("paretobandit3" if settings.smoke else settings.data, dim)
    log_key, fit_key, test_key = jax.random.split(jax.random.key(settings.seed), 3)
    data = simulated_log(log_key, scores.part("train"), num_choices)
    posteriors = fits(fit_key, data, list(scores.llms))
    apart = agreement(posteriors["auto"], posteriors["nuts"])
    held_out = simulated_log(test_key, scores.part("test"), num_choices)
    tree = xr.DataTree.from_dict(
        {
            "beliefs": beliefs(posteriors, scores.part("test")),
            "predictions": predictions(posteriors["nuts"], held_out),
        }
    )
    tree.attrs["agreement"] = json.dumps(apart._asdict())
    tree.attrs["provenance"] = json.dumps(
        provenance(
            analysis="router_diagnostics",
            data=scores.name,
            choices=num_choices,
            dim=dim,
            seed=settings.seed,
            smoke=settings.smoke,
        )
    )
    write_netcdf(tree, out / "results.nc")


if not settings.redraw:
    run_all()
with xr.open_datatree(out / "results.nc", engine="h5netcdf") as opened:
    results = opened.load()
made = json.loads(results.attrs["provenance"])
print(json.dumps(made))

# %% [markdown]
# ## The posteriors, loaded back
#
# `load_posterior` checks the checksum, names, shapes and positive definiteness. What was chosen by
# `auto`, why, and whether it agrees with NUTS:

# %%
stored = {engine: cqbayes.load_posterior(out / f"{engine}.nc") for engine in ("auto", "nuts")}
for engine, one in stored.items():
    print(f"{engine}: {one.info}")
apart = json.loads(results.attrs["agreement"])
print(
    f"auto and NUTS: means {apart['mean_gap']:.3f} posterior standard deviations apart (rms), that "
    f"is {apart['mean_z']:.2f} Monte Carlo standard errors; ratio of standard deviations "
    f"{apart['sd_ratio']:.3f}"
)

# %% [markdown]
# ## Chains
#
# Traces of the intercepts, a colour a chain; ranks: chains that mix stay in the band.

# %%
tree = stored["nuts"].tree


def shown(picture: Any, name: str) -> None:
    """Saves one of ArviZ's pictures."""
    print(save_figure(picture.viz["figure"].item(), out / name))


traces = arviz_plots.plot_trace(
    tree, var_names=["intercept"], backend="matplotlib", figure_kwargs={"figsize": (12, 7.5)}
)
traces.viz["figure"].item().tight_layout()
shown(traces, "trace.png")
print(save_figure(rank_figure(tree, "Ranks of the chains, intercepts"), out / "ranks.png"))

# %% [markdown]
# ## LLM by LLM
#
# The intercepts by both engines, and what matters more: the probability that each LLM's answer is
# taken, on average over the held-out queries.

# %%
beliefs_of = results["beliefs"].to_dataset()
llms = [name.split("/")[-1] for name in map(str, beliefs_of["llm"].values)]


def forest(draws: dict[str, np.ndarray], name: str, label: str, file: str) -> None:
    """ArviZ's forest of draws `[draw, llm]`, engines side by side."""
    shortest = min(map(len, draws.values()))
    trees = {
        engine: arviz_base.from_dict(
            {"posterior": {name: values[None, :shortest]}},
            coords={"llm": llms},
            dims={name: ["llm"]},
        )
        for engine, values in draws.items()
    }
    picture = arviz_plots.plot_forest(
        trees,
        combined=True,
        labels=["llm"],
        backend="matplotlib",
        figure_kwargs={"figsize": (9, 1.2 + 0.42 * len(llms)), "width_ratios": [2, 5]},
    )
    picture.add_legend("model")
    picture.viz["figure"].item().suptitle(label, y=1.02)
    shown(picture, file)


intercepts = {
    engine: one.tree["posterior"]["intercept"].values.reshape(-1, len(llms))
    for engine, one in stored.items()
}
forest(intercepts, "intercept", "Intercepts: log-odds against a retry", "forest.png")
average = {engine: beliefs_of[f"average_{engine}"].values for engine in stored}
forest(
    average,
    "probability",
    "Probability that the answer is taken, mean over queries",
    "forest_p.png",
)

# %% [markdown]
# ## Leave-one-out
#
# Expected log predictive density of a choice that was left out, by PSIS; k-hat above the limit
# means that leaving that row out changes the posterior too much for the estimate to be trusted.

# %%
with warnings.catch_warnings():  # k-hats are counted and drawn
    warnings.simplefilter("ignore")
    loo = {engine: arviz_stats.loo(one.tree, pointwise=True) for engine, one in stored.items()}
for engine, one in loo.items():
    high = int((one.pareto_k > one.good_k).sum())
    print(
        f"{engine}: elpd {one.elpd:.1f} ± {one.se:.1f}, {one.p:.1f} effective parameters; "
        f"{high} of {one.n_data_points} rows with k-hat above {one.good_k:.2f}"
    )
picture = arviz_plots.plot_khat(
    loo["nuts"],
    backend="matplotlib",
    visuals={"khat": {"s": 6, "alpha": 0.3}, "hlines": True},
    figure_kwargs={"figsize": (9, 3.5)},
)
picture.viz["figure"].item().axes[0].set(xlabel="row of the log", ylabel="Pareto k-hat")
shown(picture, "khat.png")

# %% [markdown]
# ## Calibration on held-out queries
#
# Rows of the held-out log in ten bins of the probability that an answer is taken. Bars are ±2
# standard errors from a bootstrap over queries: one query that comes back again and again is one
# piece of evidence. The calibration error is the mean gap between the two, weighted by rows; beside
# it what chance alone makes of it, by the same bootstrap: rows drawn one by one would make far
# less, and call a calibrated router miscalibrated.
#
# What is judged are rows. A query that is hard comes back, and has more rows than one that is not:
# on average over queries as they arrive, answers are taken more often than a fit to such a log
# says.


# %%
predicted = results["predictions"].to_dataset()
chance, taken = predicted["chance"].values, predicted["taken"].values.astype(float)
found = reliability(chance, taken, predicted["cluster"].values, seed=made["seed"])
print(found.table.round(3).to_string(index=False))
with replacing(out / "reliability.csv") as temporary:
    found.table.to_csv(temporary, index=False)
log_loss = -np.mean(np.where(taken > 0, np.log(chance), np.log1p(-chance)))
rate = taken.mean()
constant = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
print(
    f"{found.inside} of {len(found.table)} bins within two standard errors; calibration error "
    f"{found.error:.4f}, by chance alone below {found.by_chance:.4f} in 95 of 100 cases: "
    f"{'no miscalibration found' if found.error <= found.by_chance else 'miscalibrated'}. "
    f"Log-loss {log_loss:.4f} a row; always saying the base rate {rate:.3f}: {constant:.4f}"
)

# %%
chart, (axis, below) = plt.subplots(
    2, 1, figsize=(5.4, 6.2), height_ratios=[4, 1], sharex=True, layout="constrained"
)
axis.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
said, seen, error = (found.table[name] for name in ("predicted", "observed", "error"))
axis.errorbar(
    said, seen, yerr=2 * error, fmt="o", color="#0072B2", capsize=3, label="held-out rows, ±2 SE"
)
low = max(0, min(said.min(), (seen - 2 * error).min()) - 0.05)
axis.set(ylabel="share of rows in which an answer was taken", xlim=(low, 1), ylim=(low, 1))
axis.set_title(f"{made['data']}, held-out queries, simulated users")
axis.legend(frameon=False)
below.hist(chance, bins=40, color="#0072B2", alpha=0.6)
below.set(xlabel="predicted probability that an answer is taken", ylabel="rows")
print(save_figure(chart, out / "reliability.png"))

# %% [markdown]
# The same by ArviZ, without bins: PAVA, with the band of a calibrated forecast. The band takes rows
# one by one, and is too narrow where queries come back.

# %%
check = arviz_base.from_dict(
    {
        "posterior_predictive": {"taken": predicted["drawn"].values[None].astype(int)},
        "observed_data": {"taken": predicted["taken"].values.astype(int)},
    }
)
picture = arviz_plots.plot_ppc_pava(check, backend="matplotlib")
picture.viz["figure"].item().axes[0].set(
    title=f"{made['data']}: the line should stay in the band of a calibrated forecast",
    xlabel="predicted probability that an answer is taken",
    ylabel="share taken (PAVA)",
)
shown(picture, "pava.png")

# %% [markdown]
# ## What it is unsure of
#
# For each held-out query the router chooses the LLM of highest mean probability. `P(best)`: share
# of posterior draws in which that LLM is best; `sd`: of its probability; `at stake`: how much more
# probable an accepted answer would be if the router knew its parameters, on average over draws.

# %%
chosen = beliefs_of["chosen"].values
rows = np.arange(len(chosen))
wins = beliefs_of["wins"].values
runner_up = np.where(np.arange(len(llms)) == chosen[:, None], -1, wins).argmax(axis=1)
query = pd.DataFrame(
    {
        "query_id": beliefs_of["query"].values,
        "task": beliefs_of["task"].values,
        "chosen": [llms[j] for j in chosen],
        "p": beliefs_of["mean"].values[rows, chosen],
        "sd": beliefs_of["sd"].values[rows, chosen],
        "P(best)": wins[rows, chosen],
        "else": [llms[j] for j in runner_up],
        "P(else)": wins[rows, runner_up],
        "at stake": beliefs_of["at_stake"].values,
        "score": beliefs_of["score"].values[rows, chosen],
        "best score": beliefs_of["score"].values.max(axis=1),
    }
)
with replacing(out / "queries.csv") as temporary:
    query.to_csv(temporary, index=False)
query["changes its mind"] = query["P(best)"] < 0.5
by_task = query.groupby("task").agg(
    queries=("p", "size"),
    **{name: (name, "mean") for name in ("p", "sd", "P(best)", "at stake", "changes its mind")},
)
print(by_task.sort_values("at stake", ascending=False).head(12).round(3).to_string())
single = beliefs_of["score"].values.mean(axis=0)
gain = query["score"] - beliefs_of["score"].values[:, single.argmax()]
best_single = llms[int(single.argmax())]
print(
    "\nThe chosen LLM is best in fewer than half the draws for "
    f"{query['changes its mind'].mean():.1%} of {len(query)} queries; at stake are "
    f"{query['at stake'].mean():.4f} in probability on average. Mean real score of the chosen "
    f"answers {query['score'].mean():.3f}, of the best single LLM in hindsight ({best_single}) "
    f"{single.max():.3f}, difference {over_seeds(gain.to_numpy())} (one standard error, queries); "
    f"of the best answer to each query {query['best score'].mean():.3f}"
)
sure = query["P(best)"] >= query["P(best)"].median()
short = query["best score"] - query["score"]
apart_by = short[~sure].mean() - short[sure].mean()
error_by = np.sqrt(short[sure].var() / sure.sum() + short[~sure].var() / max(1, (~sure).sum()))
print(
    f"Points lost to the best answer, the less sure half of the queries less the surer half: "
    f"{apart_by:.3f} ± {error_by:.3f}: doubt "
    f"{'goes with loss' if apart_by > 2 * error_by else 'does not tell where points are lost'}"
)

# %%
chart, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
left.hist(query["P(best)"], bins=np.linspace(0, 1, 26), color="#0072B2", alpha=0.75)
left.axvline(0.5, color="k", ls=":", lw=1)
left.set(xlabel="probability that the chosen LLM is the best", ylabel="held-out queries")
for number, name in enumerate(query["chosen"].value_counts().index[:6]):
    some = query[query["chosen"] == name]
    right.scatter(
        some["p"], some["sd"], s=9, alpha=0.6, label=f"{name} ({len(some)})", color=f"C{number}"
    )
right.set(
    xlabel="probability that the chosen answer is taken, posterior mean",
    ylabel="its posterior standard deviation",
)
right.legend(fontsize=8, frameon=False, title="chosen LLM (queries)", markerscale=2)
print(save_figure(chart, out / "unsure.png"))

# %% [markdown]
# ## Which queries would change its mind?
#
# Those for which another LLM is about as likely to be the best one, by what is at stake: where one
# more observation is worth most. Ids and tasks only.

# %%
columns = ["query_id", "task", "chosen", "P(best)", "else", "P(else)", "at stake"]
first = query.sort_values("at stake", ascending=False)[columns].head(15)
print(first.round(3).to_string(index=False))

# %%
pairs = pd.crosstab(query["chosen"], query["else"], values=query["at stake"], aggfunc="sum")
pairs = pairs.reindex(index=llms, columns=llms).dropna(how="all").fillna(0)
chart, axis = plt.subplots(
    figsize=(3.5 + 0.5 * len(llms), 3.2 + 0.42 * len(pairs)), layout="constrained"
)
image = axis.imshow(pairs.to_numpy(), cmap="Blues", aspect="auto")
axis.set_xticks(range(len(llms)), llms, rotation=45, ha="right", fontsize=8)
axis.set_yticks(range(len(pairs)), pairs.index, fontsize=8)
axis.set(xlabel="LLM that it may be instead", ylabel="chosen LLM")
chart.colorbar(image, label="probability at stake, summed over queries")
axis.set_title("Between which LLMs it wavers", fontsize=10)
print(save_figure(chart, out / "wavers.png"))

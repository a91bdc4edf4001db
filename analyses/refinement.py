# %% [markdown]
# # Does contrastive refinement pay?
#
# Contexts of d = 8, 16, 32, 64 dimensions from the same frozen sentence embeddings by four methods:
# contrastive refinement, a supervised linear projection (partial least squares), principal
# components, and the 384 raw coordinates. Projections are fitted to training queries alone and
# judged on held-out ones:
#
# - held-out log-loss, area under the curve, score of the LLM that would be picked, and Kendall's
#   tau of the LLMs' order, by logistic regressions on the training queries' scores (full
#   information);
# - routing and queue-length regret of ACQB, which starts from nothing and sees one answer at a
#   time.
#
# Queries, scores and embeddings are real; users, their retrials and the queue are simulated. At
# most 4,000 queries of a data set are used, drawn with seed 0. Settings of the refinement were
# chosen on parts of training splits.
#
#     CQBAYES_DATA=FOLDER python analyses/refinement.py [--smoke] [--redraw] [--out FOLDER]
#
# It needs the extra `embed`, and in the folder whatever there is of `paretobandit4`, `llmrouter9`,
# `routerbench3k`, `routerdc7` (queries asked ten times) and `routellm2`. The smoke run is on
# made-up text.

# %%
import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cqbayes import (
    Encoder,
    InputError,
    ScoreTable,
    Sizes,
    TextScores,
    acqb,
    belief,
    capacity,
    contexts,
    from_scores,
    load_encoder,
    load_model,
    load_text_scores,
    oracle,
    over_seeds,
    progress_bar,
    provenance,
    regrets,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    writable_folder,
)
from cqbayes.datasets.load import lacking
from cqbayes.datasets.text_scores import sample, split_by_hash
from cqbayes.diagnostics.context_quality import quality
from cqbayes.embeddings.methods import METHODS

parser = argparse.ArgumentParser(description="Contrastive refinement against its baselines.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--redraw", action="store_true", help="only draw, from results in the folder")
parser.add_argument("--out", type=Path, default=Path("out/refinement"))
parser.add_argument("--seed", type=int, default=0)
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
NAMES = {
    "paretobandit4": {},
    "llmrouter9": {},
    "routerbench3k": {},
    "routerdc7": {"measured": True},
    "routellm2": {},
}
dims, rounds, num_seeds = ([4], 200, 2) if settings.smoke else ([8, 16, 32, 64], 5_000, 16)


# %%
def made_up(seed: int) -> tuple[TextScores, Encoder]:
    """Simulated text of four topics, on which three LLMs fare differently; counts of words."""
    words = [f"{topic}{i}" for topic in ("sum", "verse", "map", "code") for i in range(6)]
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 4, 240)
    text = [" ".join(rng.choice(words[6 * t : 6 * t + 6], 4)) for t in topic]
    chance = rng.uniform(0.2, 0.9, (4, 3))[topic]
    name = np.array([f"q{i}" for i in range(len(text))])
    answers = TextScores(
        name="made-up text",
        llms=("a", "b", "c"),
        query_id=name,
        task=np.array(["simulated"] * len(text)),
        split=split_by_hash(name),
        text=np.array(text, object),
        score=(rng.random(chance.shape) < chance).astype(float),
    )
    counts = Encoder(
        "counts", lambda ts: np.array([[t.count(w) for w in words] for t in ts], float)
    )
    return answers, counts


def regret(table: ScoreTable) -> dict[str, np.ndarray]:
    """Of ACQB on held-out queries, ``[seed]``: routing regret, and queue-length regret of late."""
    population = from_scores(table.part("test"))
    env = retrial_queue(population, 0.9 * capacity(population))
    sizes = Sizes(len(table.llms), table.context.shape[1])
    learner = acqb(belief.online(load_model("disjoint_mnl"), sizes), sizes.num_llms)
    key = jax.random.key(settings.seed)
    traces = {
        name: simulate(key, policy, env, rounds, num_seeds=num_seeds)
        for name, policy in (("oracle", oracle(population)), ("acqb", learner))
    }
    curves = regrets(traces).sel(policy="acqb")
    late = slice(-max(1, rounds // 10), None)
    return {
        "routing_regret": curves["routing_regret"].isel(round=-1).values,
        "queue_regret": curves["queue_length_regret"].isel(round=late).mean("round").values,
    }


def judged(
    name: str, answers: TextScores, encoder: Encoder, method: str, dim: int
) -> tuple[dict, pd.DataFrame]:
    """One row of the results, and the log-loss of every held-out query."""
    made = contexts(answers, dim, method=method, encoder=encoder, seed=settings.seed)
    found = quality(made.table)._asdict()
    which = {"data": name, "method": method, "d": made.projection.dim}
    losses = found.pop("losses")
    each = pd.DataFrame({**which, "query": np.arange(len(losses)), "loss": losses})
    row = {**which, **found}
    for measure, values in regret(made.table).items():
        row[measure] = values.mean()
        row[f"{measure}_error"] = values.std(ddof=1) / np.sqrt(len(values))
    return row, each


def run() -> tuple[pd.DataFrame, pd.DataFrame]:
    if settings.smoke:
        answers, encoder = made_up(settings.seed)
        given = {answers.name: answers}
    else:
        encoder = load_encoder()
        there = [name for name in NAMES if not lacking(name)]
        if not there:
            raise InputError(f"refinement: expected some of {', '.join(NAMES)}; set CQBAYES_DATA")
        given = {name: sample(load_text_scores(name, **NAMES[name]), 4_000) for name in there}
    grid = [
        (name, method, dim)
        for name in given
        for method in METHODS
        for dim in (dims[:1] if method == "raw" else dims)
    ]
    rows = []
    with progress_bar("refinement", total=len(grid)) as advance:
        for name, method, dim in grid:
            rows.append(judged(name, given[name], encoder, method, dim))
            advance(1)
    return pd.DataFrame([row for row, _ in rows]), pd.concat([each for _, each in rows])


# %%
if not settings.redraw:
    results, each = run()
    facts = provenance(seed=settings.seed, rounds=rounds, seeds=num_seeds, smoke=settings.smoke)
    results.attrs.update(facts)
    with replacing(out / "refinement.csv") as temporary:
        results.to_csv(temporary, index=False)
    with replacing(out / "losses.parquet") as temporary:
        each.to_parquet(temporary, index=False)
    with replacing(out / "provenance.json") as temporary:
        pd.Series(facts).to_json(temporary)
results = pd.read_csv(out / "refinement.csv")
each = pd.read_parquet(out / "losses.parquet").set_index(["data", "method", "d"])
shown = [
    "data",
    "method",
    "d",
    "log_loss",
    "auc",
    "routed",
    "tau",
    "routing_regret",
    "queue_regret",
]
print(results[shown].round(4).to_string(index=False))

# %% [markdown]
# ## Where refinement wins, and where it does not
#
# Against the baselines of the same d, and the raw embedding. Differences of log-loss are paired
# over held-out queries, those of regret are not paired; a difference is one where it is more than
# two standard errors. No dimension is chosen here: who chose it by held-out queries would favour
# those methods that have several.
#
# What a full run found (seed 0, 5,000 rounds, 16 seeds; differences below ± one standard error):
#
# - **In prediction** with full information, refinement beats the supervised projection of the same
#   d on all data sets but `llmrouter9`, by 0.002 to 0.115 nats: the supervised one overfits, the
#   more the wider. Against principal components it wins once (`routellm2`, d = 8, 0.016 ± 0.005),
#   loses three times by 0.001 to 0.003 (`paretobandit4`, d = 32 and 64; `routerbench3k`, d = 64)
#   and is within noise in the other 16. Directions that are few are what counts there, not which.
#   Penalties of the logistic regressions are chosen by folds of the training queries; with one
#   small penalty for all, raw coordinates would overfit, and seem to predict worse.
# - **In the queue**, where ACQB learns from one answer at a time, it has less regret than principal
#   components of the same d in 13 of 20 cases, by 5 to 19 percent, and loses two: `llmrouter9` at
#   d = 32 and 64, by 12 and 18 percent.
# - **The raw 384 dimensions have the least regret** on all but `paretobandit4`, and they predict
#   unseen queries no worse than refined ones: better in 10 of 20 cases (`paretobandit4`,
#   `llmrouter9`, `routerdc7`, by 0.001 to 0.024), worse in one. What refinement is for is few
#   dimensions, which cost an online learner d^2 a round. Why raw ones lead in the queue is not
#   shown here; held-out queries are 250 to 2,000 and come back, in retries and in later arrivals,
#   and a wide linear model can learn single queries. `another_llm.py` shows how much a query's own
#   retries are worth.


# %%
def compared(name: str, ours: pd.Series, other: pd.Series) -> dict:
    """Refinement against one baseline."""
    mine, theirs = (
        each.loc[(name, one["method"], one["d"]), "loss"].values for one in (ours, other)
    )
    gain = over_seeds(theirs - mine)
    saved = other["routing_regret"] - ours["routing_regret"]
    noise = float(np.hypot(other["routing_regret_error"], ours["routing_regret_error"]))
    return {
        "data": name,
        "against": f"{other['method']}, d = {other['d']}",
        "refined d": ours["d"],
        "log-loss lower by": f"{gain.value:.4f} ± {gain.error:.4f}",
        "in prediction": word(gain.value, 2 * gain.error),
        "regret lower by": f"{saved:.1f} ± {noise:.1f}",
        "in the queue": word(saved, 2 * noise),
    }


def verdicts(results: pd.DataFrame) -> pd.DataFrame:
    """Against the baselines of the same d, and the raw embedding."""
    rows = []
    for (name, dim), ours in results[results["method"] == "contrastive"].groupby(
        ["data", "d"], sort=False
    ):
        part = results[results["data"] == name]
        others = part[(part["method"] == "raw") | (part["d"] == dim)].set_index(
            "method", drop=False
        )
        rows += [compared(name, ours.iloc[0], others.loc[method]) for method in METHODS[1:]]
    return pd.DataFrame(rows)


def word(gain: float, reach: float) -> str:
    return "wins" if gain > reach else "loses" if gain < -reach else "within noise"


table = verdicts(results)
print(table.to_string(index=False))
with replacing(out / "verdicts.csv") as temporary:
    table.to_csv(temporary, index=False)

# %%
names = list(dict.fromkeys(results["data"]))
of_dims = sorted(set(results.loc[results["method"] != "raw", "d"]))
panels = {
    "log_loss": "held-out log-loss, nats",
    "routed": "score of the LLM picked",
    "routing_regret": f"routing regret of ACQB,\n{rounds:,} rounds",
}
chart, axes = plt.subplots(
    len(panels), len(names), figsize=(3.3 * len(names) + 1.5, 8), squeeze=False, sharex=True
)
for column, name in zip(axes.T, names, strict=True):
    part = results[results["data"] == name]
    for axis, (measure, label) in zip(column, panels.items(), strict=True):
        for colour, method in zip(("C1", "C2", "C0", "0.4"), METHODS, strict=True):
            of = part[part["method"] == method]
            if method == "raw":
                axis.axhline(of[measure].item(), color=colour, ls=":", label="raw, d = 384")
                continue
            error = 2 * of[f"{measure}_error"]
            axis.errorbar(of["d"], of[measure], error, color=colour, marker="o", ms=4, label=method)
        if measure == "routed":
            axis.axhline(
                part["single"].iloc[0], color="k", lw=0.8, ls="--", label="best single LLM"
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(of_dims, [str(d) for d in of_dims])
        axis.grid(alpha=0.25)
        if name == names[0]:
            axis.set_ylabel(label)
    column[0].set_title(name)
    column[-1].set_xlabel("dimensions d")
chart.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
chart.suptitle("Held-out queries; users and queue simulated; bars are ±2 standard errors")
chart.tight_layout(rect=(0, 0.05, 1, 1))
print(save_figure(chart, out / "refinement.png"))

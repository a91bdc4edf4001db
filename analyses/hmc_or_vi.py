# %% [markdown]
# # HMC or variational inference: what does the approximation cost the queue?
#
# ACQB draws from a posterior. Here the same queue is run with seven: NUTS, HMC in Laplace-whitened
# coordinates, Laplace, variational Gaussians (independent parameters, and full rank), and the
# one-pass Gaussian, refitted like the others or updated in every round. Each is judged by the
# regret of the queue that it drives, not by its ELBO, against NUTS in the same worlds with the same
# luck, and by the CPU seconds that it takes.
#
# - **Real**: in the second world, the prompts and the scores of LLMs' answers (`--data`; held-out
#   queries; `paretobandit3`, which comes with the package, where its file or the extra `embed` is
#   absent, and in `--smoke`).
# - **Simulated**: users, retrials and queues; in the first world the truth too, linear, with as
#   many LLMs and dimensions as the real one, drawn anew for every seed.
# - **No log to start from**: a log would bring all of them close to the same Gaussian before the
#   first round. Approximations differ where data are few, so they start from the prior.
# - **Refits** after 375 rounds and whenever the rounds double, by the engine's `fit` alone: no
#   importance sampling sets a Gaussian right. What learns in every round has an advantage that has
#   nothing to do with its form; therefore the one-pass Gaussian is there twice.
# - **Seeds**: `--seed` decides all: truths, arrivals, luck and draws.
#
# Two full runs found (seeds 0 and 1, 3,000 rounds, 48 seeds each; 7 CPU minutes; routing regret
# beyond that with NUTS, which is 179 and 177 in the first world, 137 and 141 in the second):
#
# - **HMC, Laplace, the full-rank Gaussian and one pass cost nothing that lasts.** On
#   `paretobandit4` they were 4 to 7 (± 2) worse in the first run, and within noise, three of the
#   four ahead, in the second: a dozen comparisons at two standard errors are bound to find
#   something. Their means are 0.04 to 0.17 posterior standard deviations from the exact
#   posterior's, as NUTS's own draws are (0.05 to 0.07); a fit with Laplace takes 1.5 ms, with NUTS
#   200 to 780.
# - **Mean field costs on real contexts**, which are correlated: its standard deviations are 0.42 of
#   the exact ones there, and regret is 10.1 ± 1.9 and 5.0 ± 1.9 more. In the synthetic world, where
#   they are 0.89, it is no worse.
# - **When it learns matters more than what it draws from**: the one-pass Gaussian that is updated
#   in every round has 59 ± 3 less regret in the synthetic world (of 179), and 3.8 ± 1.8 and 8.6 ±
#   2.0 less on `paretobandit4`, than any that waits for refits.
#
#     python analyses/hmc_or_vi.py [--smoke] [--out FOLDER] [--seed N] [--data NAME] [--redraw]

# %%
import argparse
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker

import cqbayes
from cqbayes import (
    Policy,
    ScoreTable,
    Sizes,
    acqb,
    agreement,
    belief,
    capacity,
    doubling,
    from_scores,
    oracle,
    over_seeds,
    progress_bar,
    provenance,
    refit,
    regrets,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    synthetic,
    thinned,
    writable_folder,
    write_netcdf,
)
from cqbayes.datasets.load import lacking

parser = argparse.ArgumentParser(description="What approximate posteriors cost in regret.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/hmc_or_vi"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data", default="paretobandit4", help="scores of the second world")
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rounds, first, batches, seeds = (120, 60, 2, 2) if settings.smoke else (3_000, 375, 3, 16)
slack, dim, points = 0.05, 3 if settings.smoke else 8, 200
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "NUTS": ("nuts", {"num_warmup": 150, "num_draws": 200, "num_chains": 1}),
    "HMC, whitened": ("hmc", {"num_chains": 4, "num_draws": 50}),
    "Laplace": ("laplace", {}),
    "SVI, full rank": ("svi", {"guide": "multivariate", "block_steps": 250}),
    "SVI, mean field": ("svi", {"guide": "normal", "block_steps": 250}),
    "one pass": ("online", {}),
}
EVERY_ROUND = "one pass, every round"
if settings.smoke:  # what compiles soon; the first is what the others are held against
    ENGINES = {"Laplace": ENGINES["Laplace"]}
REFERENCE = next(iter(ENGINES))

# %% [markdown]
# ## The worlds


# %%
def real_scores(name: str, dim: int) -> ScoreTable:
    """A data set with contexts; `paretobandit3` where something that it takes is absent."""
    if absent := lacking(name):
        print(f"{name}: no {absent[0]} here; paretobandit3 instead")
        name = "paretobandit3"
    return cqbayes.load_scores(name, dim, method="contrastive", progress=True)


def batch_of(scores: ScoreTable | None, sizes: Sizes, key: Any) -> tuple[Any, Policy, dict]:
    """Environment and oracle of a batch of seeds, and how `simulate` is to take them."""
    if scores is not None:
        population = from_scores(scores.part("test"))
        return (
            retrial_queue(population, capacity(population) - slack),
            oracle(population),
            {"num_seeds": seeds},
        )
    truths = eqx.filter_vmap(lambda k: synthetic(k, sizes.num_llms, sizes.dim))(
        jax.random.split(key, seeds)
    )
    env = eqx.filter_vmap(lambda p: retrial_queue(p, capacity(p) - slack))(truths)
    return env, eqx.filter_vmap(oracle)(truths), {"num_seeds": seeds, "env_per_seed": True}


def learners(sizes: Sizes) -> dict[str, Policy]:
    """ACQB with every posterior."""
    model = cqbayes.load_model("disjoint_mnl")
    made = {
        name: refit(
            acqb(
                belief.refitted(cqbayes.load_engine(engine).fit, model, sizes, **how),
                sizes.num_llms,
            ),
            doubling(first),
        )
        for name, (engine, how) in ENGINES.items()
    }
    return made | {EVERY_ROUND: acqb(belief.online(model, sizes), sizes.num_llms)}


# %% [markdown]
# ## The runs
#
# Seeds come in batches. The first batch compiles; CPU seconds are those of the later ones, a seed,
# of this process and all its threads, the simulation itself included.


def run_world(scores: ScoreTable | None, policies: dict[str, Policy], key: Any, advance: Any):
    """Curves and costs of all posteriors in one world, and a log of what the first one did."""
    parts, log = [], None
    cpu: dict[str, list[float]] = {name: [] for name in policies}
    failures = dict.fromkeys(policies, 0)
    for batch in range(batches):
        truth_key, run_key = jax.random.split(jax.random.fold_in(key, batch))
        env, best, how = batch_of(scores, SIZES, truth_key)
        how["room"] = 128
        per_seed = {"policy_per_seed": scores is None}
        traces = {"oracle": simulate(run_key, best, env, rounds, **how, **per_seed)}
        for name, policy in policies.items():
            begin = time.process_time()
            # Refits need the rows of all: to keep them costs nothing more.
            traces[name] = simulate(run_key, policy, env, rounds, record=True, **how)
            cpu[name].append((time.process_time() - begin) / seeds)
            failures[name] += int(traces[name].policy_state.failures.sum())
            advance(1)
        log = traces[REFERENCE].rows if log is None else log
        curves = regrets(traces)[["routing_regret", "queue_length_regret"]]
        mean = curves["queue_length_regret"].mean("round").rename("queue_regret_mean")
        parts.append(thinned(curves, points).assign(queue_regret_mean=mean))
    found = xr.concat(parts, "seed").sel(policy=list(policies))
    found["seed"] = np.arange(found.sizes["seed"])
    found["cpu_run"] = ("policy", [float(np.mean(cpu[name][1:])) for name in policies])
    found["refits_not_used"] = ("policy", list(failures.values()))
    return found, log


def distances(log: Any, key: Any, advance: Any) -> dict[str, tuple[float, float, float]]:
    """Of each engine on one log: distance of means and ratio of sds to long HMC, CPU seconds."""
    model = cqbayes.load_model("disjoint_mnl")
    data = jax.tree.map(lambda column: jax.numpy.asarray(column[0]), log).only(model.needs)
    exact, info = cqbayes.infer(key, model, data, engine="hmc", num_draws=1_000)
    print(f"what distances are measured from: {info}")
    found = {}
    for name, (engine, how) in ENGINES.items():
        fit = eqx.filter_jit(cqbayes.load_engine(engine).fit)
        fit_key = jax.random.fold_in(key, 1)
        jax.block_until_ready(fit(fit_key, model, data, None, **how)[0])
        begin = time.process_time()
        posterior = jax.block_until_ready(fit(fit_key, model, data, None, **how)[0])
        spent = time.process_time() - begin
        apart = agreement(posterior, exact)
        found[name] = (apart.mean_gap, apart.sd_ratio, spent)
        advance(1)
    return found | {EVERY_ROUND: (np.nan,) * 3}


def run_all(scores: ScoreTable, policies: dict[str, Policy]) -> xr.Dataset:
    size = f"{SIZES.num_llms} LLMs, d = {SIZES.dim}"
    worlds = {f"synthetic ({size})": None, f"{scores.name} ({size})": scores}
    parts = []
    total = len(worlds) * (batches * len(policies) + len(ENGINES))
    with progress_bar("posteriors in the queue", total=total) as advance:
        for number, world in enumerate(worlds.values()):
            key = jax.random.fold_in(jax.random.key(settings.seed), number)
            part, log = run_world(world, policies, key, advance)
            apart = distances(log, jax.random.fold_in(key, batches), advance)
            for place, column in enumerate(("mean_gap", "sd_ratio", "cpu_fit")):
                part[column] = ("policy", [apart[name][place] for name in policies])
            parts.append(part)
    results = xr.concat(parts, pd.Index(list(worlds), name="world"))
    results.attrs["provenance"] = json.dumps(
        provenance(
            analysis="hmc_or_vi",
            rounds=rounds,
            seeds=batches * seeds,
            seed=settings.seed,
            refits=doubling(first)(rounds),
            slack=slack,
            smoke=settings.smoke,
            engines=ENGINES,
        )
    )
    return results


if not settings.redraw:
    real = real_scores("paretobandit3" if settings.smoke else settings.data, dim)
    SIZES = Sizes(len(real.llms), dim)
    # The same policies in both worlds: refits to as many rows are compiled once.
    write_netcdf(run_all(real, learners(SIZES)), out / "results.nc")
results = xr.load_dataset(out / "results.nc")
made = json.loads(results.attrs["provenance"])
print(json.dumps(made))

# %% [markdown]
# ## What it costs
#
# Differences to NUTS (in `--smoke`, to Laplace) are paired by seed; ± is one standard error.
# `means apart` and `sds` compare each engine with 8,000 draws of whitened HMC on one and the same
# log (what ACQB with NUTS did, first seed): distance of means in posterior standard deviations, and
# ratio of standard deviations. `fit` is the CPU seconds of one fit to that log, compiled before;
# `run` those of a whole run of one seed.


# %%
def differences(part: xr.Dataset, variable: str) -> xr.DataArray:
    """To the first posterior, seed by seed."""
    values = part[variable].isel(round=-1) if "round" in part[variable].dims else part[variable]
    return values - values.isel(policy=0)


def verdict(estimate: Any) -> str:
    """Whether a paired difference is more than noise, by two standard errors."""
    if not abs(estimate.value) > 2 * estimate.error:
        return "within noise"
    return "worse" if estimate.value > 0 else "better"


REFERENCE = str(results["policy"].values[0])
TO = f"less {REFERENCE}'s"
rows = []
for world in results["world"].values:
    part = results.sel(world=world)
    for name in map(str, part["policy"].values):
        one = part.sel(policy=name)
        apart = {
            short: over_seeds(differences(part, variable).sel(policy=name).values)
            for short, variable in (("routing", "routing_regret"), ("queue", "queue_regret_mean"))
        }
        other = name != REFERENCE
        rows.append(
            {
                "world": str(world),
                "posterior": name,
                "routing regret": str(over_seeds(one["routing_regret"].isel(round=-1).values)),
                TO: str(apart["routing"]) if other else "",
                "that is": verdict(apart["routing"]) if other else "",
                "queue above oracle": str(over_seeds(one["queue_regret_mean"].values)),
                f"{TO} ": str(apart["queue"]) if other else "",
                "that is ": verdict(apart["queue"]) if other else "",
                "means apart": f"{float(one['mean_gap']):.2f}",
                "sds": f"{float(one['sd_ratio']):.2f}",
                "fit, CPU s": f"{float(one['cpu_fit']):.3g}",
                "run, CPU s": f"{float(one['cpu_run']):.3g}",
                "refits not used": int(one["refits_not_used"]),
            }
        )
table = pd.DataFrame(rows)
with replacing(out / "table.csv") as temporary:
    table.to_csv(temporary, index=False)
for world, part in table.groupby("world", sort=False):
    print(f"\n{world}, {made['rounds']:,} rounds, {made['seeds']} seeds")
    print(part.drop(columns="world").to_string(index=False))

# %% [markdown]
# In words, computed from the table:

# %%
for world, part in table.groupby("world", sort=False):
    for measure, column in (("routing regret", "that is"), ("queue length", "that is ")):
        said = {
            kind: list(part.loc[part[column] == kind, "posterior"])
            for kind in ("better", "worse", "within noise")
        }
        print(f"{world}, {measure}, against {REFERENCE}: ", end="")
        print("; ".join(f"{kind}: {', '.join(n)}" for kind, n in said.items() if n))


# %%
def plain_ticks(axis: Any) -> None:
    """Numbers such as 0.5 and 20 on a logarithmic axis."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


COLOURS = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#999999", "#000000"]
chart, axes = plt.subplots(
    2, len(results["world"]), figsize=(5.6 * len(results["world"]), 7.6), squeeze=False
)
for (above, below), world in zip(axes.T, results["world"].values, strict=True):
    part = results.sel(world=world)
    for name, colour in zip(map(str, part["policy"].values), COLOURS, strict=False):
        curve = part["routing_regret"].sel(policy=name)
        mean, error = (curve.mean("seed"), curve.std("seed", ddof=1) / curve.sizes["seed"] ** 0.5)
        above.plot(part["round"], mean, color=colour, label=name, lw=1.6)
        above.fill_between(
            part["round"], mean - error, mean + error, color=colour, alpha=0.15, lw=0
        )
        if name == REFERENCE:
            continue
        cost = over_seeds(differences(part, "routing_regret").sel(policy=name).values)
        below.errorbar(
            float(part["cpu_run"].sel(policy=name)),
            cost.value,
            yerr=2 * cost.error,
            fmt="o",
            color=colour,
            capsize=3,
            label=name,
        )
    below.axhline(0, color="k", lw=1)
    below.axvline(float(part["cpu_run"].sel(policy=REFERENCE)), color=COLOURS[0], ls=":", lw=1.5)
    below.annotate(
        REFERENCE,
        (float(part["cpu_run"].sel(policy=REFERENCE)), 0.98),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(-4, 0),
        ha="right",
        va="top",
        color=COLOURS[0],
        fontsize=9,
    )
    above.set(title=str(world), xlabel="round")
    below.set(xscale="log", xlabel="CPU seconds of one run (log scale)")
    plain_ticks(below.xaxis)
axes[0, 0].set_ylabel("cumulative routing regret, departures lost\n(band: ±1 standard error)")
axes[1, 0].set_ylabel(
    "routing regret beyond that with " + REFERENCE + "\n(paired; bars: ±2 standard errors)"
)
axes[0, 0].legend(fontsize=8, frameon=False)
chart.suptitle(
    f"ACQB with seven posteriors: {made['rounds']:,} rounds, {made['seeds']} seeds; "
    "users and queue simulated"
    if not made["smoke"]
    else "Smoke: proves nothing"
)
chart.tight_layout()
print(save_figure(chart, out / "hmc_or_vi.png"))

# %% [markdown]
# ## Does distance from the posterior predict regret?

# %%
chart, axis = plt.subplots(figsize=(6.4, 4.6))
for world, marker in zip(results["world"].values, "os", strict=False):
    part = results.sel(world=world)
    for name, colour in zip(map(str, part["policy"].values), COLOURS, strict=False):
        if name in (REFERENCE, EVERY_ROUND):
            continue
        cost = over_seeds(differences(part, "routing_regret").sel(policy=name).values)
        axis.errorbar(
            float(part["mean_gap"].sel(policy=name)),
            cost.value,
            yerr=2 * cost.error,
            fmt=marker,
            color=colour,
            capsize=3,
            label=f"{name} ({str(world).split(' (')[0]})",
        )
axis.axhline(0, color="k", lw=1)
axis.set(
    xlabel="distance of means from the posterior's, in posterior sds (one log)",
    ylabel=f"routing regret beyond that with {REFERENCE}\n(paired; bars: ±2 standard errors)",
)
if axis.containers:  # in --smoke there is nobody to compare
    axis.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.02, 1), loc="upper left")
print(save_figure(chart, out / "distance.png"))

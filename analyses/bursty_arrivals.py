# %% [markdown]
# # What do bursts do to a queue of retrials?
#
# The same users, the same mean load, three ways to arrive: a coin flip a round (Bernoulli), as
# theory has it, and the two traces of Azure's LLM inference service of 2023, of which one has gaps
# nearly as Poisson's but a rate that wanders (`conv`) and one comes in bursts (`code`; coefficients
# of variation of gaps 1.1 and 13). Measured are queue length, waits of the queries that departed
# (mean and 99th percentile), and regret of ACQB, of ACQB in order of arrival, of the best single
# LLM and of random routing, against the oracle in the same world.
#
# - **Real**: times of requests (`arrival_traces.parquet` in `$CQBAYES_DATA`; Azure LLM inference
#   trace 2023, CC BY 4.0), and prompts and scores of three LLMs (`paretobandit3`, which comes with
#   the package).
# - **Simulated**: users, who take or retry by the scores; which query comes at which time; the
#   length of a round, chosen so that a trace brings as many queries a round as the coin does.
#   Without the file, and in `--smoke`, the bursty trace is **made up** (gamma gaps, CV 6), and is
#   called so.
# - **Seeds** are resampled traces: blocks of a twentieth of the trace in random order (circular
#   block bootstrap), so that the load is equal in the mean and differs from seed to seed. `--seed`
#   decides all. Policies share arrivals and luck.
#
# A full run found (seed 0, means over 24 seeds ± 1 SE; 4 CPU minutes):
#
# - **Bursts are what fills a queue, not the router.** At the same 0.8 of capacity the oracle holds
#   1.22 ± 0.01 queries under a coin, 30 ± 6 under `conv` and 237 ± 28 under `code` (variance over
#   mean of arrivals in 100 rounds: 0.30, 4.5, 111). ACQB adds 0.42 ± 0.02, 25 ± 5 and 52 ± 8.
# - **Routing regret does not depend on arrivals**: ACQB 322 ± 4, 335 ± 6, 330 ± 9. Nor is ACQB the
#   best here: the contexts of `paretobandit3` say little, the best single LLM loses less (256, 263,
#   240) and holds a little shorter queues under all three.
# - **Who waits is a matter of order.** Best-first serves old hard queries last: the 99th percentile
#   of ACQB's waits is 2.2, 4.8 and 2.7 times that of ACQB in order of arrival, at a queue that is
#   no longer (coin, `conv`) or 2 percent shorter (`code`: 5.7 ± 1.2 queries).
#
#     python analyses/bursty_arrivals.py [--smoke] [--out FOLDER] [--seed N] [--redraw]

# %%
import argparse
import json
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
    Arrivals,
    Environment,
    Sizes,
    acqb,
    arrivals_from_trace,
    belief,
    best_single,
    block_bootstrap,
    capacity,
    data_folder,
    fifo,
    from_scores,
    oracle,
    over_seeds,
    performance,
    progress_bar,
    provenance,
    random,
    read_trace,
    regrets,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    thinned,
    writable_folder,
    write_netcdf,
)
from cqbayes.simulation.regret import Estimate

parser = argparse.ArgumentParser(description="Bernoulli arrivals against real traces.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/bursty_arrivals"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rounds, seeds, dim = (300, 3, 3) if settings.smoke else (10_000, 24, 16)
LOAD = 0.8  # of what the oracle can carry
TRACES = {"Azure conv": "azure2023_conv", "Azure code": "azure2023_code"}
COIN = "Bernoulli"

# %% [markdown]
# ## The arrivals


# %%
def made_up_trace(seed: int, requests: int = 5_000, cv: float = 6.0) -> np.ndarray:
    """Times of requests with independent gamma gaps of mean 1 s and this CV. Simulated."""
    gaps = np.random.default_rng(seed).gamma(1 / cv**2, cv**2, requests)
    return np.cumsum(gaps) - gaps[0]


def traces_at_hand(seed: int) -> dict[str, np.ndarray]:
    """Times of requests in seconds, by name."""
    path = data_folder() / "arrival_traces.parquet"
    if settings.smoke or not path.is_file():
        if not settings.smoke:
            print(f"no {path}: a made-up bursty trace instead")
        return {"made up, bursty": made_up_trace(seed)}
    return {name: read_trace(path, trace) for name, trace in TRACES.items()}


def dispersion(counts: np.ndarray, window: int = 100) -> np.ndarray:
    """Variance over mean of arrivals in windows of rounds, a seed: 1 for Poisson."""
    whole = counts[:, : counts.shape[1] // window * window].reshape(len(counts), -1, window)
    sums = whole.sum(axis=2)
    return sums.var(axis=1) / sums.mean(axis=1)


def resampled(key: Any, population: Any, arrivals: Arrivals) -> Environment:
    """One queue a seed, each with its own resampling of a trace."""
    many = block_bootstrap(key, arrivals, rounds, seeds)
    return eqx.filter_vmap(
        lambda counts: retrial_queue(population, arrivals=Arrivals(counts, many.most))
    )(many.counts)


# %% [markdown]
# ## The runs

# %%
CURVES = ["routing_regret", "queue_length", "queue_length_regret"]
FELT = ["wait_mean", "wait_p99", "queue_length_mean", "attempts"]


def run_world(key: Any, env: Environment, policies: dict, how: dict, advance: Any) -> xr.Dataset:
    """All policies under one way of arriving."""
    done = {}
    for name, policy in policies.items():
        done[name] = simulate(key, policy, env, rounds, num_seeds=seeds, room=512, **how)
        advance(1)
    found = regrets(done)
    arrived = done["oracle"].metrics.arrived
    left = np.stack([done[name].metrics.queue_length[:, -1] for name in policies])
    return thinned(found[CURVES], 300).assign(
        {
            **performance(done)[FELT],
            "queue_regret_mean": found["queue_length_regret"].mean("round"),
            "left_at_end": (("policy", "seed"), left),
            "arrivals": ("seed", arrived.mean(axis=1)),
            "dispersion": ("seed", dispersion(arrived)),
        }
    )


def run_all() -> xr.Dataset:
    scores = cqbayes.load_scores("paretobandit3", dim)
    population = from_scores(scores.part("test"))
    num_llms, sizes = len(scores.llms), Sizes(len(scores.llms), dim)
    rate = LOAD * float(capacity(population))
    learner = acqb(belief.online(cqbayes.load_model("disjoint_mnl"), sizes), num_llms)
    policies = {"oracle": oracle(population), "acqb": learner, "fifo_acqb": fifo(learner)}
    if not settings.smoke:
        policies["best single"] = best_single(population, num_llms)
        policies["random"] = random(num_llms)
    world_key, run_key = jax.random.split(jax.random.key(settings.seed))
    worlds = {COIN: (retrial_queue(population, rate), {})}
    for number, (name, times) in enumerate(traces_at_hand(settings.seed).items()):
        env = resampled(
            jax.random.fold_in(world_key, number), population, arrivals_from_trace(times, rate)
        )
        worlds[name] = (env, {"env_per_seed": True})
    with progress_bar("arrivals", total=len(worlds) * len(policies)) as advance:
        parts = [run_world(run_key, env, policies, how, advance) for env, how in worlds.values()]
    results = xr.concat(parts, pd.Index(list(worlds), name="world"))
    results.attrs["provenance"] = json.dumps(
        provenance(
            analysis="bursty_arrivals",
            rounds=rounds,
            seeds=seeds,
            seed=settings.seed,
            load=LOAD,
            arrival_rate=round(rate, 4),
            data=scores.name,
            smoke=settings.smoke,
        )
    )
    return results


if not settings.redraw:
    write_netcdf(run_all(), out / "results.nc")
results = xr.load_dataset(out / "results.nc")
made = json.loads(results.attrs["provenance"])
print(json.dumps(made))

# %% [markdown]
# ## What those who wait get
#
# Means over seeds ± one standard error. Waits are in rounds, of queries that departed; `left` is
# how many still wait at the end of a run, whose waits are in no column.

# %%
MEASURES = {
    "queue": "queue_length_mean",
    "above oracle": "queue_regret_mean",
    "mean wait": "wait_mean",
    "p99 wait": "wait_p99",
    "left": "left_at_end",
}


def estimate(world: str, policy: str, variable: str) -> Estimate:
    part = results[variable].sel(world=world, policy=policy)
    return over_seeds((part.isel(round=-1) if "round" in part.dims else part).values)


worlds, policies = (list(map(str, results[name].values)) for name in ("world", "policy"))
for world in worlds:
    one = results.sel(world=world)
    print(
        f"{world}: {over_seeds(one['arrivals'].values)} arrivals a round; variance over mean of "
        f"arrivals in 100 rounds {over_seeds(one['dispersion'].values)}"
    )
table = pd.DataFrame(
    [
        {
            "arrivals": world,
            "policy": policy,
            "routing regret": estimate(world, policy, "routing_regret"),
        }
        | {label: estimate(world, policy, variable) for label, variable in MEASURES.items()}
        for world in worlds
        for policy in policies
    ]
)
print(table.map(str).to_string(index=False))
with replacing(out / "table.csv") as temporary:
    table.map(str).to_csv(temporary, index=False)

# %% [markdown]
# In words, computed from the results; policies are paired by seed within a world. Worlds are not:
# their errors add.


# %%
def against(estimate: Estimate) -> str:
    """A paired difference, and whether it is one."""
    if not abs(estimate.value) > 2 * estimate.error:
        return f"no more and no less than ACQB within noise ({estimate})"
    size = Estimate(abs(estimate.value), estimate.error)
    return f"{size} {'more' if estimate.value > 0 else 'less'} than ACQB"


coin = estimate(COIN, "acqb", "queue_length_mean")
for world in worlds:
    if world != COIN:
        there = estimate(world, "acqb", "queue_length_mean")
        print(f"{world}: ACQB's queue is {there.value / coin.value:.1f} times that under {COIN}")
    one = results.sel(world=world)
    for policy in policies[2:]:
        gap = one.sel(policy=policy) - one.sel(policy="acqb")
        said = [
            f"{label} {against(over_seeds(gap[variable].values))}"
            for label, variable in (("queue", "queue_length_mean"), ("p99 wait", "wait_p99"))
        ]
        print(f"{world}, {policy}: {'; '.join(said)}")


# %%
def plain_ticks(axis: Any) -> None:
    """Numbers such as 0.5 and 20 on a logarithmic axis."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


COLOURS = ["#000000", "#0072B2", "#56B4E9", "#E69F00", "#D55E00"]
chart, axes = plt.subplots(1, 4, figsize=(15, 4.6), sharey=False)
panels = {
    "queue_length_mean": "queries waiting, mean",
    "wait_mean": "mean wait, rounds",
    "wait_p99": "99th percentile of waits, rounds",
    "routing_regret": "routing regret, departures lost",
}
for axis, (variable, label) in zip(axes, panels.items(), strict=True):
    for number, (policy, colour) in enumerate(zip(policies, COLOURS, strict=False)):
        if variable == "routing_regret" and policy == "oracle":
            continue  # it has none
        found = [estimate(world, policy, variable) for world in worlds]
        place = np.arange(len(worlds)) + 0.14 * (number - (len(policies) - 1) / 2)
        axis.errorbar(
            place,
            [f.value for f in found],
            yerr=[2 * f.error for f in found],
            fmt="o",
            color=colour,
            capsize=3,
            ms=5,
            label=policy,
        )
    axis.set(yscale="log", title=label, xticks=range(len(worlds)), xticklabels=worlds)
    axis.set_xlim(-0.6, len(worlds) - 0.4)
    plain_ticks(axis.yaxis)
    axis.grid(axis="y", alpha=0.25)
handles, labels = axes[0].get_legend_handles_labels()
chart.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
chart.suptitle(
    f"{made['arrival_rate']} arrivals a round, {made['load']:g} of what the oracle carries; "
    f"simulated users, {made['rounds']:,} rounds, {made['seeds']} seeds; bars ±2 standard errors, "
    "log scales",
    fontsize=10,
)
chart.tight_layout(rect=(0, 0.07, 1, 1))
print(save_figure(chart, out / "bursty_arrivals.png"))

# %%
chart, axes = plt.subplots(1, len(worlds), figsize=(4.8 * len(worlds), 3.8), sharey=True)
for axis, world in zip(np.atleast_1d(axes), worlds, strict=True):
    for policy, colour in zip(policies, COLOURS, strict=False):
        one = results["queue_length"].sel(world=world, policy=policy).isel(seed=0)
        axis.plot(results["round"], one, color=colour, lw=1.1, label=policy)
    axis.set(title=world, xlabel="round")
    axis.set_yscale("symlog", linthresh=1)
    axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
top = float(results["queue_length"].isel(seed=0).max())
np.atleast_1d(axes)[0].set_ylim(0, 1.2 * top)
np.atleast_1d(axes)[0].set_ylabel("queries waiting (log scale above 1)")
np.atleast_1d(axes)[-1].legend(
    fontsize=8, frameon=False, bbox_to_anchor=(1.02, 1), loc="upper left"
)
chart.suptitle("One seed: the same arrivals for all policies of a panel")
chart.tight_layout()
print(save_figure(chart, out / "queues.png"))

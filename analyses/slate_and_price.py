# %% [markdown]
# # How many answers, and at what price?
#
# A gateway can show a query to K LLMs and let the user take the best answer, and it can prefer
# cheap LLMs. Both trade money against waiting: more answers satisfy sooner and cost more, cheap
# answers cost less and are asked again. Measured is the Pareto front of dollars per departed query
# against queue length, of ACQB with values
#
#     w_j = 1 - lambda price_j        price_j = mean cost of LLM j / that of the dearest
#
# for K = 1, 2, 3 and price weights lambda from 0 (answers are worth the same) to 1.
#
# - **Real**: prompts, scores and costs of LLMs' answers (`paretobandit3`, which comes with the
#   package; `paretobandit4` and `routerbench3k` where their files and the extra `embed` are there).
#   Prices are means over training queries, all that ACQB is told; every answer that is shown is
#   then paid for at its own real cost.
# - **Simulated**: users, who take or retry by the scores, and the queue, over held-out queries.
# - **The load** is the same for all K and lambda: 0.8 of what the best LLM for each query can
#   carry. Where queues grow through the second half of a run, the row says so: their length is then
#   that of the run, not of a steady state.
# - **Seeds**: `--seed` decides all; every policy meets the same arrivals and the same luck.
#
# A full run found (seed 0, 6,000 rounds, means over 24 seeds ± 1 SE; 9 CPU minutes):
#
# - **Price first**: with K = 1 a price weight cuts cost to 0.065 ± 0.002 (`paretobandit3`) and
#   0.110 ± 0.009 (`paretobandit4`) of that at lambda = 0, for 0.33 ± 0.05 and 0.19 ± 0.03 more
#   waiting queries of 1.6: on these two, LLMs differ far more in price than in quality.
# - **Then answers**: two cheap answers wait less and cost less than one dear one (1.11 queries at
#   $0.78 against 1.60 at $9.6 per 1,000 on `paretobandit3`). At lambda = 0, K = 2 takes 0.62 of 1.6
#   queries away at 1.7 times the cost. Nearly the whole front is K = 2 and 3; K = 1 is on it only
#   where cost counts most.
# - **Where one answer cannot carry the load**: on `routerbench3k` the best LLM differs by query,
#   and 0.8 of what an oracle carries is more than ACQB learns to carry with K = 1 in this time (62
#   ± 5 waiting, growing; the best single LLM 638 ± 20). K = 2 holds 1.6, at 1.27 ± 0.04 times the
#   cost, K = 3 holds 1.0.
#
#     python analyses/slate_and_price.py [--smoke] [--out FOLDER] [--seed N] [--redraw]

# %%
import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker

import cqbayes
from cqbayes import (
    ScoreTable,
    Sizes,
    Trace,
    acqb,
    belief,
    best_single,
    capacity,
    from_scores,
    oracle,
    over_seeds,
    progress_bar,
    provenance,
    random,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    writable_folder,
    write_netcdf,
)
from cqbayes.datasets.load import lacking

parser = argparse.ArgumentParser(description="Slate size and price: cost against queue length.")
parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
parser.add_argument("--out", type=Path, default=Path("out/slate_and_price"))
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--redraw", action="store_true", help="only tables and pictures, from results")
settings = parser.parse_args()
scripts_end_in_one_line()
out = writable_folder(settings.out)
rounds, seeds, dim = (200, 3, 3) if settings.smoke else (6_000, 24, 16)
SLATES = [1, 2] if settings.smoke else [1, 2, 3]
WEIGHTS = [0.0, 0.5] if settings.smoke else [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0]
LOAD = 0.8
DATA = ["paretobandit3"] if settings.smoke else ["paretobandit3", "paretobandit4", "routerbench3k"]

# %% [markdown]
# ## The data


# %%
def real_scores(name: str, dim: int) -> ScoreTable | None:
    """A data set with contexts, or None where something that it takes is absent."""
    if absent := lacking(name):
        print(f"{name}: no {absent[0]} here, left out")
        return None
    return cqbayes.load_scores(name, dim, method="contrastive", progress=True)


def prices(scores: ScoreTable) -> np.ndarray:
    """Mean cost of each LLM's answer to training queries, the dearest at 1."""
    mean = scores.part("train").cost.mean(axis=0)
    return mean / mean.max()


# %% [markdown]
# ## The runs


# %%
def measured(trace: Trace) -> dict[str, np.ndarray]:
    """What is kept of a run, one number a seed."""
    metrics = trace.metrics
    half = metrics.queue_length.shape[1] // 2
    late = metrics.queue_length[:, half:]
    departures = np.maximum(metrics.departed.sum(axis=1), 1)
    return {
        "cost": metrics.cost.sum(axis=1, dtype=np.float64) / departures,
        "queue": late.mean(axis=1),
        "growth": late[:, late.shape[1] // 2 :].mean(axis=1) / np.maximum(late.mean(axis=1), 1e-9),
        "served_by": metrics.offered.sum(axis=1) / metrics.served.sum(axis=1)[:, None],
    }


def run_data(scores: ScoreTable, key: Any, advance: Any) -> xr.Dataset:
    """Every policy, slate size and price weight on one data set."""
    population = from_scores(scores.part("test"))
    num_llms = len(scores.llms)
    sizes, price = Sizes(num_llms, dim), prices(scores)
    rate = LOAD * capacity(population)
    learner = belief.online(cqbayes.load_model("disjoint_mnl"), sizes)
    found: dict[tuple[str, int, float], dict[str, np.ndarray]] = {}
    for size, weight in product(SLATES, WEIGHTS):
        values = jnp.asarray(1 - weight * price)
        env = retrial_queue(population, rate, size, values=values)
        policies = {
            "acqb": acqb(learner, num_llms, size, values=values),
            "oracle": oracle(population, size, values=values),
        }
        if weight == 0 and not settings.smoke:
            policies["best single"] = best_single(population, num_llms, size)
            policies["random"] = random(num_llms, size)
        for name, policy in policies.items():
            trace = simulate(key, policy, env, rounds, num_seeds=seeds, room=256)
            found[name, size, weight] = measured(trace)
            advance(1)
    index = pd.MultiIndex.from_tuples(list(found), names=["policy", "K", "weight"])
    kept = {
        name: (
            ("run", "seed", "llm")[: 1 + value.ndim],
            np.stack([m[name] for m in found.values()]),
        )
        for name, value in next(iter(found.values())).items()
    }
    columns = {level: ("run", index.get_level_values(level).to_numpy()) for level in index.names}
    return xr.Dataset(
        kept | columns | {"price": ("llm", price)},
        coords={"llm": list(scores.llms)},
        attrs={"data": scores.name, "arrival_rate": float(rate)},
    )


def run_all() -> xr.DataTree:
    tables = [table for name in DATA if (table := real_scores(name, dim)) is not None]
    each = len(SLATES) * (2 * len(WEIGHTS) + 2)
    parts = {}
    with progress_bar("slates and prices", total=each * len(tables)) as advance:
        for number, scores in enumerate(tables):
            key = jax.random.fold_in(jax.random.key(settings.seed), number)
            parts[scores.name] = run_data(scores, key, advance)
    results = xr.DataTree.from_dict(parts)
    results.attrs["provenance"] = json.dumps(
        provenance(
            analysis="slate_and_price",
            rounds=rounds,
            seeds=seeds,
            seed=settings.seed,
            load=LOAD,
            dim=dim,
            smoke=settings.smoke,
        )
    )
    return results


if not settings.redraw:
    write_netcdf(run_all(), out / "results.nc")
with xr.open_datatree(out / "results.nc", engine="h5netcdf") as opened:
    results = opened.load()
made = json.loads(results.attrs["provenance"])
print(json.dumps(made))

# %% [markdown]
# ## The front
#
# A point is on the front if no other of ACQB's costs less and waits less. `front` is the share of
# 1,000 bootstrap samples of the seeds in which it is; seeds are paired, so a sample is the same
# seeds for all points. `$ per 1,000` departed queries and `queue` (mean over the second half of the
# run) are means over seeds ± one standard error. `growing`: the mean queue of the last quarter of
# the run exceeds that of the last half by more than two standard errors and 10 percent.


# %%
def undominated(cost: np.ndarray, queue: np.ndarray) -> np.ndarray:
    """Which points `[..., run]` no other beats in both."""
    below = (cost[..., None, :] <= cost[..., :, None]) & (
        queue[..., None, :] <= queue[..., :, None]
    )
    strictly = (cost[..., None, :] < cost[..., :, None]) | (
        queue[..., None, :] < queue[..., :, None]
    )
    return ~(below & strictly).any(axis=-1)


def front_share(part: xr.Dataset, seed: int) -> np.ndarray:
    """Share of bootstrap samples of the seeds in which each run is on the front."""
    picks = np.random.default_rng(seed).integers(0, part.sizes["seed"], (1_000, part.sizes["seed"]))
    cost, queue = (part[name].values[:, picks].mean(axis=-1).T for name in ("cost", "queue"))
    return undominated(cost, queue).mean(axis=0)


def growing(values: np.ndarray) -> bool:
    found = over_seeds(values)
    return found.value > 1.1 and found.value - 2 * found.error > 1


def frame_of(part: xr.Dataset) -> pd.DataFrame:
    """A row a run, with numbers to draw from."""
    frame = part[["policy", "K", "weight"]].to_dataframe().reset_index(drop=True)
    for name in ("cost", "queue"):
        estimates = [over_seeds(row) for row in part[name].values]
        scale = 1_000 if name == "cost" else 1
        frame[name] = [scale * e.value for e in estimates]
        frame[f"{name}_error"] = [scale * e.error for e in estimates]
    frame["growing"] = [growing(row) for row in part["growth"].values]
    ours = (frame["policy"] == "acqb").to_numpy()
    frame["front"] = np.nan
    frame.loc[ours, "front"] = front_share(part.isel(run=ours), made["seed"])
    share = part["served_by"].mean("seed").values
    frame["mostly"] = [str(part["llm"].values[row.argmax()]).split("/")[-1] for row in share]
    return frame


frames = {name: frame_of(node.to_dataset()) for name, node in results.children.items()}
for name, frame in frames.items():
    shown = pd.DataFrame(
        {
            "policy": frame["policy"],
            "K": frame["K"],
            "lambda": frame["weight"],
            "$ per 1,000": [
                f"{c:.3g} ± {e:.1g}"
                for c, e in zip(frame["cost"], frame["cost_error"], strict=True)
            ],
            "queue": [
                f"{q:.3g} ± {e:.1g}"
                for q, e in zip(frame["queue"], frame["queue_error"], strict=True)
            ],
            "front": frame["front"].map(lambda share: "" if np.isnan(share) else f"{share:.2f}"),
            "growing": frame["growing"].map({True: "yes", False: ""}),
            "most often shown": frame["mostly"],
        }
    )
    rate = results[name].attrs["arrival_rate"]
    print(f"\n{name}: {rate:.3f} arrivals a round (simulated users; real scores and costs)")
    print(shown.to_string(index=False))
with replacing(out / "table.csv") as temporary:
    pd.concat(frames, names=["data", "row"]).reset_index("data").to_csv(temporary, index=False)

# %% [markdown]
# In words, computed from the results; differences are paired by seed:


# %%
def sentence(name: str, part: xr.Dataset, frame: pd.DataFrame) -> str:
    """What K and lambda buy on one data set."""
    ours = frame[frame["policy"] == "acqb"]
    plain = ours.index[(ours["K"] == 1) & (ours["weight"] == 0)][0]
    said = []
    for size in sorted(set(ours["K"]) - {1}):
        more = ours.index[(ours["K"] == size) & (ours["weight"] == 0)][0]
        queue = over_seeds((part["queue"][more] - part["queue"][plain]).values)
        cost = over_seeds((part["cost"][more] / part["cost"][plain]).values)
        said.append(f"K = {size} changes the queue by {queue} queries at {cost} times the cost")
    stable = ours[(ours["K"] == 1) & ~ours["growing"]]
    if len(stable):
        cheap = stable["cost"].idxmin()
        ratio = over_seeds((part["cost"][cheap] / part["cost"][plain]).values)
        queue = over_seeds((part["queue"][cheap] - part["queue"][plain]).values)
        said.append(
            "the cheapest K = 1 whose queue does not grow has lambda = "
            f"{frame['weight'][cheap]:g}: {ratio} times the cost of lambda = 0, and {queue} more "
            "queries wait"
        )
    on = ours[ours["front"] >= 0.5]
    sizes = ", ".join(f"{(on['K'] == size).sum()} of K = {size}" for size in sorted(set(on["K"])))
    return f"{name}: {'; '.join(said)}. On the front in at least half the samples: {sizes}."


for name, frame in frames.items():
    print(sentence(name, results[name].to_dataset(), frame))


# %%
def plain_ticks(axis: Any) -> None:
    """Numbers such as 0.5 and 20 on a logarithmic axis."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


COLOURS = {1: "#0072B2", 2: "#D55E00", 3: "#009E73"}
chart, axes = plt.subplots(1, len(frames), figsize=(5.4 * len(frames), 5.2), squeeze=False)
for axis, (name, frame) in zip(axes[0], frames.items(), strict=True):
    for size in sorted(set(frame["K"])):
        ours = frame[(frame["policy"] == "acqb") & (frame["K"] == size)].sort_values("weight")
        axis.plot(ours["cost"], ours["queue"], color=COLOURS[size], lw=1, alpha=0.6)
        for growing_one, mark in ((False, COLOURS[size]), (True, "white")):
            some = ours[ours["growing"] == growing_one]
            axis.errorbar(
                some["cost"],
                some["queue"],
                xerr=2 * some["cost_error"],
                yerr=2 * some["queue_error"],
                fmt="o",
                color=COLOURS[size],
                markerfacecolor=mark,
                capsize=2,
                ms=5,
                label=None if growing_one else f"ACQB, K = {size}",
            )
        for _, row in ours[ours["weight"].isin([0, ours["weight"].max()])].iterrows():
            axis.annotate(
                f"λ = {row['weight']:g}",
                (row["cost"], row["queue"]),
                textcoords="offset points",
                xytext=(5, 5),
                fontsize=8,
                color=COLOURS[size],
            )
        best = frame[(frame["policy"] == "oracle") & (frame["K"] == size)].sort_values("weight")
        axis.plot(
            best["cost"],
            best["queue"],
            color=COLOURS[size],
            ls=":",
            lw=1.2,
            label="oracle, same K" if size == max(frame["K"]) else None,
        )
        for policy, mark in (("best single", "s"), ("random", "x")):
            one = frame[(frame["policy"] == policy) & (frame["K"] == size)]
            axis.plot(
                one["cost"],
                one["queue"],
                mark,
                color=COLOURS[size],
                ms=7,
                label=f"{policy}, same K" if size == max(frame["K"]) else None,
            )
    ours = frame[frame["policy"] == "acqb"]
    front = ours[undominated(ours["cost"].to_numpy(), ours["queue"].to_numpy())]
    front = front.sort_values("cost")
    axis.step(
        front["cost"], front["queue"], where="post", color="k", lw=5, alpha=0.12, label="front"
    )
    axis.set(title=name, xscale="log", yscale="log", xlabel="dollars per 1,000 departed queries")
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
axes[0, 0].set_ylabel("queries waiting, mean over the second half")
axes[0, -1].legend(fontsize=8, frameon=False, bbox_to_anchor=(1.02, 1), loc="upper left")
chart.suptitle(
    f"Real scores and costs, simulated users; {made['rounds']:,} rounds, {made['seeds']} seeds;\n"
    "bars ±2 standard errors; hollow: the queue still grows",
    fontsize=10,
)
chart.tight_layout()
print(save_figure(chart, out / "slate_and_price.png"))

# %% [markdown]
# # Does ACQB do what its paper claims?
#
# Simulated: 5 LLMs, d = 5, truth drawn anew for every seed, contexts in the unit ball. For answers
# to a query K = 1, 2, 3 and slack 0.05, 0.1, 0.2, all policies meet the same worlds and the same
# luck as the oracle:
#
# - the routing regret of ACQB grows with an exponent of at most 0.5;
# - its queue-length regret decays with an exponent of -0.25 or steeper;
# - without forced exploration (`thompson`) the tail over seeds is heavier: how far the 95th
#   percentile is from the median, in which a cost that all seeds share cancels;
# - the queue-length regret of `cqb_eta` at its horizon, which it is told, decays faster in the
#   horizon than that of ACQB: both in the last rounds, since `cqb_eta` stops exploring only then.
#
# All policies meet in one of these worlds, in shorter runs, for one table and one figure.
#
# A claim about an exponent holds where its whole 95 percent interval does, is open where only a
# part does, and fails where none does. Nothing is chosen by its outcome: one seed decides all.
#
#     python analyses/claims.py [--smoke] [--json FILE] [--out FOLDER] [--jobs N]

# %%
import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import cqbayes
from cqbayes import (
    InputError,
    Setup,
    Sizes,
    belief,
    capacity,
    load_policy,
    oracle,
    over_seeds,
    policy_names,
    progress_bar,
    provenance,
    replacing,
    retrial_queue,
    save_figure,
    scripts_end_in_one_line,
    simulate,
    synthetic,
    writable_folder,
)
from cqbayes.policies.setup import needs_truth
from cqbayes.simulation.regret import Exponent, slope_of_logs, window_means

NUM_LLMS, DIM = 5, 5
POLICIES = ["acqb", "thompson", "cqb_eta"]  # those that something is claimed of
BATCH = 32  # seeds at once: as many as fit into the cache
LAST = 20  # rounds before the horizon: within the last phase of cqb_eta at every horizon used here
# All that can be run by name. The queues of some of them grow without end, so their runs are short.
EVERYBODY = [name for name in policy_names() if name not in ("oracle", "linear_oracle")]
EVERYBODY += ["fifo_acqb", "fifo_oracle"]


class Cell(NamedTuple):
    """One world, by its load and by how many answers a query gets."""

    slate_size: int
    slack: float
    rounds: int
    num_seeds: int
    seed: int


class Curves(NamedTuple):
    """Of one policy in one cell, ``[seed, point]``.

    Attributes:
        routing: cumulative routing regret at the points.
        queue: mean queue-length regret between each point and the one before.
        end: the same over the last ``LAST`` rounds ``[seed, 1]``.
        whole: the same over all rounds ``[seed, 1]``.
    """

    routing: np.ndarray
    queue: np.ndarray
    end: np.ndarray
    whole: np.ndarray


# What the tails over seeds are of: one number a seed.
TAILS: dict[str, Callable[[Curves], np.ndarray]] = {
    "routing regret": lambda curves: curves.routing[:, -1],
    "queue-length regret": lambda curves: curves.whole[:, 0],
}


# %%
def points(rounds: int) -> np.ndarray:
    """Rounds that curves are kept at: equally spaced in log t."""
    return np.unique(np.geomspace(min(50, rounds), rounds, 60).astype(int))


def run_batch(cell: Cell, batch: int, names: list[str]) -> dict[str, Curves]:
    """All policies in the worlds of a few seeds."""
    truth_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(cell.seed), batch))
    size = min(BATCH, cell.num_seeds)
    truth = eqx.filter_vmap(lambda key: synthetic(key, NUM_LLMS, DIM))(
        jax.random.split(truth_key, size)
    )
    env = eqx.filter_vmap(
        lambda p: retrial_queue(p, capacity(p, cell.slate_size) - cell.slack, cell.slate_size)
    )(truth)
    model = cqbayes.load_model("disjoint_mnl")
    sizes = Sizes(NUM_LLMS, DIM)
    setup = Setup(sizes, cell.slate_size, belief.online(model, sizes), horizon=cell.rounds)
    knows = eqx.filter_vmap(lambda p: oracle(p, cell.slate_size))(truth)
    common: dict[str, Any] = {"num_seeds": size, "env_per_seed": True, "room": 128}
    best = simulate(run_key, knows, env, cell.rounds, policy_per_seed=True, **common).metrics
    at = points(cell.rounds)
    curves = {}
    for name in names:
        per_seed = needs_truth(name)
        policy = (
            load_policy(name, setup)
            if not per_seed
            else eqx.filter_vmap(lambda p, name=name: load_policy(name, setup._replace(truth=p)))(
                truth
            )
        )
        metrics = simulate(
            run_key, policy, env, cell.rounds, policy_per_seed=per_seed, **common
        ).metrics
        lost = np.cumsum(metrics.best_for_query - metrics.value, axis=1, dtype=np.float64)
        gap = metrics.queue_length - best.queue_length
        curves[name] = Curves(
            routing=lost[:, at - 1],
            queue=window_means(gap, np.concatenate([[1], at])),
            end=gap[:, -LAST:].mean(axis=1, keepdims=True),
            whole=gap.mean(axis=1, keepdims=True),
        )
    return curves


def joined(parts: list[dict[str, Curves]]) -> dict[str, Curves]:
    return {
        name: Curves(
            *(np.concatenate(column) for column in zip(*(p[name] for p in parts), strict=True))
        )
        for name in parts[0]
    }


# %% [markdown]
# ## What is read off a curve


# %%
def growth(routing: np.ndarray, rounds: int) -> Exponent | None:
    """Exponent of routing regret over the last 7/8 of the rounds; None where it is not positive."""
    late = points(rounds) >= rounds // 8
    return exponent(points(rounds)[late], routing[:, late])


def decay(queue: np.ndarray, rounds: int) -> Exponent | None:
    """Exponent of queue-length regret, likewise, over a dozen windows."""
    at = points(rounds)
    middle = np.sqrt(at * np.concatenate([[at[0]], at[:-1]]))
    late = middle >= rounds // 8
    return exponent(middle[late], queue[:, late])


def exponent(t: np.ndarray, values: np.ndarray) -> Exponent | None:
    try:
        return slope_of_logs(t, values)
    except InputError:
        return None


def verdict(found: Exponent | None, limit: float) -> str:
    """Whether an exponent is at most the limit."""
    if found is None:
        return "no exponent: down to noise"
    if found.high <= limit:
        return "holds"
    return "open" if found.low <= limit else "fails"


def in_words(found: Exponent | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def heavier_tail(lighter: np.ndarray, heavier: np.ndarray, seed: int) -> dict[str, float | str]:
    """Distance of the 95th percentile over seeds from the median: the ratio of two, with bootstrap.

    Seeds are paired: the same worlds and luck. What all seeds pay alike moves neither distance.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(lighter), (2_000, len(lighter)))

    def tail(values: np.ndarray) -> np.ndarray:
        return np.quantile(values, 0.95, axis=-1) - np.quantile(values, 0.5, axis=-1)

    low, high = np.quantile(tail(heavier[rows]) / tail(lighter[rows]), [0.025, 0.975])
    held = "holds" if low > 1 else "open" if high > 1 else "fails"
    return {
        "p95 - median, acqb": float(tail(lighter)),
        "p95 - median, thompson": float(tail(heavier)),
        "worst seed, acqb": float(lighter.max()),
        "worst seed, thompson": float(heavier.max()),
        "ratio of tails, low": float(low),
        "ratio of tails, high": float(high),
        "verdict": held,
    }


def rows_of(cell: Cell, curves: dict[str, Curves]) -> list[dict[str, Any]]:
    """A row of the table for each policy."""
    rows = []
    for name, (routing, queue, *_) in curves.items():
        grows, decays = growth(routing, cell.rounds), decay(queue, cell.rounds)
        # The last tenth or so: the windows that end in it.
        last = points(cell.rounds) > 0.9 * cell.rounds
        rows.append(
            {
                "K": cell.slate_size,
                "slack": cell.slack,
                "policy": name,
                "routing regret": str(over_seeds(routing[:, -1])),
                "growth": in_words(grows),
                "at most 0.5": verdict(grows, 0.5),
                "queue-length regret": str(over_seeds(queue[:, last].mean(axis=1))),
                "decay": in_words(decays),
                "at most -0.25": verdict(decays, -0.25),
            }
        )
    return rows


# %% [markdown]
# ## The runs


# %%
def horizons(rounds: int) -> list[int]:
    """Horizons that `cqb_eta` is told, each three times the one before."""
    return [rounds // 3**k for k in range(3, 0, -1)]


def at_the_horizon(runs: dict[int, dict[str, Curves]]) -> dict[str, Any]:
    """Queue-length regret in the last rounds of each horizon, and its exponent in the horizon."""
    t = np.array(sorted(runs))
    found: dict[str, Any] = {"horizons": t.tolist()}
    for name in ("cqb_eta", "acqb"):
        ends = np.concatenate([runs[h][name].end for h in t], axis=1)
        found[name] = [str(over_seeds(column)) for column in ends.T]
        decays = exponent(t.astype(float), ends)
        found[f"{name} exponent"] = None if decays is None else list(decays)
    ours, theirs = found["acqb exponent"], found["cqb_eta exponent"]
    if ours is None or theirs is None:
        found["verdict"] = "no exponent: down to noise"
    else:
        found["verdict"] = (
            "holds" if theirs[2] < ours[1] else "fails" if theirs[1] > ours[2] else "open"
        )
    return found


def run_cells(cells: list[tuple[Cell, list[str]]], jobs: int) -> list[dict[str, Curves]]:
    """Batches of all cells, on so many processes."""
    tasks = [
        (number, cell, batch, names)
        for number, (cell, names) in enumerate(cells)
        for batch in range(-(-cell.num_seeds // BATCH))
    ]
    parts: list[list[dict[str, Curves]]] = [[] for _ in cells]
    pool = Parallel(n_jobs=jobs, return_as="generator")
    with progress_bar("claims", total=len(tasks)) as advance:
        done = pool(delayed(run_batch)(cell, batch, names) for _, cell, batch, names in tasks)
        for (number, *_), part in zip(tasks, done, strict=True):
            parts[number].append(part)
            advance(1)
    return [joined(part) for part in parts]


def figure(results: dict[tuple[int, float], dict[str, Curves]], rounds: int) -> plt.Figure:
    """Routing and queue-length regret of the policies: K by column, the middle slack."""
    sizes = sorted({k for k, _ in results})
    slacks = sorted({slack for _, slack in results})
    slack = slacks[len(slacks) // 2]
    at = points(rounds)
    chart, axes = plt.subplots(
        2, len(sizes), figsize=(4.2 * len(sizes), 7), sharex=True, sharey="row", squeeze=False
    )
    for column, size in zip(axes.T, sizes, strict=True):
        for number, (name, (routing, queue, *_)) in enumerate(results[size, slack].items()):
            style = {
                "color": f"C{number % 10}",
                "ls": ["-", "--", ":"][number // 10],
                "lw": 2.2 if name == "acqb" else 1.2,
                "zorder": 3 if name == "acqb" else 2,
            }
            column[0].plot(at, routing.mean(axis=0), label=name, **style)
            # Windows of five: single ones are mostly noise late in a run.
            groups = np.array_split(np.arange(len(at)), max(1, len(at) // 5))
            means = [queue[:, g].mean() for g in groups]
            column[1].plot([at[g].mean() for g in groups], np.maximum(means, 1e-3), **style)
        column[0].set(title=f"K = {size}", xscale="log", yscale="log")
        column[1].set(xlabel="round", xscale="log", yscale="log")
        column[0].plot(at, 3 * np.sqrt(at), "k-.", lw=1, label="slope 1/2")
        column[1].plot(at, 5 * at**-0.25, "k-.", lw=1, label="slope -1/4")
    axes[0, 0].set_ylabel("cumulative routing regret")
    axes[1, 0].set_ylabel("queue length above the oracle's")
    chart.legend(
        *axes[0, -1].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5)
    )
    chart.suptitle(f"Simulated: 5 LLMs, d = 5, slack {slack}; means over seeds")
    chart.tight_layout()
    return chart


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="The paper's claims, one by one.")
    parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--out", type=Path, default=Path("out/claims"))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    scripts_end_in_one_line()
    out = writable_folder(settings.out)
    rounds, num_seeds = (600, 4) if settings.smoke else (100_000, 256)
    slacks = [0.1] if settings.smoke else [0.05, 0.1, 0.2]
    sizes = [1, 2] if settings.smoke else [1, 2, 3]

    grid = [
        (Cell(k, slack, rounds, num_seeds, settings.seed), POLICIES)
        for k, slack in product(sizes, slacks)
    ]
    shorter = [
        (Cell(1, 0.1, horizon, num_seeds, settings.seed), ["acqb", "cqb_eta"])
        for horizon in horizons(rounds)
    ]
    everybody = Cell(1, 0.1, rounds // 5, num_seeds, settings.seed)
    names = ["acqb", "random", "fifo_acqb"] if settings.smoke else EVERYBODY
    done = run_cells([*grid, *shorter, (everybody, names)], settings.jobs)
    curves_of_all = done.pop()
    results = {
        (cell.slate_size, cell.slack): c
        for (cell, _), c in zip(grid, done[: len(grid)], strict=True)
    }
    by_horizon = {cell.rounds: c for (cell, _), c in zip(shorter, done[len(grid) :], strict=True)}
    by_horizon[rounds] = results[1, 0.1]

    table = pd.DataFrame(
        [
            row
            for (cell, _), curves in zip(grid, done[: len(grid)], strict=True)
            for row in rows_of(cell, curves)
        ]
    )
    table_of_all = pd.DataFrame(rows_of(everybody, curves_of_all))
    tails = {
        f"{what}, K={k}, slack={slack}": heavier_tail(
            read(curves["acqb"]), read(curves["thompson"]), settings.seed
        )
        for what, read in TAILS.items()
        for (k, slack), curves in results.items()
    }
    horizon = at_the_horizon(by_horizon)
    with pd.option_context("display.width", 200, "display.max_rows", 200):
        print(table.to_string(index=False))
        print(f"\nAll of them, {everybody.rounds} rounds")
        print(table_of_all.to_string(index=False))
        print("\nWithout forced exploration: the tail over seeds")
        print(pd.DataFrame(tails).T.to_string())
        print(f"\nGiven its horizon: {json.dumps(horizon, indent=1)}")
    for name, rows in (("claims.csv", table), ("everybody.csv", table_of_all)):
        with replacing(out / name) as temporary:
            rows.to_csv(temporary, index=False)
    print(save_figure(figure(results, rounds), out / "claims.png"))
    print(save_figure(figure({(1, 0.1): curves_of_all}, everybody.rounds), out / "everybody.png"))
    if settings.json:
        record = {
            "table": table.to_dict("records"),
            "everybody": table_of_all.to_dict("records"),
            "tails": tails,
            "horizon": horizon,
            **provenance(rounds=rounds, seeds=num_seeds, seed=settings.seed),
        }
        with replacing(settings.json) as temporary:
            temporary.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

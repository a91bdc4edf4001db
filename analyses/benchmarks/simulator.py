# %% [markdown]
# # How fast is a simulated round?
#
# ACQB with the online Gaussian, many seeds at once under `vmap`, against a plain NumPy loop as
# research code has it: one seed, one round at a time, per-LLM precision matrices, inverted in each
# round. Same process, same core, process CPU seconds, medians of several runs; compilation apart.
#
#     python analyses/benchmarks/simulator.py [--quick] [--json FILE]

# %%
import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from cqbayes.models.disjoint_mnl import disjoint_mnl
from rich.console import Console
from rich.table import Table

from cqbayes import belief
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import linear
from cqbayes.files import replacing
from cqbayes.policies.acqb import acqb
from cqbayes.preference import Sizes
from cqbayes.provenance import provenance
from cqbayes.simulate import simulate

ARRIVAL_RATE = 0.5
ROOM = 64


# %%
def plain_numpy(theta: np.ndarray, rounds: int, seed: int, room: int = ROOM) -> float:
    """ACQB for one seed with NumPy, written as one would write it down; returns the mean queue."""
    rng = np.random.default_rng(seed)
    num_llms, dim = theta.shape
    mean = np.zeros((num_llms, dim))
    precision = np.stack([np.eye(dim)] * num_llms)
    queue: list[np.ndarray] = []
    total = 0
    for t in range(1, rounds + 1):
        total += len(queue)
        if queue:
            if rng.random() < min(1.0, 0.5 / np.sqrt(t)):
                query, llm = rng.integers(len(queue)), rng.integers(num_llms)
            else:
                drawn = np.stack(
                    [
                        rng.multivariate_normal(mean[j], np.linalg.inv(precision[j]))
                        for j in range(num_llms)
                    ]
                )
                utility = np.stack(queue) @ drawn.T
                query, llm = np.unravel_index(np.argmax(utility), utility.shape)
            x = queue[query]
            taken = rng.random() < 1 / (1 + np.exp(-(x @ theta[llm])))
            share = 1 / (1 + np.exp(-(x @ mean[llm])))
            precision[llm] += share * (1 - share) * np.outer(x, x)
            mean[llm] += np.linalg.solve(precision[llm], x * (taken - share))
            if taken:
                queue.pop(query)
        if rng.random() < ARRIVAL_RATE and len(queue) < room:
            x = rng.uniform(-1, 1, dim)
            queue.append(x / max(1.0, np.linalg.norm(x)))
    return total / rounds


# %%
def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median process CPU seconds of a few runs, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(
    num_llms: int, dim: int, num_seeds: int, target: float | None, quick: bool
) -> dict[str, object]:
    """Rounds a second of both, summed over seeds."""
    rounds, peer_rounds = (1_000, 300) if quick else (4_000, 1_500)
    repeats = 3 if quick else 5
    theta = np.random.default_rng(0).uniform(-2, 2, (num_llms, dim))
    env = retrial_queue(linear(jax.numpy.asarray(theta, np.float32)), ARRIVAL_RATE)
    model = disjoint_mnl(intercept=False)
    policy = acqb(belief.online(model, Sizes(num_llms, dim)), num_llms)

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, num_seeds=num_seeds, room=ROOM)

    start = time.process_time()
    run()
    first = time.process_time() - start
    ours = rounds * num_seeds / (seconds := cpu_seconds(run, repeats))
    peer = peer_rounds / cpu_seconds(lambda: plain_numpy(theta, peer_rounds, seed=1), repeats)
    ratio = ours / peer
    return {
        "measure": f"rounds/s, ACQB, {num_llms} LLMs, d={dim}, room {ROOM}, {num_seeds} seed(s)",
        "ours": ours,
        "peer": peer,
        "peer_name": "plain NumPy",
        "ratio": ratio,
        "target": target,
        "meets": None if target is None else ratio >= target,
        "compile_seconds": first - seconds,
    }


def show(rows: list[dict[str, object]]) -> None:
    table = Table(title="Simulated rounds a second of CPU time, one core")
    for column in ("measure", "ours", "peer", "peer_name", "ratio", "target", "meets"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for row in rows:
        table.add_row(
            *(
                f"{v:,.0f}" if isinstance(v, float) else str(v)
                for k, v in row.items()
                if k != "compile_seconds"
            )
        )
    Console().print(table)


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="Simulator against a plain NumPy loop.")
    parser.add_argument("--quick", action="store_true", help="a smaller run of the same")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = [
        measure(5, 16, 32, 100.0, arguments.quick),
        measure(5, 16, 1, None, arguments.quick),
        measure(11, 64, 32, None, arguments.quick),
    ]
    show(rows)
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps({"rows": rows, **provenance()}, indent=1))


if __name__ == "__main__":
    main()

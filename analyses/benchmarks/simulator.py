# %% [markdown]
# # How fast is a simulated round?
#
# ACQB with the online Gaussian in the retrial queue, against the same written as a plain NumPy
# loop, a tuned one and a compiled one (numba), one seed at a time as they are; and the queue alone
# against SimPy and Ciw. Same process, same core, process CPU seconds, medians of several runs;
# compilation apart.
#
#     python analyses/benchmarks/simulator.py [--quick] [--json FILE]
#
# It needs the extra `bench`.

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
import queue_peers
from cqbayes.models.disjoint_mnl import disjoint_mnl
from rich.console import Console
from rich.table import Table

from cqbayes import belief
from cqbayes.environments import Environment
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import linear
from cqbayes.files import replacing
from cqbayes.policies import Policy
from cqbayes.policies.acqb import acqb
from cqbayes.policies.fifo import fifo
from cqbayes.policies.random import random
from cqbayes.preference import Sizes
from cqbayes.provenance import provenance
from cqbayes.simulate import simulate

ARRIVAL_RATE = 0.5
ROOM = 64
Row = dict[str, object]


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


def alternately(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """The same of two, run in turns, so that a machine's slow spells hit both."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for kept, run in zip(times, (first, second), strict=True):
            start = time.process_time()
            run()
            kept.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def world(num_llms: int, dim: int) -> tuple[np.ndarray, Environment, Policy]:
    """Truth, queue and ACQB without intercepts, as the rivals have it."""
    # At most as hard for the sum of many small terms as for that of few.
    bound = 2 * np.sqrt(16 / max(dim, 16))
    theta = np.random.default_rng(0).uniform(-bound, bound, (num_llms, dim)).astype(np.float32)
    env = retrial_queue(linear(jax.numpy.asarray(theta)), ARRIVAL_RATE)
    model = disjoint_mnl(intercept=False)
    return theta, env, acqb(belief.online(model, Sizes(num_llms, dim)), num_llms)


def row(
    measure: str, ours: float, peer: float | None, name: str, ratio: float, target: float | None
) -> Row:
    return {
        "measure": measure,
        "ours": ours,
        "peer": peer,
        "peer_name": name,
        "ratio": ratio,
        "target": target,
        "meets": None if target is None else ratio >= target,
    }


# %%
def against_loops(
    num_llms: int, dim: int, num_seeds: int, targets: dict[str, float | None], quick: bool
) -> list[Row]:
    """Rounds a second, summed over seeds, against each of the loops."""
    theta, env, policy = world(num_llms, dim)
    rounds = (1_000 if quick else 4_000) * (8 if num_seeds == 1 else 1)
    repeats = 3 if quick else 7
    peers = {
        "plain NumPy": (300 if quick else 1_000, queue_peers.plain_numpy),
        "tuned NumPy": (2_000 if quick else 10_000, queue_peers.tuned_numpy),
        "numba": (20_000 if quick else 100_000, queue_peers.numba_loop),
    }

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, num_seeds=num_seeds, room=ROOM)

    rows = []
    for name, target in targets.items():
        steps, peer = peers[name]
        mine, theirs = alternately(
            run, lambda p=peer, n=steps: p(theta, n, ARRIVAL_RATE, 1, ROOM), repeats
        )
        ours, rival = rounds * num_seeds / mine, steps / theirs
        label = f"rounds/s, ACQB, {num_llms} LLMs, d={dim}, {num_seeds} seed(s)"
        rows.append(row(label, ours, rival, name, ours / rival, target))
    return rows


def large_room(quick: bool) -> Row:
    """What 1,024 places cost against 64, while few of them are taken."""
    _, env, policy = world(5, 16)
    rounds = 1_000 if quick else 4_000

    def run(room: int) -> Callable[[], object]:
        return lambda: simulate(jax.random.key(1), policy, env, rounds, num_seeds=32, room=room)

    small, large = alternately(run(64), run(1_024), 3 if quick else 7)
    label = "rounds/s with room 1024 against room 64 (at least half)"
    return row(label, rounds * 32 / large, rounds * 32 / small, "room 64", small / large, 0.5)


def many_llms(quick: bool) -> Row:
    """112 LLMs and 384 dimensions, one seed, a queue that is mostly short."""
    _, env, policy = world(112, 384)
    rounds = 100 if quick else 400
    seconds = cpu_seconds(lambda: simulate(jax.random.key(1), policy, env, rounds, room=ROOM), 3)
    ours = rounds / seconds
    return row("rounds/s, ACQB, 112 LLMs, d=384, 1 seed", ours, None, "target", ours / 1_000, 1.0)


def queue_alone(quick: bool) -> list[Row]:
    """First in, first out with one LLM: what general simulators are made for."""
    rate, service, seeds = 0.5, 0.6, 32
    theta = np.array([[0.0]], np.float32)
    env = retrial_queue(linear(jax.numpy.asarray(theta)), rate)
    policy = fifo(random(1))
    rounds, theirs = (2_000, 2_000) if quick else (10_000, 10_000)

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, num_seeds=seeds, room=1_024)

    rows = []
    for name, peer in (("SimPy", queue_peers.simpy_queue), ("Ciw", queue_peers.ciw_queue)):
        mine, rival = alternately(run, lambda p=peer: p(theirs, rate, service, 1), 3)
        ours, other = rounds * seeds / mine, theirs / rival
        rows.append(
            row("rounds/s, the queue alone, 32 seeds", ours, other, name, ours / other, None)
        )
    return rows


def show(rows: list[Row]) -> None:
    table = Table(title="Simulated rounds a second of CPU time, one core")
    for column in ("measure", "ours", "peer", "peer_name", "ratio", "target", "meets"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for entry in rows:
        cells = {
            **entry,
            "ours": f"{entry['ours']:,.0f}",
            "peer": "" if entry["peer"] is None else f"{entry['peer']:,.0f}",
            "ratio": f"{entry['ratio']:,.2f}",
        }
        table.add_row(*(str(value) for value in cells.values()))
    Console().print(table)


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="The simulator against loops and simulators.")
    parser.add_argument("--quick", action="store_true", help="a smaller run of the same")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    quick = arguments.quick
    rows = [
        *against_loops(5, 16, 32, {"plain NumPy": 250, "tuned NumPy": None, "numba": 0.8}, quick),
        *against_loops(11, 64, 32, {"plain NumPy": 250, "tuned NumPy": None, "numba": 0.8}, quick),
        *against_loops(5, 16, 1, {"plain NumPy": 50, "numba": None}, quick),
        large_room(quick),
        many_llms(quick),
        *queue_alone(quick),
    ]
    show(rows)
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps({"rows": rows, **provenance()}, indent=1))


if __name__ == "__main__":
    main()

# %% [markdown]
# # How fast is a simulated round?
#
# ACQB with the online Gaussian in the retrial queue, against the same written as a plain NumPy
# loop, a tuned one and a compiled one (numba), one seed at a time as they are; and the queue alone
# against SimPy and Ciw. Same process, same core, process CPU seconds, medians of several runs;
# compilation apart.
#
#     python analyses/benchmarks/simulator.py [--quick | --smoke] [--json FILE]
#
# It needs the extra `bench`: `make bench` installs it. `--smoke` only shows that everything runs.

# %%
import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from cqbayes.models.disjoint_mnl import disjoint_mnl
from rich.console import Console
from rich.table import Table

from cqbayes import (
    Environment,
    Policy,
    Sizes,
    acqb,
    belief,
    fifo,
    provenance,
    random,
    replacing,
    retrial_queue,
    simulate,
)
from cqbayes.environments.synthetic import linear

try:
    import queue_peers
except ModuleNotFoundError as missing:
    sys.exit(
        f"simulator.py: expected the package {missing.name}, found none; "
        "make bench installs it, and so does pip install 'cqbayes[bench]'"
    )

ARRIVAL_RATE = 0.5
ROOM = 64
Row = dict[str, object]


class Scale(NamedTuple):
    """Rounds of ours and of the rivals, and how often each is run."""

    rounds: int = 4_000
    many_llms: int = 400
    plain: int = 1_000
    tuned: int = 10_000
    numba: int = 100_000
    queue: int = 10_000
    repeats: int = 7


QUICK = Scale(1_000, 100, 300, 2_000, 20_000, 2_000, 3)
SMOKE = Scale(20, 4, 20, 50, 100, 200, 1)


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
    num_llms: int, dim: int, num_seeds: int, targets: dict[str, float | None], scale: Scale
) -> list[Row]:
    """Rounds a second, summed over seeds, against each of the loops."""
    theta, env, policy = world(num_llms, dim)
    rounds = scale.rounds * (8 if num_seeds == 1 else 1)
    peers = {
        "plain NumPy": (scale.plain, queue_peers.plain_numpy),
        "tuned NumPy": (scale.tuned, queue_peers.tuned_numpy),
        "numba": (scale.numba, queue_peers.numba_loop),
    }

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, num_seeds=num_seeds, room=ROOM)

    rows = []
    for name, target in targets.items():
        steps, peer = peers[name]
        mine, theirs = alternately(
            run, lambda p=peer, n=steps: p(theta, n, ARRIVAL_RATE, 1, ROOM), scale.repeats
        )
        ours, rival = rounds * num_seeds / mine, steps / theirs
        label = f"rounds/s, ACQB, {num_llms} LLMs, d={dim}, {num_seeds} seed(s)"
        rows.append(row(label, ours, rival, name, ours / rival, target))
    return rows


def large_room(scale: Scale) -> Row:
    """What 1,024 places cost against 64, while few of them are taken."""
    _, env, policy = world(5, 16)
    rounds = scale.rounds

    def run(room: int) -> Callable[[], object]:
        return lambda: simulate(jax.random.key(1), policy, env, rounds, num_seeds=32, room=room)

    small, large = alternately(run(64), run(1_024), scale.repeats)
    label = "rounds/s with room 1024 against room 64 (at least half)"
    return row(label, rounds * 32 / large, rounds * 32 / small, "room 64", small / large, 0.5)


def many_llms(scale: Scale) -> Row:
    """112 LLMs and 384 dimensions, one seed, a queue that is mostly short."""
    _, env, policy = world(112, 384)
    rounds, repeats = scale.many_llms, min(scale.repeats, 3)

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, room=ROOM)

    seconds = cpu_seconds(run, repeats)
    ours = rounds / seconds
    return row("rounds/s, ACQB, 112 LLMs, d=384, 1 seed", ours, None, "target", ours / 1_000, 1.0)


def queue_alone(scale: Scale) -> list[Row]:
    """First in, first out with one LLM: what general simulators are made for."""
    rate, service, seeds = 0.5, 0.6, 32
    theta = np.array([[0.0]], np.float32)
    env = retrial_queue(linear(jax.numpy.asarray(theta)), rate)
    policy = fifo(random(1))
    rounds = scale.queue

    def run() -> object:
        return simulate(jax.random.key(1), policy, env, rounds, num_seeds=seeds, room=1_024)

    rows = []
    for name, peer in (("SimPy", queue_peers.simpy_queue), ("Ciw", queue_peers.ciw_queue)):
        repeats = min(scale.repeats, 3)
        mine, rival = alternately(run, lambda p=peer: p(rounds, rate, service, 1), repeats)
        ours, other = rounds * seeds / mine, rounds / rival
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
    parser.add_argument("--smoke", action="store_true", help="a tiny run that proves nothing")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    scale = SMOKE if arguments.smoke else QUICK if arguments.quick else Scale()
    rows = [
        *against_loops(5, 16, 32, {"plain NumPy": 250, "tuned NumPy": None, "numba": 0.8}, scale),
        *against_loops(11, 64, 32, {"plain NumPy": 250, "tuned NumPy": None, "numba": 0.8}, scale),
        *against_loops(5, 16, 1, {"plain NumPy": 50, "numba": None}, scale),
        large_room(scale),
        many_llms(scale),
        *queue_alone(scale),
    ]
    show(rows)
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps({"rows": rows, **provenance()}, indent=1))


if __name__ == "__main__":
    main()

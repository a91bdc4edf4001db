"""Runs a sweep into a folder. A sweep that was killed goes on from its folder.

A finished cell is one file, ``<identity>.parquet``, which appears whole or not at all. A cell that
failed leaves ``<identity>.failed.json`` and is tried again the next time. ``sweep.json`` says what
the folder holds.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import pandas as pd

from cqbayes._tools.digests import differences
from cqbayes._tools.files import remove_temporaries, writable_folder, write_bytes
from cqbayes._tools.progress import progress_bar
from cqbayes._tools.provenance import provenance
from cqbayes.errors import InputError
from cqbayes.sweep.cell import warning_of
from cqbayes.sweep.executors import EXECUTORS
from cqbayes.sweep.results import cell_of, label, parameters
from cqbayes.sweep.settings import Cell, Sweep, cells, sweep_of

_MANIFEST = "sweep.json"
_AGAIN = "use another folder, or delete this one to begin again"


class Outcome(NamedTuple):
    """The outcome of a cell.

    Attributes:
        cell: which one.
        state: "done", "kept" from an earlier call, or "failed".
        reason: of a failure, in one line.
    """

    cell: Cell
    state: str
    reason: str = ""


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    executor: str = "processes",
    jobs: int | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Runs all cells that the folder does not hold yet, and returns the outcome of each.

    Unstable loads, where they are allowed, are announced on standard error.

    Args:
        sweep: what to run.
        out: folder of this sweep alone. It may hold an earlier run with fewer cells.
        executor: ``processes``, ``ray`` or ``serial``; see :mod:`cqbayes.sweep.executors`.
        jobs: cells at a time; by default as many as there are cores.
        progress: whether to show a bar with the time that is left.

    Returns:
        The outcome of each cell, in the order of the sweep.

    Raises:
        InputError: for an unknown executor, a folder that holds something else, or a full disk.
    """
    if executor not in EXECUTORS:
        raise InputError(f"executor: expected one of {', '.join(EXECUTORS)}, got {executor!r}")
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: expected at least one, got {jobs}")
    wanted = {cell.identity(): cell for cell in cells(sweep)}
    folder = _opened(Path(out), sweep, wanted)
    kept = [identity for identity, cell in wanted.items() if _is_done(folder, cell)]
    found = {identity: Outcome(wanted[identity], "kept") for identity in kept}
    todo = [cell.json_text() for identity, cell in wanted.items() if identity not in found]
    if todo:
        for line in announcements([wanted[i] for i in wanted if i not in found]):
            print(f"cqbayes: {line}", file=sys.stderr)
        attempts = EXECUTORS[executor](todo, str(jnp.result_type(float)), jobs)
        with progress_bar("cells", total=len(todo), show=progress) as advance, closing(attempts):
            for identity, shard, reason in attempts:
                _write(folder, wanted[identity], shard, reason)
                state = "failed" if shard is None else "done"
                found[identity] = Outcome(wanted[identity], state, reason)
                advance(1)
    return [found[identity] for identity in wanted]


def announcements(todo: Sequence[Cell]) -> Iterator[str]:
    """Warnings of loads before the run, once for each environment."""
    said: set[str] = set()
    looked: set[tuple[str, int, int]] = set()
    for cell in todo:
        name = str(cell.environment.model_dump(exclude_defaults=True))
        # Everything that makes a world, without the policy.
        world = (name, cell.seed, cell.num_seeds)
        if not cell.environment.unstable or name in said or world in looked:
            continue
        looked.add(world)
        warning = _warning(cell)
        if warning:
            said.add(name)
            yield f"environment {name}: {warning}"


def _warning(cell: Cell) -> str | None:
    """The warning of a cell's load; None where the cell fails, which says why itself."""
    try:
        return warning_of(cell)
    except Exception:
        return None


def _opened(folder: Path, sweep: Sweep, wanted: Mapping[str, Cell]) -> Path:
    """Marks the folder as the sweep's; refuses a folder that holds another sweep."""
    path = folder / _MANIFEST
    now = {"sweep": sweep.model_dump(), "versions": provenance()}
    if path.exists():
        before = _read_manifest(path)
        changed = differences(before["versions"], now["versions"])
        earlier = sweep_of(before["sweep"], str(path))
        if not changed and not {cell.identity() for cell in cells(earlier)} <= wanted.keys():
            changed = differences(_flat(before["sweep"]), _flat(now["sweep"]))
        if changed:
            raise InputError(
                f"{folder}: expected the sweep that is kept there: {changed}; {_AGAIN}"
            )
    elif any(not path.name.startswith(".") for path in folder.glob("*")):
        raise InputError(
            f"{folder}: expected an empty folder or that of a sweep, got {path.name}; use another"
        )
    writable_folder(folder)
    remove_temporaries(folder)
    write_bytes((json.dumps(now, indent=2) + "\n").encode(), path)
    return folder


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        return {"sweep": dict(manifest["sweep"]), "versions": dict(manifest["versions"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: expected a sweep's settings, got a damaged file; {_AGAIN}"
        ) from None


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested fields, by their paths."""
    if isinstance(value, list) and any(isinstance(inside, dict) for inside in value):
        value = {str(place): inside for place, inside in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {path: value}
    joined = [_flat(inside, f"{path}.{name}" if path else name) for name, inside in value.items()]
    return {name: leaf for part in joined for name, leaf in part.items()}


def _is_done(folder: Path, cell: Cell) -> bool:
    path = folder / f"{cell.identity()}.parquet"
    return path.exists() and cell_of(path) == cell


def _write(folder: Path, cell: Cell, shard: bytes | None, reason: str) -> None:
    failure = folder / f"{cell.identity()}.failed.json"
    if shard is None:
        report = {"reason": reason, "cell": cell.model_dump()}
        write_bytes((json.dumps(report, indent=2) + "\n").encode(), failure)
    else:
        write_bytes(shard, folder / f"{cell.identity()}.parquet")
        failure.unlink(missing_ok=True)


def report(outcomes: Sequence[Outcome], most_lines: int) -> Iterator[str]:
    """Lines to print: failures first, with what varies among the cells, and how many there are."""
    rows = [
        {
            "cell": one.cell.identity(),
            "policy": label(one.cell),
            **parameters(one.cell),
            "state": one.state,
        }
        for one in sorted(outcomes, key=lambda one: one.state != "failed")
    ]
    table = pd.DataFrame(rows).set_index("cell")
    shown = [
        name
        for name in table.columns
        if name in ("policy", "state") or len(set(table[name].map(str))) > 1
    ]
    yield table[shown].head(most_lines).to_string()
    if len(rows) > most_lines:
        yield f"... and {len(rows) - most_lines} more"
    counts = Counter(one.state for one in outcomes)
    yield ", ".join(f"{counts[state]} {state}" for state in ("done", "kept", "failed"))

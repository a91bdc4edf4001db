"""Runs a sweep into a folder, from which a sweep that was killed goes on.

A finished cell is one file, ``<identity>.parquet``, which appears whole or not at all; one that
failed leaves ``<identity>.failed.json``, and is tried again the next time. ``sweep.json`` says what
the folder holds.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pandas as pd

from cqbayes.errors import InputError
from cqbayes.files import remove_temporaries, writable_folder, write_bytes
from cqbayes.fingerprint import differences
from cqbayes.progress import bar
from cqbayes.provenance import provenance
from cqbayes.sweep import Cell, Sweep, cells, sweep_of
from cqbayes.sweep.engines import ENGINES
from cqbayes.sweep.results import cell_of, label, parameters

_MANIFEST = "sweep.json"
_AGAIN = "use another folder, or delete this one to begin again"


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    engine: str = "processes",
    jobs: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Runs all cells that the folder does not hold yet.

    Args:
        sweep: what to run.
        out: folder of this sweep alone. It may hold one with fewer cells.
        engine: ``processes``, ``ray`` or ``serial``; see :mod:`cqbayes.sweep.engines`.
        jobs: cells at a time; by default as many as there are cores.
        progress: whether to show a bar with the time that is left.

    Returns:
        One row a cell, its identity in front: its parameters, its ``state`` ("done", "kept" from an
        earlier call or "failed") and the ``reason`` of a failure.

    Raises:
        InputError: for an unknown engine, a folder that holds something else, or a full disk.
    """
    if engine not in ENGINES:
        raise InputError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: expected at least one, got {jobs}")
    wanted = {cell.identity(): cell for cell in cells(sweep)}
    folder = _opened(Path(out), sweep, wanted)
    kept = [identity for identity, cell in wanted.items() if _is_done(folder, cell)]
    outcomes = dict.fromkeys(kept, ("kept", ""))
    todo = [cell.json_text() for identity, cell in wanted.items() if identity not in outcomes]
    attempts = ENGINES[engine](todo, str(jnp.result_type(float)), jobs)
    with bar("cells", total=len(todo), show=progress) as advance:
        for identity, shard, reason in attempts if todo else ():
            _write(folder, wanted[identity], shard, reason)
            outcomes[identity] = ("failed", reason) if shard is None else ("done", "")
            advance(1)
    return _table(wanted, outcomes)


def _opened(folder: Path, sweep: Sweep, wanted: Mapping[str, Cell]) -> Path:
    """Makes the folder the sweep's, or refuses one that holds another."""
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
    elif any(folder.glob("*")):
        raise InputError(
            f"{folder}: expected an empty folder or one of a sweep, without {path.name}"
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
    """Fields inside fields, by path."""
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


def _table(wanted: Mapping[str, Cell], outcomes: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    rows = {
        identity: {
            "policy": label(cell),
            **parameters(cell),
            "state": outcomes[identity][0],
            "reason": outcomes[identity][1],
        }
        for identity, cell in wanted.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("cell")
    return table[
        [name for name in table.columns if name not in ("state", "reason")] + ["state", "reason"]
    ]


def report(table: pd.DataFrame, most_lines: int) -> Iterator[str]:
    """Lines to print: what varies of the cells, failures first, and how many there are."""
    varying = [name for name in table.columns if table[name].astype(str).nunique() > 1]
    shown = table[[name for name in table.columns if name in (*varying, "policy", "state")]]
    shown = shown.iloc[(table["state"] != "failed").to_numpy().argsort(kind="stable")]
    yield shown.head(most_lines).to_string()
    if len(shown) > most_lines:
        yield f"... and {len(shown) - most_lines} more"
    counts = table["state"].value_counts()
    yield ", ".join(f"{counts.get(state, 0)} {state}" for state in ("done", "kept", "failed"))

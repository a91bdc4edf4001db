"""The results in a sweep's folder, as one labelled array or table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from cqbayes.errors import InputError
from cqbayes.sweep.settings import Cell, PolicySettings

_SIZES = ("rounds", "num_seeds", "points")


def read_results(folder: str | Path) -> xr.Dataset | pd.DataFrame:
    """Reads all finished cells of a sweep.

    Returns:
        Where the cells make a full grid with the same rounds, a Dataset: curves with dimensions
        ``policy``, the parameters that vary, ``seed`` and ``round``, the rest without ``round``;
        parameters that do not vary are coordinates too. ``base_seed`` is a cell's seed; ``seed``
        counts its repetitions; ``failures`` counts refits that failed. Otherwise a DataFrame with a
        row for each cell, seed and round.

    Raises:
        InputError: if the folder has no finished cells, or a damaged one.
    """
    paths = sorted(Path(folder).glob("[!.]*.parquet"))  # not temporary ones of a running sweep
    if not paths:
        raise InputError(f"{folder}: expected a sweep's folder with finished cells, got none")
    found = [(cell_of(path), _table(path)) for path in paths]
    described = [{"policy": label(cell), **parameters(cell)} for cell, _ in found]
    names = list(dict.fromkeys(name for one in described for name in one))
    rows = [{name: _hashable(one.get(name)) for name in names} for one in described]
    tables = [table for _, table in found]
    facts = [json.loads(table.schema.metadata[b"facts"]) for table in tables]
    values = {name: list(dict.fromkeys(row[name] for row in rows)) for name in names}
    if _is_grid(values, tables):
        return _dataset(rows, values, tables, facts)
    frames = [
        _frame({**row, **fact}, table) for row, table, fact in zip(rows, tables, facts, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def label(cell: Cell) -> str:
    """A policy's name with its settings: ``acqb(c=0.5)``."""
    policy = cell.policy
    usual = PolicySettings.model_fields["posterior"].default
    given = [] if policy.posterior == usual else [("posterior", policy.posterior)]
    given += sorted(policy.settings.items())
    inside = ", ".join(f"{name}={value}" for name, value in given)
    return f"{policy.name}({inside})" if inside else policy.name


def parameters(cell: Cell) -> dict[str, Any]:
    """All parameters of a cell except those of its policy, by short names."""
    environment = cell.environment.model_dump(exclude={"settings", "queue"}, exclude_none=True)
    inside = {f"data.{name}": value for name, value in cell.environment.settings.items()}
    queue = {f"queue.{name}": value for name, value in cell.environment.queue.items()}
    sizes = {name: getattr(cell, name) for name in _SIZES}
    return {**environment, **inside, **queue, **sizes, "base_seed": cell.seed}


def cell_of(path: Path) -> Cell:
    """The cell whose results a file holds.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        return Cell.model_validate_json(pq.read_schema(path).metadata[b"cell"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError):
        raise _damaged(path) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: expected a sweep's Parquet file, got a damaged one; delete it")


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value


def _is_grid(values: Mapping[str, list[Any]], tables: Sequence[pa.Table]) -> bool:
    same = all(
        table["round"].equals(tables[0]["round"])
        and len(table["utilisation"][0]) == len(tables[0]["utilisation"][0])
        for table in tables
    )
    complete = np.prod([len(found) for found in values.values()]) == len(tables)
    return bool(same and complete and all(None not in found for found in values.values()))


def _dataset(
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, list[Any]],
    tables: Sequence[pa.Table],
    facts: Sequence[Mapping[str, Any]],
) -> xr.Dataset:
    varying = [name for name, found in values.items() if len(found) > 1 or name == "policy"]
    axes = {name: sorted(values[name]) for name in varying}
    shape = tuple(len(found) for found in axes.values())
    places = [tuple(axes[name].index(row[name]) for name in varying) for row in rows]

    def gridded(parts: Sequence[np.ndarray], *inner: str) -> tuple[tuple[str, ...], np.ndarray]:
        array = np.empty((*shape, *parts[0].shape), parts[0].dtype)
        for place, part in zip(places, parts, strict=True):
            array[place] = part
        return (*varying, *inner[: parts[0].ndim]), array

    data = {name: gridded([np.asarray(one[name]) for one in facts]) for name in facts[0]}
    for name in tables[0].column_names[2:]:
        parts = [np.stack(table[name].to_pylist()) for table in tables]
        data[name] = gridded(parts, "seed", "llm" if name == "utilisation" else "round")
    fixed = {name: found[0] for name, found in values.items() if name not in varying}
    first = tables[0]
    own = {"seed": first["seed"].to_numpy(), "round": np.asarray(first["round"][0].as_py())}
    return xr.Dataset(data, coords={**axes, **own, **fixed})


def _frame(row: Mapping[str, Any], table: pa.Table) -> pd.DataFrame:
    """One row for each seed and round, with the cell's parameters in front."""
    frame = table.drop_columns(["utilisation"]).to_pandas()
    curves = [field.name for field in table.schema if pa.types.is_list(field.type)]
    frame = frame.explode([name for name in curves if name != "utilisation"], ignore_index=True)
    for name in curves:
        if name != "utilisation":
            frame[name] = pd.to_numeric(frame[name])
    return frame.assign(**row)[[*row, *frame.columns]]

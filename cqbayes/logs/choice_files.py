"""Choice data as Parquet files.

One row is a service: ``context`` (a list of numbers), ``offered`` (a list of booleans), ``choice``
(0: retry; j + 1: LLM j was taken; -1: silence) and, if wanted, ``weight``, ``user`` (null where
there is none), ``attempt`` and ``time`` (integers) and ``attributes`` (a list with a list of
numbers for each LLM). Names of the LLMs may stand in the file's metadata under ``llms``.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cqbayes._tools.files import replacing
from cqbayes.choice.data import ChoiceData, choice_data
from cqbayes.errors import InputError
from cqbayes.logs.choices import INTEGERS


def write_choices(path: str | Path, data: ChoiceData, llms: list[str], note: str) -> None:
    """Writes choice data; ``note`` goes into the file's metadata and says where they come from."""
    columns = {
        "context": list(np.asarray(data.context)),
        "offered": list(np.asarray(data.offered)),
        "choice": np.asarray(data.choice),
        "weight": np.asarray(data.weight),
    }
    for name in INTEGERS:
        if getattr(data, name) is not None:
            columns[name] = np.asarray(getattr(data, name))
    if data.user is not None:
        columns["user"] = pa.array(columns["user"], mask=columns["user"] >= data.num_users)
    if data.attributes is not None:
        columns["attributes"] = [list(row) for row in np.asarray(data.attributes)]
    metadata = {"llms": json.dumps(llms), "note": note}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_choices(path: str | Path) -> tuple[ChoiceData, list[str] | None]:
    """Reads choice data and, where the file has them, the names of the LLMs.

    Raises:
        InputError: for a file that is missing, not Parquet, or lacks a column, and for anything
            that :func:`cqbayes.choice.data.choice_data` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a Parquet log, found no such file")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, UnicodeDecodeError):
        raise InputError(f"{path}: expected a Parquet log, got another format") from None
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise InputError(
            f"{path}: expected a Parquet log that can be read, got: {reason}"
        ) from None
    missing = [name for name in ("context", "offered", "choice") if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: expected columns context, offered, choice; got no {missing[0]}")
    plain = {n: table[n].to_numpy() for n in ("weight", *INTEGERS) if n in table.column_names}
    num_users = None
    if "user" in plain and pa.types.is_integer(table["user"].type):
        num_users = (pc.max(table["user"]).as_py() or 0) + 1  # pyright: ignore
        plain["user"] = table["user"].fill_null(num_users).to_numpy()
    offered = _matrix(path, table["offered"], "offered")
    if "attributes" in table.column_names:
        each = _matrix(path, table["attributes"], "attributes", inner=True)
        plain["attributes"] = each.reshape(len(table), -1, each.shape[-1])
    context = _matrix(path, table["context"], "context")
    data = choice_data(context, offered, table["choice"].to_numpy(), **plain)
    if num_users is not None:
        data = dataclasses.replace(data, num_users=num_users)
    return data, _names(path, table, data.num_llms)


def _matrix(path: Path, column: pa.ChunkedArray, name: str, inner: bool = False) -> np.ndarray:
    """Lists of one length as an array; with ``inner``, lists of lists, one row for each inner."""
    values = column.combine_chunks()
    if inner:
        values = _flattened(path, values, name)
    flat = _flattened(path, values, name).to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), -1)


def _flattened(path: Path, values: pa.Array, name: str) -> pa.Array:
    if not isinstance(values.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        raise InputError(f"{path}: expected lists in column {name}, got {values.type}")
    lengths = pc.call_function("list_value_length", [values]).unique().to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise InputError(
            f"{path}: expected lists of one length in column {name}, got {lengths[:5]}"
        )
    return values.flatten()


def _names(path: Path, table: pa.Table, num_llms: int) -> list[str] | None:
    text = (table.schema.metadata or {}).get(b"llms")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    good = isinstance(names, list) and len(names) == len(set(map(str, names))) == num_llms
    if not isinstance(names, list) or not good:
        raise InputError(f"{path}: expected {num_llms} different names under llms in the metadata")
    return [str(name) for name in names]

"""Tables from files: columns of Parquet, and the refusal of a row that is wrong, by its number.

Rows are counted from 0, without headers, as they stand in the file.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from cqbayes.errors import InputError


def refuse(
    where: str, wrong: np.ndarray, expected: str, row: Sequence[int] | np.ndarray | None = None
) -> None:
    """Refuses what is wrong anywhere, and names the first row.

    Args:
        where: the data set or file.
        wrong: mask ``[row]``, or ``[row, column]``.
        expected: what every row should be or have.
        row: which row of the file each is; the same where absent.

    Raises:
        InputError: if anything is wrong.
    """
    if wrong.any():
        place = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        number = place if row is None else row[place]
        raise InputError(f"{where}: expected {expected}, not so in row {number}")


def numbers(where: str, values: Any, column: str) -> Float[np.ndarray, " row"]:
    """A column as numbers, NaN where nothing is there.

    Args:
        where: the data set or file.
        values: a series, whose index says which row of the file each is.
        column: its name, for messages.

    Raises:
        InputError: names the first row that has something else.
    """
    plain = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    found: Any = pd.to_numeric(plain, errors="coerce")
    wrong = (found.isna() & values.notna()).to_numpy()
    refuse(where, wrong, f"numbers in column {column}", values.index.to_numpy())
    return found.to_numpy(float)


def check_columns(name: str, there: Iterable[str], needed: Sequence[str]) -> None:
    """Refuses a table that lacks columns or has one of them twice, and names those."""
    found = Counter(list(there))  # of a mapping, its keys
    missing = [column for column in needed if column not in found]
    if missing:
        raise InputError(f"{name}: expected columns {', '.join(needed)}; no {', '.join(missing)}")
    twice = [column for column in needed if found[column] > 1]
    if twice:
        raise InputError(f"{name}: expected each column once; not so {', '.join(twice)}")


def read_columns(
    where: str, path: str | Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Some columns of a Parquet file, by row of the file; strings that repeat are held once.

    Raises:
        InputError: for a file that cannot be read, lacks a column that is needed, or has lists or
            structs in one.
    """
    with parquet(where, path) as file:
        schema = file.schema_arrow
        check_columns(where, schema.names, needed)
        wanted = [*needed, *(column for column in optional if column in schema.names)]
        nested = [name for name in wanted if pa.types.is_nested(schema.field(name).type)]
        if nested:
            raise InputError(f"{where}: expected strings or numbers in column {nested[0]}")
        table = file.read(wanted)
        strings = [n for n in wanted if pa.types.is_string(table.schema.field(n).type)]
        # The index that pandas notes in a file is not the row, and may be one of the columns.
        return table.to_pandas(categories=strings, ignore_metadata=True)


@contextmanager
def parquet(where: str, path: str | Path, *, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; damage that shows only when columns are read is refused as well.

    Args:
        where: the data set or file, for messages.
        path: of the file.
        buffer_size: bytes of a column that are read at a time; 0 reads all of a row group.

    Raises:
        InputError: where it cannot be read, or is something else.
    """
    try:
        opened = pq.ParquetFile(path, buffer_size=buffer_size)
    except OSError as error:
        # Arrow's own text names the path again.
        reason = os.strerror(error.errno) if error.errno else "not readable"
        raise InputError(f"{where}: expected a readable file, got: {reason}") from None
    except (pa.ArrowException, UnicodeDecodeError):
        raise InputError(f"{where}: expected a Parquet file, got something else") from None
    try:
        with opened as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        # Arrow's own text may show what is in the file.
        raise InputError(
            f"{where}: expected a Parquet file that can be read, it is damaged; get it again"
        ) from None


def unit_rows(where: str, context: Float[np.ndarray, "query dim"]) -> np.ndarray:
    """Rows at unit norm.

    Raises:
        InputError: names the first row that is not finite, or 0.
    """
    norm = np.linalg.norm(context, axis=1, keepdims=True)
    flat = ~(np.isfinite(norm[:, 0]) & (norm[:, 0] > 0))
    refuse(where, flat, "finite contexts other than 0")
    return context / norm

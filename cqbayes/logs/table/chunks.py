"""From files to chunks: rows of Parquet, CSV and JSON Lines, and lines that are not rows."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cqbayes._tools.tables import check_columns, parquet
from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import LONG_RECORD, MOST_BYTES, NOT_UTF8
from cqbayes.logs.formats.recognise import OF_SERVICES, refuse_other
from cqbayes.logs.records import BUFFER, check_readable, json_lines, suffix
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table import validation
from cqbayes.logs.table.cells import check_type, from_arrow, from_json, nothing
from cqbayes.logs.table.csv_rows import Row, csv_rows
from cqbayes.logs.table.validation import CODE, ENCODING, LINE, LONG_TEXT, RECORD, RULES, Rule

NEEDED = ("query_id", "attempt", "offered", "chosen")  # columns; in JSON, nulls may be left out
MOST_BYTES_OF_BATCH = 64_000_000  # as in the file, without the last row
MOST_IGNORED = 50  # names of unknown columns that are reported
# Where pandas writes the index of a table, and how it reads it again; no one means it.
_INDEX = re.compile(r"|Unnamed: \d+(?:\.\d+)*|__index_level_\d+__")
NULLABLE = pa.schema([field.with_nullable(True) for field in SERVICES])


class Fault(NamedTuple):
    """A row that is set aside."""

    file: int
    line: int
    rule: Rule
    record: Any


class Chunk(NamedTuple):
    """Rows of a file as they are read.

    Attributes:
        rows: rows with the columns of ``SERVICES``, null in wrong cells.
        file: number of each row's file.
        line: number of each row's line in the file.
        faults: rows that are already set aside, and lines that are not rows.
        faulty: which rows are among the faults; they still count as attempts.
    """

    rows: pa.RecordBatch
    file: np.ndarray
    line: np.ndarray
    faults: list[Fault]
    faulty: np.ndarray


def records_of(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as dictionaries, without nulls."""
    try:
        found = rows.to_pylist()
    except (ValueError, OverflowError, UnicodeDecodeError):  # Arrow holds more than Python
        cells = [[_cell(value) for value in column] for column in rows.columns]
        found = [dict(zip(rows.schema.names, row, strict=True)) for row in zip(*cells, strict=True)]
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.cast(pa.binary()).as_py() if pa.types.is_string(value.type) else "not UTF-8"
    except (ValueError, OverflowError):
        return value.cast(pa.int64()).as_py()


class Reader(NamedTuple):
    """A file that was opened and checked once.

    Attributes:
        chunks: reads the file, given its number.
        ignored: names of columns that are not in the schema; for JSON, those met so far.
    """

    chunks: Callable[[int], Iterator[Chunk]]
    ignored: dict[str, None]


def reader_of(path: Path, rename: Mapping[str, str], rows: int, numbers: bool) -> Reader:
    """Opens and checks a file once; refuses a file from which no row can be read.

    Args:
        path: of the file.
        rename: names of columns, ``{theirs: ours}``.
        rows: maximum number of rows in a chunk.
        numbers: whether attempts are numbered by their times where the file does not have them.
    """
    ignored: dict[str, None] = {}
    kind = suffix(path)
    if kind == ".parquet":
        with parquet(str(path), path) as file:
            schema = file.schema_arrow
        columns = _columns(path, schema.names, rename, numbers, ignored)
        for ours, theirs in columns.items():
            with _named(path):
                check_type(schema.field(theirs).type, SERVICES.field(ours))
        return Reader(lambda number: _parquet_chunks(path, columns, rows, number), ignored)
    check_readable(path)
    if kind.startswith(".csv"):
        header = next(csv_rows(path), None)
        if header is None or not isinstance(header.cells, list):
            raise InputError(
                f"{path}: expected a CSV with the names of its columns, got no such row"
            )
        columns = _columns(path, header.cells, rename, numbers, ignored)
        cells = {ours: header.cells.index(theirs) for ours, theirs in columns.items()}
        return Reader(lambda number: _csv_chunks(path, cells, rows, number), ignored)
    if kind.startswith(".json") and not kind.startswith(".jsonl"):
        first = next(json_lines(path), None)
        if first is not None and isinstance(first.record, str):
            raise InputError(
                f"{path}: expected JSON Lines, an object in each line, got something else; pandas "
                "writes them with to_json(orient='records', lines=True)"
            )
    return Reader(lambda number: _json_chunks(path, rename, ignored, rows, number), ignored)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds the name of the file to an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _columns(
    path: Path,
    names: Sequence[str],
    rename: Mapping[str, str],
    numbers: bool,
    ignored: dict[str, None],
) -> dict[str, str]:
    """Column names in the file, by our names."""
    check_columns(f"{path}: rename", names, list(rename))
    found: dict[str, str] = {}
    for theirs in names:
        ours = rename.get(theirs, theirs)
        if ours in found:
            raise InputError(f"{path}: expected one column {ours}, got two")
        if ours in SERVICES.names:
            found[ours] = theirs
        else:
            _ignore(theirs, ignored)
    _refuse_other(path, found, names)
    lacks = [name for name in NEEDED if name not in found]
    if lacks == ["attempt"] and "timestamp" in found:
        if not numbers:
            raise InputError(
                f"{path}: expected columns {', '.join(NEEDED)}; no attempt; sort='memory' numbers "
                "attempts by timestamp"
            )
        return found
    check_columns(str(path), found, NEEDED)
    return found


def _refuse_other(path: Path, ours: Collection[str], theirs: Collection[str]) -> None:
    """Refuses a file that is a log of another known format."""
    if not any(name in ours for name in NEEDED):
        refuse_other(str(path), theirs, OF_SERVICES, "a long table of services")


def _ignore(name: str, ignored: dict[str, None]) -> None:
    if len(ignored) < MOST_IGNORED and not _INDEX.fullmatch(name):
        ignored[name[:64]] = None


def _chunk(
    file: int,
    line: np.ndarray,
    columns: Mapping[str, tuple[pa.Array, np.ndarray]],
    record: Callable[[int], Any],
    faults: list[Fault],
) -> Chunk:
    """Columns that are absent become null; rows with wrong cells become faults."""
    count = len(line)
    code = np.zeros(count, np.int8)
    for _, wrong in columns.values():
        code = np.where((wrong > 0) & ((code == 0) | (wrong < code)), wrong, code)
    arrays = {n: columns[n][0] if n in columns else nothing(count, n) for n in SERVICES.names}
    arrays["chosen"] = _whole_names(arrays["offered"], arrays["chosen"])
    rows = pa.RecordBatch.from_arrays(list(arrays.values()), schema=NULLABLE)
    for i in np.flatnonzero(code):
        faults.append(Fault(file, int(line[i]), RULES[code[i] - 1], record(int(i))))
    return Chunk(rows, np.full(count, file), line, faults, code > 0)


def _whole_names(offered: pa.Array, chosen: pa.Array) -> pa.Array:
    """Names that are whole numbers: beside missing ones pandas writes 1 as 1.0."""
    pointed = pc.MatchSubstringOptions(r"^\d+\.0$")
    found = pc.call_function("match_substring_regex", [chosen], pointed)
    if not found.true_count:
        return chosen
    found = validation.column_numbers(found, False) & validation.not_among(offered, chosen)
    cut = pc.call_function("utf8_slice_codeunits", [chosen], pc.SliceOptions(0, -2))
    return pc.call_function("if_else", [pa.array(found), cut, chosen])


def _parquet_chunks(
    path: Path, columns: Mapping[str, str], rows: int, number: int
) -> Iterator[Chunk]:
    text = columns.get("text")
    # Long texts that repeat are small in the file: each is held once, until its length is known.
    repeated = [] if text is None else [text]
    place = 0
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER, read_dictionary=repeated) as file:
            for group in range(file.num_row_groups):
                most = _rows_in_memory(file.metadata.row_group(group), columns.values(), rows)
                batches = file.iter_batches(most, [group], list(columns.values()))
                for whole in batches:
                    for batch in _slices(whole, text):
                        yield _parquet_chunk(batch, columns, place, number)
                        place += len(batch)
    except (pa.ArrowException, OSError):
        raise InputError(
            f"{path}: expected a Parquet file that can be read, got a damaged one; get it again"
        ) from None


def _rows_in_memory(group: Any, names: Iterable[str], rows: int) -> int:
    wanted = set(names)
    columns = (group.column(i) for i in range(group.num_columns))
    size = sum(
        column.total_uncompressed_size
        for column in columns
        if column.path_in_schema.split(".")[0] in wanted
    )
    return max(1, min(rows, MOST_BYTES_OF_BATCH * group.num_rows // max(size, 1)))


def _slices(batch: pa.RecordBatch, text: str | None) -> Iterator[pa.RecordBatch]:
    """Parts of a batch whose texts fit in memory; texts over the limit are not written out."""
    if text is None or not isinstance(batch[text], pa.DictionaryArray):
        yield batch
        return
    column = batch[text]
    each = np.minimum(validation.lengths(_binary(column.dictionary)), MOST_BYTES + 1)
    sizes = np.append(each, 0)[
        validation.column_numbers(column.indices, len(each)).astype(np.int64)
    ]
    part = np.cumsum(sizes) // MOST_BYTES_OF_BATCH
    ends = np.append(np.flatnonzero(np.diff(part)) + 1, len(batch))
    start = 0
    for end in ends:
        yield batch.slice(start, end - start)
        start = end


def _binary(column: pa.Array) -> pa.Array:
    return column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())


def _parquet_chunk(
    batch: pa.RecordBatch, columns: Mapping[str, str], place: int, number: int
) -> Chunk:
    line = np.arange(place + 1, place + 1 + len(batch))
    found = {ours: _cells(batch[theirs], ours) for ours, theirs in columns.items()}

    def record(i: int) -> dict[str, Any]:
        return records_of(batch.slice(i, 1))[0]

    return _chunk(number, line, found, record, [])


def _cells(column: pa.Array, ours: str) -> tuple[pa.Array, np.ndarray]:
    long = None
    if isinstance(column, pa.DictionaryArray) and ours == "text":
        # Check the length before a long text is written out as often as it occurs.
        each = np.append(validation.lengths(_binary(column.dictionary)) > MOST_BYTES, False)
        index = validation.column_numbers(column.indices, len(each) - 1).astype(np.int64)
        long = each[index]
        if long.any():
            none = pa.scalar(None, column.indices.type)
            indices = pc.call_function("if_else", [pa.array(long), none, column.indices])
            column = pa.DictionaryArray.from_arrays(indices, column.dictionary)
    found, code = from_arrow(column, SERVICES.field(ours))
    if long is not None:
        code[long] = CODE[LONG_TEXT]
    return found, code


_RULE_OF = {LONG_RECORD: RECORD, NOT_UTF8: ENCODING}  # the others are LINE


def _json_chunks(
    path: Path, rename: Mapping[str, str], ignored: dict[str, None], rows: int, number: int
) -> Iterator[Chunk]:
    def chunk() -> Chunk:
        columns = {
            field.name: from_json([record.get(field.name) for record in records], field)
            for field in SERVICES
        }
        return _chunk(number, np.array(places, np.int64), columns, records.__getitem__, faults)

    records: list[dict[str, Any]] = []
    places: list[int] = []
    faults: list[Fault] = []
    size, is_known = 0, False
    for place, record, line in json_lines(path):
        if isinstance(record, str):
            faults.append(Fault(number, place, _RULE_OF.get(record, LINE), line))
            size += len(line or b"")
        else:
            ours = {rename.get(name, name): value for name, value in record.items()}
            if not is_known:
                _refuse_other(path, ours, record)
                is_known = True
            for name in ours.keys() - _KNOWN:
                _ignore(name, ignored)
            records.append(ours)
            places.append(place)
            size += len(line or b"")
        if len(records) + len(faults) >= rows or size >= MOST_BYTES_OF_BATCH:
            yield chunk()
            records, places, faults, size = [], [], [], 0
    if records or faults:
        yield chunk()


_KNOWN = frozenset(SERVICES.names)


def _csv_chunks(path: Path, columns: Mapping[str, int], rows: int, number: int) -> Iterator[Chunk]:
    def chunk() -> Chunk:
        cells = list(zip(*(row.cells for row in good), strict=True))
        place = np.array([row.line for row in good], np.int64)
        found = {ours: _strings(cells[i] if good else (), ours) for ours, i in columns.items()}
        return _chunk(number, place, found, lambda i: good[i].content, faults)

    good: list[Row] = []
    faults: list[Fault] = []
    size = 0
    for row in islice(csv_rows(path), 1, None):
        if isinstance(row.cells, Rule):
            faults.append(Fault(number, row.line, row.cells, row.content))
        else:
            good.append(row)
        size += len(row.content or b"")
        if len(good) + len(faults) >= rows or size >= MOST_BYTES_OF_BATCH:
            yield chunk()
            good, faults, size = [], [], 0
    if good or faults:
        yield chunk()


def _strings(cells: Sequence[str], ours: str) -> tuple[pa.Array, np.ndarray]:
    field = SERVICES.field(ours)
    column = pa.array(cells, pa.string())
    if ours == "text":
        empty = pc.call_function("equal", [column, pa.scalar("")])
        none = pa.scalar(None, pa.string())
        column = pc.call_function("if_else", [empty, none, column])
    return from_arrow(column, field)

"""Reading the long table of services: Parquet, CSV and JSON Lines become batches of ``SERVICES``.

A file is read in pieces that fit in memory, whatever is in it; what cannot be read or breaks a rule
of :mod:`cqbayes.logs.validation` is set aside, counted and, if wanted, kept in a quarantine file.
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cqbayes.answers import check_columns, parquet
from cqbayes.errors import InputError
from cqbayes.logs import validation
from cqbayes.logs.cells import check_type, from_arrow, from_json, nothing
from cqbayes.logs.formats import OF_SERVICES, refuse_other
from cqbayes.logs.quarantine import Ledger, counts_table
from cqbayes.logs.records import (
    BUFFER,
    LONG_RECORD,
    MOST_BYTES,
    MOST_BYTES_OF_RECORD,
    NOT_UTF8,
    check_readable,
    files,
    json_lines,
    lines,
    suffix,
)
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.sorting import by_query
from cqbayes.logs.validation import CODE, ENCODING, LINE, LONG_TEXT, RECORD, RULES, Checker, Rule

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz", ".ndjson.gz")
NEEDED = ("query_id", "attempt", "offered", "chosen")  # as columns; in JSON null may be left out
MOST_BYTES_OF_BATCH = 64_000_000  # as they stand in the file, but for the last row
MOST_IGNORED = 50  # names of unknown columns that are reported


class ServicesReport(NamedTuple):
    """What became of the rows that were read so far; ``str`` makes a table of it.

    Attributes:
        read: how many; always ``kept`` plus all of ``set_aside``.
        kept: how many are in the batches.
        set_aside: how many are not, by the name of the rule that they break first.
        places: where the first of those stand, by the rule: ``file:line``, for Parquet
            ``file:row``, from 1.
        ignored: columns that are not in the schema.
        notes: what to know of the log as a whole; there once it is read through.
    """

    read: int
    kept: int
    set_aside: dict[str, int]
    places: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return self._asdict()

    def __str__(self) -> str:
        found = [counts_table(self.read, self.kept, self.set_aside, self.places)]
        if self.set_aside:
            expected = {rule.name: rule.expected for rule in RULES}
            found.append("\n".join(f"{n}: expected {expected[n]}" for n in self.set_aside))
        if self.ignored:
            found.append(f"ignored columns: {', '.join(self.ignored)}")
        found += [f"note: {note}" for note in self.notes]
        return "\n\n".join(found)


class Fault(NamedTuple):
    """A row that is set aside."""

    file: int
    line: int
    rule: Rule
    record: Any


class Chunk(NamedTuple):
    """Rows of a file as they are read.

    Attributes:
        rows: with the columns of ``SERVICES``, null in cells that are wrong.
        file: number of the file of each.
        line: where each stands in it.
        faults: what is set aside already, with what became no row at all.
        faulty: which rows are among the faults; they count as attempts that were made.
    """

    rows: pa.RecordBatch
    file: np.ndarray
    line: np.ndarray
    faults: list[Fault]
    faulty: np.ndarray


def services(
    path: str | Path | Sequence[str | Path],
    *,
    rename: Mapping[str, str] | None = None,
    rows: int = 65_536,
    quarantine: str | Path | None = None,
    strict: bool = False,
    sort: bool = False,
    memory: str = "1GB",
) -> "Services":
    """Services of a log, batch by batch, held to the rules.

    Columns have the names of :mod:`cqbayes.logs.schema`; others are ignored and named in the
    report. In a CSV an empty cell is null, the LLMs in ``offered`` are split by ``|``, and an
    ``embedding`` is a list in JSON. A time without a zone is UTC; a whole number is milliseconds.
    Rows of a query stand in the order of their attempts, or ``sort`` puts them there.

    Args:
        path: a file, a folder of files, or several files: Parquet, CSV, or JSON Lines, the last two
            also compressed, ``.gz``.
        rename: names of columns, ``{theirs: ours}``.
        rows: of a batch, at most.
        quarantine: where rows that are set aside are written with place and reason, as JSON Lines;
            the file appears once all is read. It holds what users wrote.
        strict: whether the first row that would be set aside is refused.
        sort: whether rows are put in order first: those of a query together, those of a session
            together, sessions by time. Needs DuckDB (``pip install 'cqbayes[logs]'``).
        memory: what DuckDB may take for that; the rest goes to a temporary folder.

    Raises:
        InputError: at once, for what cannot be read, or lacks a column; while reading, for a file
            that is damaged, has no rows, is plainly a log of another format, or, under ``strict``,
            has a row that breaks a rule.

    Example:
        >>> import pathlib, tempfile
        >>> log = "query_id,attempt,offered,chosen\\nq1,1,a|b,\\nq1,2,a,a\\nq2,1,a,c\\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "log.csv"
        ...     _ = file.write_text(log)
        ...     stream = services(file)
        ...     [batch["chosen"].to_pylist() for batch in stream]
        [[None, 'a']]
        >>> stream.report.set_aside, stream.report.places
        ({'chosen': 1}, {'chosen': ('log.csv:4',)})
    """
    if rows < 1:
        raise InputError(f"rows: expected at least 1, got {rows}")
    paths = files(path, SUFFIXES)
    names = _renaming(rename or {})
    readers = [_reader(one, names, rows) for one in paths]
    ledger = Ledger(quarantine, strict, tuple(paths))
    return Services(paths, readers, ledger, memory if sort else None, rows)


class Services(Iterator[pa.RecordBatch]):
    """Batches of services in ``SERVICES``, read as they are asked for; see :func:`services`."""

    def __init__(
        self,
        paths: Sequence[Path],
        readers: Sequence["_Reader"],
        ledger: Ledger,
        memory: str | None,
        rows: int,
    ) -> None:
        self._names = [path.name for path in paths]
        self._readers = readers
        self._ledger = ledger
        self._memory = memory
        self._rows = rows
        self._checker = Checker(together=memory is not None)
        self._retries = 0
        self._llms: set[str] = set()
        self._is_through = False
        self._batches = self._stream()

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    @property
    def report(self) -> ServicesReport:
        """Counts of what was read so far: of everything once the batches are used up."""
        ledger = self._ledger
        ignored = dict.fromkeys(name for reader in self._readers for name in reader.ignored)
        return ServicesReport(
            ledger.read,
            ledger.kept,
            dict(ledger.set_aside),
            ledger.places,
            tuple(islice(ignored, MOST_IGNORED)),
            tuple(self._notes()) if self._is_through else (),
        )

    def _stream(self) -> Iterator[pa.RecordBatch]:
        chunks = self._chunks() if self._memory is None else self._sorted(self._memory)
        try:
            for chunk in chunks:
                kept = self._judged(chunk)
                if len(kept):
                    self._retries += int(np.sum(_is_retry(kept)))
                    self._llms |= set(kept["offered"].flatten().unique().to_pylist())
                    self._llms = set(islice(self._llms, 1_000))
                    yield kept
            self._ledger.close()
            self._is_through = True
        finally:
            self._ledger.discard()
        if not self._ledger.read:
            raise InputError(f"{self._names[0]}: expected at least one row, got none")

    def _chunks(self) -> Iterator[Chunk]:
        for number, reader in enumerate(self._readers):
            yield from reader.chunks(number)

    def _sorted(self, memory: str) -> Iterator[Chunk]:
        """The same rows in order; what became none of them is set aside before."""

        def batches() -> Iterator[pa.RecordBatch]:
            for chunk in self._chunks():
                self._set_aside(chunk.faults)
                yield _with_places(chunk)

        for batch in by_query(batches(), _PLACED, memory, self._rows):
            file, line, faulty = (batch[n].to_numpy(zero_copy_only=False) for n in _PLACES)
            columns = [batch[field.name].cast(field.type) for field in _NULLABLE]
            yield Chunk(
                pa.RecordBatch.from_arrays(columns, schema=_NULLABLE), file, line, [], faulty
            )

    def _judged(self, chunk: Chunk) -> pa.RecordBatch:
        """The rows that break no rule; the others are set aside, in the order of the file."""
        codes = self._checker.codes(chunk.rows, chunk.faulty)
        bad = np.flatnonzero(codes)
        records: list[Any] = [None] * len(bad)
        if len(bad) and self._ledger.is_written:
            records = _records(chunk.rows.take(pa.array(bad)))
        rules = [RULES[code - 1] for code in codes[bad]]
        places = (chunk.file[bad].tolist(), chunk.line[bad].tolist())
        found = [*chunk.faults, *map(Fault, *places, rules, records)]
        self._set_aside(sorted(found, key=lambda fault: fault[:2]) if chunk.faults else found)
        keep = (codes == 0) & ~chunk.faulty
        self._ledger.kept += int(keep.sum())
        kept = chunk.rows if keep.all() else chunk.rows.filter(pa.array(keep))
        return pa.RecordBatch.from_arrays(kept.columns, schema=SERVICES)

    def _set_aside(self, faults: Iterable[Fault]) -> None:
        for file, line, rule, record in faults:
            place = f"{self._names[file]}:{line}"
            self._ledger.put_aside(rule.name, place, record, rule.expected)

    def _notes(self) -> Iterator[str]:
        kept, aside = self._ledger.kept, self._ledger.set_aside
        if kept == 0:
            yield "no row is left"
            return
        if kept == 1:
            yield "one row only: a prior is hardly moved by it"
        if self._retries == 0:
            yield "no row is a retry: how users reject answers cannot be learned from this log"
        if len(self._llms) == 1:
            yield "one LLM only: LLMs cannot be compared with this log"
        if self._checker.forgotten:
            yield (
                f"{self._checker.forgotten:,} queries were forgotten on the way, and later rows of "
                "theirs not compared with them: sort=True compares all"
            )
        if self._memory is None and any(aside[rule.name] for rule in _IN_ORDER):
            yield "rows of a query may stand in another order than they were: sort=True orders them"


_IN_ORDER = (validation.DUPLICATE, validation.ANSWERED, validation.GAP, validation.ORDER)
_NULLABLE = pa.schema([field.with_nullable(True) for field in SERVICES])
_TIME = SERVICES.get_field_index("timestamp")
_PLACES = ("file", "line", "faulty")
# What is sorted: times as numbers, since DuckDB would bring a library of time zones for them.
_PLACED = pa.schema(
    [
        *_NULLABLE.set(_TIME, pa.field("timestamp", pa.int64())),
        pa.field("file", pa.int64()),
        pa.field("line", pa.int64()),
        pa.field("faulty", pa.bool_()),
    ]
)


def _with_places(chunk: Chunk) -> pa.RecordBatch:
    columns = [*chunk.rows.columns, *map(pa.array, (chunk.file, chunk.line, chunk.faulty))]
    columns[_TIME] = columns[_TIME].cast(pa.int64())
    return pa.RecordBatch.from_arrays(columns, schema=_PLACED)


def _is_retry(rows: pa.RecordBatch) -> np.ndarray:
    return validation.is_null(rows["chosen"]) & ~validation.numbers(rows["silent"], False)


def _records(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """As dictionaries, without what is null."""
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


# From files to chunks


def _renaming(rename: Mapping[str, str]) -> dict[str, str]:
    for ours in rename.values():
        if ours not in SERVICES.names:
            raise InputError(
                f"rename: expected columns {', '.join(SERVICES.names)} as the new names, "
                f"got {ours!r}"
            )
    if len(set(rename.values())) < len(rename):
        raise InputError("rename: expected different new names, got one twice")
    return dict(rename)


class _Reader(NamedTuple):
    """A file that has been opened once.

    Attributes:
        chunks: reads it, given its number.
        ignored: names of columns that are not in the schema; of JSON, those met so far.
    """

    chunks: Callable[[int], Iterator[Chunk]]
    ignored: dict[str, None]


def _reader(path: Path, rename: Mapping[str, str], rows: int) -> _Reader:
    ignored: dict[str, None] = {}
    kind = suffix(path)
    if kind == ".parquet":
        with parquet(str(path), path) as file:
            schema = file.schema_arrow
        columns = _columns(path, schema.names, rename, ignored)
        for ours, theirs in columns.items():
            with _named(path):
                check_type(schema.field(theirs).type, SERVICES.field(ours))
        return _Reader(lambda number: _parquet_chunks(path, columns, rows, number), ignored)
    check_readable(path)
    if kind.startswith(".csv"):
        header = next(_csv_rows(path), None)
        if header is None or not isinstance(header.cells, list):
            raise InputError(f"{path}: expected a CSV with the names of its columns, got none")
        columns = _columns(path, header.cells, rename, ignored)
        cells = {ours: header.cells.index(theirs) for ours, theirs in columns.items()}
        return _Reader(lambda number: _csv_chunks(path, cells, rows, number), ignored)
    return _Reader(lambda number: _json_chunks(path, rename, ignored, rows, number), ignored)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says which file it was."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _columns(
    path: Path, names: Sequence[str], rename: Mapping[str, str], ignored: dict[str, None]
) -> dict[str, str]:
    """Names in the file, by ours."""
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
    check_columns(str(path), found, NEEDED)
    return found


def _refuse_other(path: Path, ours: Collection[str], theirs: Collection[str]) -> None:
    """Refuses a file that is a log of a known format and no table."""
    if not any(name in ours for name in NEEDED):
        refuse_other(str(path), theirs, OF_SERVICES, "a long table of services")


def _ignore(name: str, ignored: dict[str, None]) -> None:
    if len(ignored) < MOST_IGNORED:
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
    arrays = [columns[n][0] if n in columns else nothing(count, n) for n in SERVICES.names]
    rows = pa.RecordBatch.from_arrays(arrays, schema=_NULLABLE)
    for i in np.flatnonzero(code):
        faults.append(Fault(file, int(line[i]), RULES[code[i] - 1], record(int(i))))
    return Chunk(rows, np.full(count, file), line, faults, code > 0)


def _parquet_chunks(
    path: Path, columns: Mapping[str, str], rows: int, number: int
) -> Iterator[Chunk]:
    text = columns.get("text")
    # Long texts that repeat are small in the file: held once, until it is known how long they are.
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
            f"{path}: expected a Parquet file that can be read, it is damaged; get it again"
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
    """Parts in which texts take no more than a batch may; those that are too long count little."""
    if text is None or not isinstance(batch[text], pa.DictionaryArray):
        yield batch
        return
    column = batch[text]
    each = np.minimum(validation.lengths(_binary(column.dictionary)), MOST_BYTES + 1)
    sizes = np.append(each, 0)[validation.numbers(column.indices, len(each)).astype(np.int64)]
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
        return _records(batch.slice(i, 1))[0]

    return _chunk(number, line, found, record, [])


def _cells(column: pa.Array, ours: str) -> tuple[pa.Array, np.ndarray]:
    long = None
    if isinstance(column, pa.DictionaryArray) and ours == "text":
        # Before a text of many megabytes is written out as often as it occurs.
        each = np.append(validation.lengths(_binary(column.dictionary)) > MOST_BYTES, False)
        index = validation.numbers(column.indices, len(each) - 1).astype(np.int64)
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


# CSV. Python's reader and not Arrow's, which gives no numbers of lines where cells have lines of
# their own, and gives up where a quote does not close or a row is larger than a block.


class _Row(NamedTuple):
    """A row of CSV, or the rule that it breaks; and what stands in the file."""

    line: int
    cells: list[str] | Rule
    content: bytes | None


class _TooLong(Exception):
    """A row that is larger than is held in memory."""


class _Lines(Iterator[str]):
    """The lines of a file, and what of them belongs to the row that is being read."""

    def __init__(self, path: Path) -> None:
        self._lines = lines(path, blank=True)
        self.start_row()
        self._is_first = True

    def start_row(self) -> None:
        self.number, self.content, self.is_text = 0, bytearray(), True

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.number = self.number or number
        if line is None or len(self.content) + len(line) > MOST_BYTES_OF_RECORD:
            raise _TooLong
        self.content += line
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.is_text = False
            return line.decode("utf-8", "replace")


def _csv_rows(path: Path) -> Iterator[_Row]:
    """Rows that are not blank; the first is the header."""
    # The limit is one for the whole process; it is never lowered here.
    csv.field_size_limit(max(csv.field_size_limit(), MOST_BYTES_OF_RECORD))
    source = _Lines(path)
    reader = csv.reader(source, strict=True)
    count = None
    while True:
        source.start_row()
        try:
            cells = next(reader, None)
        except _TooLong:
            yield _Row(source.number, RECORD, None)
            continue
        except csv.Error:
            yield _Row(source.number, LINE, bytes(source.content))
            continue
        if cells is None:
            return
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        count = count or len(cells)
        content = bytes(source.content)
        found = ENCODING if not source.is_text else LINE if len(cells) != count else cells
        yield _Row(source.number, found, content)


def _csv_chunks(path: Path, columns: Mapping[str, int], rows: int, number: int) -> Iterator[Chunk]:
    def chunk() -> Chunk:
        cells = list(zip(*(row.cells for row in good), strict=True))
        place = np.array([row.line for row in good], np.int64)
        found = {ours: _strings(cells[i] if good else (), ours) for ours, i in columns.items()}
        return _chunk(number, place, found, lambda i: good[i].content, faults)

    good: list[_Row] = []
    faults: list[Fault] = []
    size = 0
    for row in islice(_csv_rows(path), 1, None):
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
    if field.type != pa.string():
        column = pc.call_function("utf8_trim_whitespace", [column])
    empty = pc.call_function("equal", [column, pa.scalar("")])
    none = pa.scalar(None, pa.string())
    return from_arrow(pc.call_function("if_else", [empty, none, column]), field)

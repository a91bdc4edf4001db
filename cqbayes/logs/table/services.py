"""Reading the long table of services: Parquet, CSV and JSON Lines become batches of ``SERVICES``.

A file is read in pieces that fit in memory, whatever is in it. A row that cannot be read, or that
breaks a rule of :mod:`cqbayes.logs.table.validation`, is set aside, counted and, if wanted, kept in
a quarantine file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from cqbayes.errors import InputError
from cqbayes.logs.quarantine import Ledger, counts_table
from cqbayes.logs.records import files
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table import validation
from cqbayes.logs.table.chunks import (
    MOST_BYTES_OF_BATCH,
    MOST_IGNORED,
    NULLABLE,
    Chunk,
    Fault,
    Reader,
    reader_of,
    records_of,
)
from cqbayes.logs.table.ordering import Order, order_of
from cqbayes.logs.table.sorting import by_query
from cqbayes.logs.table.validation import RULES, Checker

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz", ".ndjson.gz")
JSON = (".json", ".json.gz")  # also JSON Lines, but in a folder they may be anything
MOST_IN_MEMORY = 5_000_000  # rows that are sorted there

Sort = bool | Literal["memory"]


class ServicesReport(NamedTuple):
    """Counts of the rows that were read so far; ``str`` makes a table of them.

    Attributes:
        read: rows that were read; always ``kept`` plus all of ``set_aside``.
        kept: rows in the batches.
        set_aside: rows that were not kept, counted by the name of the first rule that they break.
        places: places of the first rows set aside, by rule: ``file:line``, for Parquet
            ``file:row``, from 1.
        ignored: columns that are not in the schema.
        notes: remarks on the log as a whole; present once all of it is read.
        out_of_order: rows that stood after a later attempt of their query, and were sorted; 0
            without ``sort``.
    """

    read: int
    kept: int
    set_aside: dict[str, int]
    places: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    out_of_order: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The counts as a dictionary for JSON."""
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


def read_services(
    path: str | Path | Sequence[str | Path],
    *,
    rename: Mapping[str, str] | None = None,
    rows: int = 65_536,
    quarantine: str | Path | None = None,
    strict: bool = False,
    sort: Sort = False,
    memory: str = "1GB",
) -> "ServiceBatches":
    """The services of a log, batch by batch; rows that break a rule are set aside.

    Columns have the names of :mod:`cqbayes.logs.schema`; others are ignored and named in the
    report. In a CSV an empty cell is null, the LLMs in ``offered`` are split by ``|``, and lists
    may stand as JSON, Python or NumPy write them. A time without a zone is UTC; a whole number is
    milliseconds. Rows of a query must stand in the order of their attempts; ``sort`` sorts others.

    Args:
        path: a file, a folder of files, or several files: Parquet, CSV, or JSON Lines, the last two
            also compressed, ``.gz``. A file ``.json`` of JSON Lines is read where it is named.
        rename: names of columns, ``{theirs: ours}``.
        rows: maximum number of rows in a batch.
        quarantine: where rows that are set aside are written with place and reason, as JSON Lines;
            the file appears once all is read. It holds what users wrote.
        strict: whether the first row that would be set aside is an error instead.
        sort: whether rows are put in order first: those of a query together, by their attempts,
            those of a session together, sessions by time. No row is set aside for where it stood
            then; where timestamps go back, attempts are believed. ``"memory"`` holds all rows, at
            most 5 million, and also numbers the attempts of a query that has none, by their
            timestamps; True sorts any number of rows, by DuckDB (``pip install 'cqbayes[logs]'``).
        memory: how much DuckDB may use to sort; the rest goes to a temporary folder.

    Raises:
        InputError: at once, for a file that cannot be read, or lacks a column; while reading, for a
            file that is damaged, has no rows, is plainly a log of another format, or, under
            ``strict``, has a row that breaks a rule.

    Example:
        >>> import pathlib, tempfile
        >>> log = "query_id,attempt,offered,chosen\\nq1,1,a|b,\\nq1,2,a,a\\nq2,1,a,c\\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "log.csv"
        ...     _ = file.write_text(log)
        ...     stream = read_services(file)
        ...     [batch["chosen"].to_pylist() for batch in stream]
        [[None, 'a']]
        >>> stream.report.set_aside, stream.report.places
        ({'chosen': 1}, {'chosen': ('log.csv:4',)})
    """
    if rows < 1:
        raise InputError(f"rows: expected at least 1, got {rows}")
    if sort not in (False, True, "memory"):
        raise InputError(f"sort: expected False, True or 'memory', got {sort!r}")
    paths = _files(path)
    names = _renaming(rename or {})
    readers = [reader_of(one, names, rows, sort == "memory") for one in paths]
    ledger = Ledger(quarantine, strict, tuple(paths))
    return ServiceBatches(paths, readers, ledger, sort, memory, rows)


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(path, str | Path):
        return files(path, SUFFIXES if Path(path).is_dir() else (*SUFFIXES, *JSON))
    return [file for one in path for file in _files(one)] or files([], SUFFIXES)


class ServiceBatches(Iterator[pa.RecordBatch]):
    """Batches of ``SERVICES``, read as they are asked for; see :func:`read_services`."""

    def __init__(
        self,
        paths: Sequence[Path],
        readers: Sequence["Reader"],
        ledger: Ledger,
        sort: Sort,
        memory: str,
        rows: int,
    ) -> None:
        self._names = [path.name for path in paths]
        self._readers = readers
        self._ledger = ledger
        self._sort = sort
        self._memory = memory
        self._rows = rows
        self._checker = Checker(together=bool(sort))
        self._out_of_order = self._numbered = self._tied = 0
        self._retries = 0
        self._llms: set[str] = set()
        self._is_through = False
        self._batches = self._stream()

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    @property
    def report(self) -> ServicesReport:
        """Counts of the rows read so far: of all rows once the batches are used up."""
        ledger = self._ledger
        ignored = dict.fromkeys(name for reader in self._readers for name in reader.ignored)
        return ServicesReport(
            ledger.read,
            ledger.kept,
            dict(ledger.set_aside),
            ledger.places,
            tuple(islice(ignored, MOST_IGNORED)),
            tuple(self._notes()) if self._is_through else (),
            self._out_of_order,
        )

    def _stream(self) -> Iterator[pa.RecordBatch]:
        sources = {False: self._chunks, True: self._sorted, "memory": self._sorted_in_memory}
        try:
            for chunk in sources[self._sort]():
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

    def _placed(self) -> Iterator[pa.RecordBatch]:
        """Rows with their places; lines that are not rows are set aside."""
        for chunk in self._chunks():
            self._set_aside(chunk.faults)
            yield _with_places(chunk)

    def _sorted(self) -> Iterator[Chunk]:
        """The same rows, sorted by DuckDB."""
        for batch in by_query(self._placed(), _PLACED, self._memory, self._rows):
            self._out_of_order += batch["late"].true_count
            yield _chunk_of(batch)

    def _sorted_in_memory(self) -> Iterator[Chunk]:
        """The same rows, sorted, and attempts that are absent numbered by time."""
        batches, count = [], 0
        for batch in self._placed():
            count += len(batch)
            if count > MOST_IN_MEMORY:
                raise InputError(
                    f"sort: expected at most {MOST_IN_MEMORY:,} rows in memory, got more; "
                    "sort=True sorts them on disk"
                )
            batches.append(batch.cast(_LARGE))
        rows = pa.Table.from_batches(batches, _LARGE)
        order = order_of(rows)
        self._out_of_order, self._numbered, self._tied = order[2:]
        rows = rows.set_column(_ATTEMPT, "attempt", order.attempt)
        for part in _parts(rows, order, self._rows):
            yield _chunk_of(rows.take(pa.array(part)).combine_chunks().to_batches()[0])

    def _judged(self, chunk: Chunk) -> pa.RecordBatch:
        """The rows that break no rule; the others are set aside, in the order of the file."""
        codes = self._checker.codes(chunk.rows, chunk.faulty)
        bad = np.flatnonzero(codes)
        records: list[Any] = [None] * len(bad)
        if len(bad) and self._ledger.is_written:
            records = records_of(chunk.rows.take(pa.array(bad)))
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
            yield "one row only: it hardly changes a prior"
        if self._retries == 0:
            yield "no row is a retry: how users reject answers cannot be learned from this log"
        if len(self._llms) == 1:
            yield "one LLM only: LLMs cannot be compared with this log"
        if self._checker.forgotten:
            yield (
                f"{self._checker.forgotten:,} queries were forgotten to save memory, and later "
                "rows of these were not compared with earlier ones: sort=True compares all"
            )
        if not self._sort and any(aside[rule.name] for rule in _IN_ORDER):
            yield (
                "rows of a query may stand in another order than attempts: sort='memory' sorts "
                "them, or sort=True where memory does not hold them"
            )
        if self._out_of_order:
            yield f"{self._out_of_order:,} rows stood after a later attempt, and were sorted"
        if self._numbered:
            yield f"{self._numbered:,} rows have no attempt, and were numbered by their timestamps"
        if self._tied:
            yield (
                f"{self._tied:,} of those have the timestamp of another row of their query: which "
                "of the two came first is a guess"
            )
        if self._checker.back:
            yield (
                f"{self._checker.back:,} rows have a timestamp before that of an earlier attempt: "
                "attempts were believed, not timestamps"
            )


_IN_ORDER = (validation.DUPLICATE, validation.ANSWERED, validation.GAP, validation.ORDER)
_TIME = SERVICES.get_field_index("timestamp")
_ATTEMPT = SERVICES.get_field_index("attempt")
_PLACES = ("file", "line", "faulty")
# The columns to sort, with times as numbers: for times, DuckDB needs a library of time zones.
_PLACED = pa.schema(
    [
        *NULLABLE.set(_TIME, pa.field("timestamp", pa.int64())),
        pa.field("file", pa.int64()),
        pa.field("line", pa.int64()),
        pa.field("faulty", pa.bool_()),
    ]
)


def _large(kind: pa.DataType) -> pa.DataType:
    """A type for columns of more than 2 GB, which others cannot hold in one piece."""
    if pa.types.is_list(kind):
        return pa.large_list(_large(kind.value_type))
    return pa.large_string() if pa.types.is_string(kind) else kind


_LARGE = pa.schema([field.with_type(_large(field.type)) for field in _PLACED])


def _with_places(chunk: Chunk) -> pa.RecordBatch:
    columns = [*chunk.rows.columns, *map(pa.array, (chunk.file, chunk.line, chunk.faulty))]
    columns[_TIME] = columns[_TIME].cast(pa.int64())
    return pa.RecordBatch.from_arrays(columns, schema=_PLACED)


def _chunk_of(batch: pa.RecordBatch) -> Chunk:
    file, line, faulty = (batch[n].to_numpy(zero_copy_only=False) for n in _PLACES)
    columns = [batch[field.name].cast(field.type) for field in NULLABLE]
    return Chunk(pa.RecordBatch.from_arrays(columns, schema=NULLABLE), file, line, [], faulty)


def _parts(rows: pa.Table, order: Order, most: int) -> Iterator[np.ndarray]:
    """Numbers of rows, in order, in parts of at most so many rows, whose texts fit in memory."""
    text = validation.lengths(rows["text"].combine_chunks())[order.rows]
    start = 0
    for piece in range(0, len(text), most):
        part = np.cumsum(text[piece : piece + most]) // MOST_BYTES_OF_BATCH
        for end in [*(np.flatnonzero(np.diff(part)) + 1), len(part)]:
            yield order.rows[start : piece + end]
            start = piece + int(end)


def _is_retry(rows: pa.RecordBatch) -> np.ndarray:
    return validation.is_null(rows["chosen"]) & ~validation.column_numbers(rows["silent"], False)


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

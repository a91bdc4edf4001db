"""From files to records to turns: the reading that all importers share.

A log format is one file with an ``IMPORTER``. What is read is bounded, whatever is in the file, and
counted: every record is kept or set aside with a reason, and nothing of a record is in a reason.
"""

import gzip
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from cqbayes.answers import parquet
from cqbayes.errors import InputError
from cqbayes.logs.formats import refuse_other
from cqbayes.logs.quarantine import Ledger, Report
from cqbayes.logs.schema import TURNS

# What bounds the memory, whatever is in the file.
MOST_BYTES = 1_000_000  # of a message
MOST_BYTES_OF_NAME = 256  # of what is repeated in every row: hashes, names, languages
MOST_BYTES_OF_RECORD = 16_000_000  # as it stands in the file
MOST_BYTES_OF_ARRAY = 64_000_000  # of a file .json, which is read as a whole
MOST_MESSAGES = 10_000  # of a conversation
MOST_CHARS = 16_000_000  # of text in a batch, but for its last record
# Bytes that a byte of a file .gz may become, past its first 64 MB: logs shrink 5 to 50 times, and
# gzip cannot do more than 1,032.
MOST_EXPANSION = 200
RECORDS = 64  # of a Parquet file that are decoded at a time
BUFFER = 1 << 20  # bytes of a Parquet column that are read at a time

# Why records are set aside, in all formats.
NOT_JSON = "not a JSON object"
NOT_UTF8 = "not UTF-8"
LONG_RECORD = f"over {MOST_BYTES_OF_RECORD:,} bytes or {MOST_MESSAGES:,} messages"
LONG_CELL = f"a message over {MOST_BYTES:,} bytes, or a name over {MOST_BYTES_OF_NAME}"
NO_TIMESTAMP = "a timestamp that is none"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # a second
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".parquet", ".json", *JSON_LINES, ".jsonl.gz", ".ndjson.gz")

Record = Mapping[str, Any]


class SetAside(Exception):
    """Its text is one of the reasons, and nothing from the file."""


def _itself(record: Record) -> Iterable[Any]:
    return (record,)


class Importer(NamedTuple):
    """A log format.

    Attributes:
        title: what it is called.
        rows: ``(record, ticks) -> rows of TURNS``, as dictionaries in which what is absent is
            null; raises :class:`SetAside`. ``ticks`` says how many ticks a second has in whole
            numbers that are times, by the field's name with dots; those it lacks are for the
            importer to know. A record without a turn of a user gives no rows.
        unpack: what one line of JSON holds, where that is more than a record.
        wanted: whether a column of Parquet is read, by its name with dots; None where the format
            is not known in Parquet.
        check: refuses a Parquet file by its name and schema.
        signs: which fields tell the format from others: all of one of these sets of names.
        transport: how a request that a program sent again after an error is told apart from a user
            who asked again, or that it cannot be.
    """

    title: str
    rows: Callable[[Record, Mapping[str, int]], list[dict[str, Any]]]
    transport: str
    unpack: Callable[[Record], Iterable[Any]] = _itself
    wanted: Callable[[str], bool] | None = None
    check: Callable[[str, pa.Schema], None] | None = None
    signs: tuple[tuple[str, ...], ...] = ()


class Turns(Iterator[pa.RecordBatch]):
    """Batches of turns in ``TURNS``, read as they are asked for; see :func:`turns`."""

    def __init__(
        self, importer: Importer, paths: Sequence[Path], rows: int, ledger: Ledger
    ) -> None:
        self._importer = importer
        self._ledger = ledger
        self._batches = self._stream(paths, rows)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    @property
    def report(self) -> Report:
        """Counts of what was read so far: of everything once the batches are used up."""
        return self._ledger.report

    def _stream(self, paths: Sequence[Path], rows: int) -> Iterator[pa.RecordBatch]:
        waiting: list[dict[str, Any]] = []
        chars = 0
        try:
            for path in paths:
                source = _source(path, self._importer)
                for place, record, line in source.records:
                    found = self._rows(record, source.ticks)
                    if isinstance(found, str):
                        whole = line if isinstance(record, str) else record
                        self._ledger.put_aside(found, f"{path.name}:{place}", whole)
                        continue
                    self._ledger.kept += 1
                    waiting += found
                    chars += sum(len(row["text"] or "") for row in found)
                    if len(waiting) >= rows or chars >= MOST_CHARS:
                        yield pa.RecordBatch.from_pylist(waiting, TURNS)
                        waiting, chars = [], 0
            # Before the last batch, so that a file is there once that has come.
            self._ledger.close()
        finally:
            self._ledger.discard()
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, TURNS)

    def _rows(
        self, record: dict[str, Any] | str, ticks: Mapping[str, int]
    ) -> list[dict[str, Any]] | str:
        """Rows of ``TURNS``, or why the record is set aside."""
        if isinstance(record, str):
            return record
        try:
            return self._importer.rows(record, ticks)
        except SetAside as reason:
            return str(reason)


def turns(
    importer: Importer,
    path: str | Path | Sequence[str | Path],
    *,
    rows: int = 10_000,
    quarantine: str | Path | None = None,
    strict: bool = False,
) -> Turns:
    """Turns of users, batch by batch; a record is never in two batches.

    A record that is not as it should be is set aside with all its turns, since the others would
    look as if they followed one another, and is counted in :attr:`Turns.report`. Memory is bounded:
    a batch, and of the file one line, or 64 records and the Parquet pages that they stand in.

    Args:
        importer: the log format.
        path: a file, a folder of files, or several files: Parquet, JSON Lines (also compressed,
            ``.gz``), or JSON with an object or an array of objects.
        rows: how many a batch has at least; only the last, or one of very long texts, has fewer.
        quarantine: where the records that are set aside are written with place and reason, as JSON
            Lines; the file appears once all is read. It holds what users wrote.
        strict: whether the first of those is refused.

    Raises:
        InputError: at once, for what cannot be read or lacks a column; and while reading, for JSON
            whose first record is plainly of another format, for a file that is damaged, or under
            ``strict``.
    """
    if rows < 1:
        raise InputError(f"rows: expected at least 1, got {rows}")
    paths = files(path, SUFFIXES)
    for one in paths:
        _check(one, importer)
    return Turns(importer, paths, rows, Ledger(quarantine, strict, tuple(paths)))


def suffix(path: Path) -> str:
    """Of a file, with what stands before ``.gz``."""
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def files(path: str | Path | Sequence[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """A file, the files of a folder in order of their names, or several files.

    Raises:
        InputError: for a folder without any, and for files of other kinds.
    """
    if not isinstance(path, str | Path):
        found = [Path(one) for one in path]
    elif Path(path).is_dir():
        found = sorted(one for one in Path(path).iterdir() if suffix(one) in suffixes)
    else:
        found = [Path(path)]
    if not found:
        raise InputError(f"{path}: expected files {', '.join(suffixes)}, got none")
    for one in found:
        if suffix(one) not in suffixes:
            raise InputError(f"{one}: expected a file {', '.join(suffixes)}, got {one.suffix!r}")
    return found


def check_readable(path: Path) -> None:
    """Refuses a file that cannot be opened."""
    try:
        path.open("rb").close()
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{path}: expected a readable file, got: {reason}") from None


def _check(path: Path, importer: Importer) -> None:
    """Refuses a file that nothing can be read from, before anything is read."""
    if suffix(path) != ".parquet":
        check_readable(path)
        return
    if importer.wanted is None:
        raise InputError(f"{path}: expected JSON or JSON Lines of {importer.title}, got Parquet")
    with parquet(str(path), path) as file:
        refuse_other(str(path), file.schema_arrow.names, importer.signs, importer.title)
        if importer.check is not None:
            importer.check(str(path), file.schema_arrow)


# From files to records: dictionaries as they stand in the file, or why there is none.


class Found(NamedTuple):
    """A record, or why there is none.

    Attributes:
        place: of its line, or else its number, from 1.
        record: the record, or the reason.
        line: as it stands in the file, where that is a line.
    """

    place: int
    record: dict[str, Any] | str
    line: bytes | None = None


class _Source(NamedTuple):
    records: Iterator[Found]
    ticks: Mapping[str, int]


def _source(path: Path, importer: Importer) -> _Source:
    if suffix(path) != ".parquet":
        read = _array if suffix(path) == ".json" else json_lines
        return _Source(_unpacked(_of_format(read(path), path, importer), importer), {})
    with parquet(str(path), path) as file:
        schema = file.schema_arrow
    assert importer.wanted is not None
    return _Source(_rows_of(path, importer.wanted), _ticks(schema))


def _ticks(fields: pa.Schema | pa.StructType, before: str = "") -> dict[str, int]:
    """Of all times in a schema, by their names with dots."""
    found: dict[str, int] = {}
    count = len(fields) if isinstance(fields, pa.Schema) else fields.num_fields
    for place in range(count):
        field = fields.field(place)
        kind = field.type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if isinstance(kind, pa.TimestampType):
            found[before + field.name] = TICKS[kind.unit]
        elif isinstance(kind, pa.StructType):
            found |= _ticks(kind, f"{before}{field.name}.")
    return found


def _of_format(records: Iterator[Found], path: Path, importer: Importer) -> Iterator[Found]:
    """The same records, unless the first of them is plainly of another format."""
    known = False
    for found in records:
        if not known and not isinstance(found.record, str):
            refuse_other(str(path), found.record, importer.signs, importer.title)
            known = True
        yield found


def _unpacked(records: Iterator[Found], importer: Importer) -> Iterator[Found]:
    for found in records:
        if isinstance(found.record, str):
            yield found
            continue
        for inner in importer.unpack(found.record):
            yield Found(found.place, inner if isinstance(inner, dict) else NOT_JSON)


def _array(path: Path) -> Iterator[Found]:
    """The objects of a file that is one JSON text: an array of them, or one."""
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES_OF_ARRAY + 1)
    if len(content) > MOST_BYTES_OF_ARRAY:
        raise InputError(
            f"{path}: expected at most {MOST_BYTES_OF_ARRAY:,} bytes in a file .json, got more; "
            "make it JSON Lines, which are read one by one: jq -c '.[]'"
        )
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8, got something else") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: expected JSON, got something else") from None
    for place, record in enumerate(found if isinstance(found, list) else [found], 1):
        yield Found(place, record if isinstance(record, dict) else NOT_JSON)


def lines(path: Path, blank: bool = False) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers, from 1; None for one that is too long.

    Files of gzip are unpacked as they are read. Blank lines come only with ``blank``.

    Raises:
        InputError: for a file of gzip that is damaged, or that becomes far larger than it is.
    """
    packed = path.suffix == ".gz"
    number = 0
    with open(path, "rb") as raw:
        file: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            while line := file.readline(MOST_BYTES_OF_RECORD + 1):
                number += 1
                if packed:
                    _check_expansion(path, raw, file)
                if len(line) > MOST_BYTES_OF_RECORD:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(BUFFER)
                        if packed:
                            _check_expansion(path, raw, file)
                    yield number, None
                elif blank or not line.isspace():
                    yield number, line
        except (EOFError, OSError, zlib.error) as error:
            if not packed:
                raise
            raise InputError(
                f"{path}: expected a file of gzip that can be read, it is damaged; get it again"
            ) from error


def json_lines(path: Path) -> Iterator[Found]:
    """The objects of a file of JSON Lines; raises as :func:`lines` does."""
    for number, line in lines(path):
        if line is None:
            yield Found(number, LONG_RECORD)
        else:
            yield Found(number, _parsed(line), line)


def _check_expansion(path: Path, raw: IO[bytes], file: Any) -> None:
    """Refuses a bomb: a small file that becomes a very large one."""
    if file.tell() > MOST_BYTES_OF_ARRAY + MOST_EXPANSION * raw.tell():
        raise InputError(
            f"{path}: expected at most {MOST_EXPANSION:,} bytes of text for a byte of gzip, "
            "got more; unpack it if that is right"
        )


def _parsed(line: bytes) -> dict[str, Any] | str:
    try:
        record = json.loads(line.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):
        return NOT_JSON
    return record if isinstance(record, dict) else NOT_JSON


def _rows_of(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[Found]:
    place = 0
    with parquet(str(path), path, buffer_size=BUFFER) as file:
        # Moderation scores and headers are a good part of the file, and stay there.
        wanted = [
            column
            for column in (file.schema.column(i).path for i in range(len(file.schema)))
            if is_wanted(column)
        ]
        batches = file.iter_batches(RECORDS, columns=wanted)
        for batch in batches:
            columns = [(name, _timeless(batch.column(name))) for name in batch.schema.names]
            for i in range(len(batch)):
                place += 1
                yield Found(place, _record(columns, i))


def _timeless(column: pa.Array) -> pa.Array:
    """With whole numbers for times, since not all that Arrow can hold are times in Python."""
    return column.cast(_timeless_type(column.type))


def _timeless_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.TimestampType):
        return pa.int64()
    if isinstance(kind, pa.StructType):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([field.with_type(_timeless_type(field.type)) for field in fields])
    if isinstance(kind, pa.ListType):
        return pa.list_(kind.value_field.with_type(_timeless_type(kind.value_type)))
    if isinstance(kind, pa.LargeListType):
        return pa.large_list(kind.value_field.with_type(_timeless_type(kind.value_type)))
    return kind


def _record(columns: list[tuple[str, pa.Array]], i: int) -> dict[str, Any] | str:
    record = {}
    for name, column in columns:
        cell = column[i]
        if isinstance(cell, pa.ListScalar | pa.LargeListScalar) and cell.is_valid:
            # Before it becomes objects of Python, which take many times as much.
            inner = cell.values
            if len(inner) > MOST_MESSAGES or inner.nbytes > MOST_BYTES_OF_RECORD:
                return LONG_RECORD
        try:
            record[name] = cell.as_py()
        except UnicodeDecodeError:
            return NOT_UTF8
    return record


# What importers make cells of.


def text(value: Any, most: int, reason: str) -> str:
    """A string of at most so many bytes; set aside for ``reason`` where it is none."""
    if not isinstance(value, str):
        raise SetAside(reason)
    try:
        # JSON can hold unpaired surrogates, which have no encoding.
        size = len(value.encode()) if len(value) <= most else len(value)
    except UnicodeEncodeError:
        raise SetAside(NOT_UTF8) from None
    if size > most:
        raise SetAside(LONG_CELL)
    return value


def name(record: Record, key: str, reason: str) -> str:
    """A short string that has to be there."""
    return text(record.get(key) or None, MOST_BYTES_OF_NAME, reason)


def optional_name(record: Record, key: str, reason: str) -> str | None:
    """A short string, or null."""
    value = record.get(key)
    return None if value is None else text(value, MOST_BYTES_OF_NAME, reason)


def moment(value: Any, ticks: int) -> datetime | None:
    """A time in UTC: ISO 8601, where one without a zone is UTC, or whole ticks since 1970."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
        if isinstance(value, int) and not isinstance(value, bool):
            return EPOCH + timedelta(microseconds=value * 1_000_000 // ticks)
    except (ValueError, OverflowError):
        pass
    raise SetAside(NO_TIMESTAMP)


def folded(value: str) -> str:
    """A text with its white space folded, by which a repeated one is known."""
    return " ".join(value.split())

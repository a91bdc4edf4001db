"""From files to records to requests: how files are read, for all importers.

A log format is one file with an ``IMPORTER``. Memory is bounded, whatever is in the file. Every
record is counted: it is kept, or set aside with a reason that contains nothing of the record.
"""

import gzip
import json
import os
import re
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from cqbayes._tools.tables import parquet
from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_BYTES_OF_RECORD,
    MOST_MESSAGES,
    NOT_JSON,
    NOT_UTF8,
    TICKS,
    Importer,
    Request,
    SetAside,
)
from cqbayes.logs.formats.recognise import refuse_other
from cqbayes.logs.quarantine import Ledger, Report
from cqbayes.logs.schema import REQUESTS

MOST_BYTES_OF_ARRAY = 64_000_000  # of JSON that is read as a whole


MOST_CHARS = 16_000_000  # of text in a batch, but for its last record


# Bytes that a byte of a .gz file may become, past the first 64 MB. Logs shrink 5 to 50 times; gzip
# shrinks at most 1,032 times.
MOST_EXPANSION = 200


RECORDS = 64  # of a Parquet file that are decoded at a time


BUFFER = 1 << 20  # bytes of a Parquet column that are read at a time


JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


SUFFIXES = (".parquet", ".json", ".json.gz", *JSON_LINES)


KINDS = 4  # of files that a message names


DECODER = json.JSONDecoder()


SPACE = re.compile(r"\s*")


# Why records are set aside.
NESTED = "lists and objects in one another, too deep to read"


class Requests(Iterator[pa.RecordBatch]):
    """Batches of requests in ``REQUESTS``, read as they are asked for: :func:`read_requests`."""

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
        """Counts of the records read so far: of all records once the batches are used up."""
        return self._ledger.report

    def _stream(self, paths: Sequence[Path], rows: int) -> Iterator[pa.RecordBatch]:
        waiting: list[Request] = []
        chars = 0
        try:
            for path, label in zip(paths, _labels(paths), strict=True):
                source = _source(path, self._importer)
                for place, record, raw in source.records:
                    found = self._requests(record, source.ticks)
                    if isinstance(found, str):
                        whole = raw if isinstance(record, str) else record
                        self._ledger.put_aside(found, f"{label}:{place}", whole)
                        continue
                    self._ledger.kept += 1
                    waiting += found
                    chars += sum(len(one.text or "") for one in found)
                    if len(waiting) >= rows or chars >= MOST_CHARS:
                        yield _batch(waiting)
                        waiting, chars = [], 0
            # Before the last batch, so that the quarantine file is there when that batch comes.
            self._ledger.close()
        finally:
            self._ledger.discard()
        if waiting:
            yield _batch(waiting)

    def _requests(
        self, record: dict[str, Any] | str, ticks: Mapping[str, int]
    ) -> list[Request] | str:
        """The requests of a record, or why it is set aside."""
        if isinstance(record, str):
            return record
        try:
            found = self._importer.requests(record, ticks)
        except SetAside as reason:
            return str(reason)
        except RecursionError:
            return NESTED
        assert found, f"{self._importer.title}: a record was kept and gave no request"
        return found


def _batch(requests: Sequence[Request]) -> pa.RecordBatch:
    columns = zip(*requests, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, REQUESTS, strict=True)],
        schema=REQUESTS,
    )


def _labels(paths: Sequence[Path]) -> list[str]:
    """Names of files for places of records: from the folder on that all of them share."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    try:
        shared = os.path.commonpath([path.parent for path in whole])
    except ValueError:  # on several drives
        return [str(path) for path in paths]
    return [path.relative_to(shared).as_posix() for path in whole]


def read_requests(
    importer: Importer,
    path: str | Path | Sequence[str | Path],
    *,
    rows: int = 10_000,
    quarantine: str | Path | None = None,
    strict: bool = False,
) -> Requests:
    """What the records of a log say, batch by batch; a record is never in two batches.

    An invalid record is set aside alone, and counted in :attr:`Requests.report`; where a record
    of the file holds several (a page, a trace), each of them is a record. Memory holds a batch, and
    one line of the file, or 64 records with their Parquet pages, or a file of JSON that is not JSON
    Lines.

    Args:
        importer: the log format.
        path: a file, a folder of files (also in its sub-folders), or several of them: Parquet, or
            JSON, as JSON Lines or as an object or an array of objects, also compressed (``.gz``).
            Which JSON it is shows by what is in the file, not by its name.
        rows: minimum number of rows in a batch; only the last batch, or one of very long texts, has
            fewer.
        quarantine: where the records that are set aside are written with place and reason, as JSON
            Lines; the file appears once all is read. It holds what users wrote.
        strict: whether the first record to be set aside is an error instead.

    Raises:
        InputError: at once, for a file that cannot be read or lacks a column; and while reading,
            for JSON whose first record is plainly of another format, for a file that is damaged, or
            under ``strict``.

    Example:
        >>> import tempfile
        >>> from cqbayes import load_importer
        >>> said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "log.jsonl"
        ...     _ = path.write_text(json.dumps({"id": "a", "model": "gpt-4o", "messages": said}))
        ...     stream = read_requests(load_importer("openai_chat"), path)
        ...     [batch.select(["llm", "text"]).to_pylist() for batch in stream]
        [[{'llm': 'gpt-4o', 'text': 'Why?'}]]
        >>> stream.report
        Report(read=1, kept=1, set_aside={}, places={})
    """
    if rows < 1:
        raise InputError(f"rows: expected at least 1, got {rows}")
    paths = files(path, SUFFIXES)
    for one in paths:
        _check(one, importer)
    return Requests(importer, paths, rows, Ledger(quarantine, strict, tuple(paths)))


def suffix(path: Path) -> str:
    """The suffix of a file, with the one before ``.gz``: ``.jsonl.gz``."""
    said = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    return said.lower()


def files(path: str | Path | Sequence[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """The files to read: one file, those of a folder and its sub-folders by name, or several.

    Hidden files and folders are left out, and links to folders.

    Raises:
        InputError: for what is not there, for a folder without such files, and for files of other
            kinds.
    """
    if not isinstance(path, str | Path):
        found = [file for one in path for file in files(one, suffixes)]
        if not found:
            raise InputError(f"expected files {', '.join(suffixes)}, got none")
        return found
    given = Path(path)
    if not given.is_dir():
        check_readable(given)
        if suffix(given) not in suffixes:
            raise InputError(
                f"{given}: expected a file {', '.join(suffixes)}, got {suffix(given)!r}"
            )
        return [given]
    there = _files_below(given)
    found = [one for one in there if suffix(one) in suffixes]
    if not found:
        raise InputError(
            f"{given}: expected files {', '.join(suffixes)}, got none; {_kinds(there)}"
        )
    return found


def _files_below(folder: Path) -> list[Path]:
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _kinds(there: Sequence[Path]) -> str:
    """Which files are there, by suffix."""
    counts = Counter(suffix(one) or "without a suffix" for one in there).most_common(KINDS)
    return (
        "there are " + ", ".join(f"{n} {kind}" for kind, n in counts) if counts else "it is empty"
    )


def check_readable(path: Path) -> None:
    """Refuses a file that cannot be opened."""
    try:
        path.open("rb").close()
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{path}: expected a readable file, got: {reason}") from None


def _check(path: Path, importer: Importer) -> None:
    """Refuses a file that cannot be read, before any file is read."""
    if suffix(path) != ".parquet":
        check_readable(path)
        return
    if importer.wanted is None:
        raise InputError(f"{path}: expected JSON or JSON Lines of {importer.title}, got Parquet")
    with parquet(str(path), path) as file:
        refuse_other(str(path), file.schema_arrow.names, importer.signs, importer.title)
        if importer.check is not None:
            importer.check(str(path), file.schema_arrow)


class Found(NamedTuple):
    """A record of a file, or the reason why it is invalid.

    Attributes:
        place: number of its line, or else of the record, from 1.
        record: the record, or the reason.
        raw: what stands there, where the record is invalid or is a line.
    """

    place: int
    record: dict[str, Any] | str
    raw: Any = None


class _Source(NamedTuple):
    records: Iterator[Found]
    ticks: Mapping[str, int]


def _source(path: Path, importer: Importer) -> _Source:
    if suffix(path) != ".parquet":
        return _Source(_unpacked(_of_format(_json(path), path, importer), importer), {})
    with parquet(str(path), path) as file:
        schema = file.schema_arrow
    assert importer.wanted is not None
    return _Source(_unpacked(_rows_of(path, importer.wanted), importer), _ticks(schema))


def _ticks(fields: pa.Schema | pa.StructType, before: str = "") -> dict[str, int]:
    """Ticks per second of all timestamps in a schema, by their names with dots."""
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
            refuse_other(str(path), found.record, importer.signs, importer.title, importer.unpack)
            known = True
        yield found


def _unpacked(records: Iterator[Found], importer: Importer) -> Iterator[Found]:
    for found in records:
        if isinstance(found.record, str):
            yield found
            continue
        try:
            for part in importer.unpack(found.record):
                is_record = isinstance(part, dict)
                yield Found(found.place, part if is_record else NOT_JSON, part)
        except SetAside as reason:
            yield Found(found.place, str(reason), found.record)
        except RecursionError:
            yield Found(found.place, NESTED, found.record)


def _json(path: Path) -> Iterator[Found]:
    """The objects of a file of JSON, whatever it is called: one a line, or all as one text.

    A file is JSON Lines where its first line is an object. Others are read whole; where that
    cannot be, and the second line or the name of the file says JSON Lines, the first is damaged.
    """
    head = [line is not None and isinstance(_parsed(line), dict) for line in _first_lines(path)]
    if not any(head[:1]):
        try:
            values = _values(path)
        except InputError:
            if not any(head) and suffix(path) not in JSON_LINES:
                raise
        else:
            for place, record in enumerate(values, 1):
                is_record = isinstance(record, dict)
                yield Found(place, record if is_record else NOT_JSON, record)
            return
    yield from json_lines(path)


def _first_lines(path: Path) -> list[bytes | None]:
    return [line for _, line in islice(lines(path), 2)]


def _values(path: Path) -> list[Any]:
    """The elements of an array, or JSON texts one after another, of a file as a whole."""
    with _opened(path) as (_, file):
        content = file.read(MOST_BYTES_OF_ARRAY + 1)
    if len(content) > MOST_BYTES_OF_ARRAY:
        raise InputError(
            f"{path}: expected JSON Lines, or at most {MOST_BYTES_OF_ARRAY:,} bytes of other JSON, "
            "got more; convert it to JSON Lines, which is read line by line: jq -c '.[]'"
        )
    try:
        said = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected UTF-8, got something else") from None
    del content
    found = []
    place = 0
    try:
        while (place := _start(said, place)) < len(said):
            value, place = DECODER.raw_decode(said, place)
            found += value if isinstance(value, list) else [value]
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: expected JSON, got something else in line {error.lineno}"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: expected JSON, got something else") from None
    return found


def _start(said: str, place: int) -> int:
    blank = SPACE.match(said, place)
    return place if blank is None else blank.end()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Any]]:
    """A file as it is stored, and as it is read: unpacked where it is a gzip file.

    Raises:
        InputError: where a gzip file is damaged.
    """
    packed = path.suffix == ".gz"
    with open(path, "rb") as raw:
        try:
            yield raw, gzip.GzipFile(fileobj=raw) if packed else raw
        except (EOFError, OSError, zlib.error) as error:
            if not packed:
                raise
            raise InputError(
                f"{path}: expected a gzip file that can be read, got a damaged one; get it again"
            ) from error


def lines(path: Path, blank: bool = False) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file with their numbers, from 1; None for a line that is too long.

    Gzip files are unpacked as they are read. Blank lines come only with ``blank``.

    Raises:
        InputError: for a gzip file that is damaged, or that becomes far too large.
    """
    packed = path.suffix == ".gz"
    number = 0
    with _opened(path) as (raw, file):
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


def json_lines(path: Path) -> Iterator[Found]:
    """The objects of a file of JSON Lines; raises as :func:`lines` does."""
    for number, line in lines(path):
        if line is None:
            yield Found(number, LONG_RECORD)
        else:
            yield Found(number, _parsed(line), line)


def _check_expansion(path: Path, raw: IO[bytes], file: Any) -> None:
    """Refuses a gzip bomb: a small file that becomes a very large one."""
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
        # Moderation scores and headers are a large part of the file, and are not read.
        # Nor are columns without any value: inside of lists Arrow makes invalid ones of them.
        columns = [file.schema.column(i) for i in range(len(file.schema))]
        wanted = [
            column.path
            for column in columns
            if is_wanted(column.path) and column.logical_type.type != "UNKNOWN"
        ]
        batches = file.iter_batches(RECORDS, columns=wanted)
        for batch in batches:
            columns = [(name, _timeless(batch.column(name))) for name in batch.schema.names]
            for i in range(len(batch)):
                place += 1
                yield Found(place, _record(columns, i))


def _timeless(column: pa.Array) -> pa.Array:
    """The column with whole numbers for times: Arrow can hold times that Python cannot."""
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
            # Check the size before Python objects are made, which take many times as much memory.
            inner = cell.values
            if len(inner) > MOST_MESSAGES or inner.nbytes > MOST_BYTES_OF_RECORD:
                return LONG_RECORD
        try:
            record[name] = cell.as_py()
        except UnicodeDecodeError:
            return NOT_UTF8
    return record

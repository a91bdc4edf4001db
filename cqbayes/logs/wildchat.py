"""WildChat: conversations of many users with GPT-3.5 and GPT-4, one row a turn of a user.

The format is that of ``allenai/WildChat-1M``: Parquet, or JSON Lines with the same names. What is
read, and nothing else:

======================  ============================================================================
``conversation_hash``   string
``model``               string: the one LLM that answered all of the conversation
``conversation``        list of structs: ``role`` (``user`` or ``assistant``), ``content`` and,
                        where there, ``turn_identifier``, ``hashed_ip``, ``language``, ``timestamp``
``timestamp``           where there: of the conversation's last turn, UTC
``language``            where there: of the conversation
``hashed_ip``           where there: of the conversation's user
======================  ============================================================================

**WildChat labels no retrials.** The one explicit sign of asking again that the format has is a user
who sends the same text as before: ``repeated``. Users who ask again in other words, or in a new
conversation, do not show, and ``repeated`` does not mean that the answer was bad. Nor does the
format tell a request that a program sent again after an error from a user who asked again; a turn
without any answer (``response_chars`` null) before a repeated one is a hint at the former, no more.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cqbayes.answers import check_columns, parquet
from cqbayes.errors import InputError

SCHEMA = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("model", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("response_chars", pa.int64()),
        pa.field("language", pa.string()),
        pa.field("repeated", pa.bool_(), nullable=False),
    ]
)

NEEDED = ("conversation_hash", "model", "conversation")
OPTIONAL = ("timestamp", "language", "hashed_ip")
NEEDED_OF_MESSAGES = ("role", "content")
OPTIONAL_OF_MESSAGES = ("turn_identifier", *OPTIONAL)

# What bounds the memory, whatever is in the file.
MOST_BYTES = 1_000_000  # of a message
MOST_BYTES_OF_NAME = 256  # of what is repeated in every row: hashes, names, languages
MOST_BYTES_OF_RECORD = 16_000_000  # as it stands in the file
MOST_MESSAGES = 10_000  # of a conversation
MOST_CHARS = 16_000_000  # of text in a batch, but for its last conversation
RECORDS = 64  # of a Parquet file that are decoded at a time
BUFFER = 1 << 20  # bytes of a Parquet column that are read at a time

# Why conversations are set aside.
NOT_JSON = "not a JSON object"
NOT_UTF8 = "not UTF-8"
LONG_RECORD = f"over {MOST_BYTES_OF_RECORD:,} bytes or {MOST_MESSAGES:,} messages"
LONG_CELL = f"a message over {MOST_BYTES:,} bytes, or a name over {MOST_BYTES_OF_NAME}"
NO_HASH = "no conversation_hash"
NO_MODEL = "no model"
NO_CONVERSATION = "no conversation, or an empty one"
NO_USER = "no turn of a user"
NO_MESSAGE = "a message without content, or of another role than user and assistant"
NO_TIMESTAMP = "a timestamp that is none"
NO_STRING = "a language or hashed_ip that is no string"
NO_IDENTIFIER = "a turn_identifier that is neither a whole number nor a string"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # a second


class Report(NamedTuple):
    """What became of the conversations that were read so far.

    Attributes:
        read: how many; always ``kept`` plus all of ``set_aside``.
        kept: how many have all their turns in the batches, or in the one that is being filled.
        set_aside: how many were not, by the reason; the first that was found.
    """

    read: int
    kept: int
    set_aside: dict[str, int]


class Turns(Iterator[pa.RecordBatch]):
    """Batches of turns in ``SCHEMA``, read as they are asked for; see :func:`turns`."""

    def __init__(self, paths: Sequence[Path], rows: int) -> None:
        self._read = 0
        self._kept = 0
        self._set_aside: Counter[str] = Counter()
        self._batches = self._stream(paths, rows)

    def __next__(self) -> pa.RecordBatch:
        return next(self._batches)

    @property
    def report(self) -> Report:
        """Counts of what was read so far: of everything once the batches are used up."""
        return Report(self._read, self._kept, dict(self._set_aside))

    def _stream(self, paths: Sequence[Path], rows: int) -> Iterator[pa.RecordBatch]:
        waiting: list[dict[str, Any]] = []
        chars = 0
        for path in paths:
            source = _source(path)
            for record in source.records:
                found = _turns_of(record, source.ticks) if isinstance(record, dict) else record
                self._read += 1
                if isinstance(found, str):
                    self._set_aside[found] += 1
                    continue
                self._kept += 1
                waiting += found
                chars += sum(len(row["text"]) for row in found)
                if len(waiting) >= rows or chars >= MOST_CHARS:
                    yield pa.RecordBatch.from_pylist(waiting, SCHEMA)
                    waiting, chars = [], 0
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, SCHEMA)


def turns(path: str | Path | Sequence[str | Path], *, rows: int = 10_000) -> Turns:
    """Turns of users, batch by batch; a conversation is never in two batches.

    ==================  ============================================================================
    ``session_id``      ``conversation_hash``, and after a ``/`` the ``turn_identifier`` of the
                        first message, if any: conversations of the same content share a hash
    ``turn``            0, 1, ... over the user's messages of the conversation, as they stand there
    ``user_id``         ``hashed_ip`` of the message, or else of the conversation
    ``timestamp``       of the message, or else of its answer, when that was complete (official
                        files have no other), or else, for the last turn, of the conversation; UTC
    ``model``           the LLM
    ``text``            what the user wrote; may be empty
    ``response_chars``  characters of the answer; null where there is none before the next turn
    ``language``        of the message, or else of the conversation
    ``repeated``        whether the text is that of the turn before, white space folded
    ==================  ============================================================================

    What comes from nothing is null. A conversation that is not as it should be is set aside with
    all its turns, since the others would look as if they followed one another, and is counted in
    :attr:`Turns.report`. A time without a zone is UTC; in JSON, a whole number is milliseconds
    since 1970, which is what pandas writes. Memory is bounded: a batch, and of the file one line,
    or 64 conversations and the Parquet pages that they stand in.

    Args:
        path: a file ``.parquet`` or ``.jsonl``, a folder of such files, or several files.
        rows: how many a batch has at least; only the last, or one of very long texts, has fewer.

    Raises:
        InputError: at once, for what cannot be read, is of another format, or lacks a column; and
            while reading, for a Parquet file that is damaged.

    Example:
        >>> import pathlib, tempfile
        >>> said = [{"role": "user", "content": "Why?"}, {"role": "user", "content": "Why? "}]
        >>> record = {"conversation_hash": "a", "model": "gpt-4", "conversation": said}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "log.jsonl"
        ...     _ = path.write_text(json.dumps(record))
        ...     stream = turns(path)
        ...     [batch["repeated"].to_pylist() for batch in stream]
        [[False, True]]
        >>> stream.report
        Report(read=1, kept=1, set_aside={})

    Reference:
        Zhao et al., *WildChat: 1M ChatGPT Interaction Logs in the Wild*, ICLR 2024,
        arXiv:2405.01470.
    """
    if rows < 1:
        raise InputError(f"rows: expected at least 1, got {rows}")
    paths = _files(path)
    for one in paths:
        _check(one)
    return Turns(paths, rows)


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(one) for one in path]
    if not Path(path).is_dir():
        return [Path(path)]
    found = sorted(one for one in Path(path).iterdir() if one.suffix in (".parquet", ".jsonl"))
    if not found:
        raise InputError(f"{path}: expected files .parquet or .jsonl, got none")
    return found


def _check(path: Path) -> None:
    """Refuses a file that no conversation can be read from, before anything is read."""
    if path.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"{path}: expected a file .parquet or .jsonl, got {path.suffix!r}")
    if path.suffix == ".jsonl":
        try:
            path.open("rb").close()
        except OSError as error:
            reason = error.strerror or "not readable"
            raise InputError(f"{path}: expected a readable file, got: {reason}") from None
        return
    with parquet(str(path), path) as file:
        schema = file.schema_arrow
    check_columns(str(path), schema.names, NEEDED)
    kind = schema.field("conversation").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type):
        raise InputError(f"{path}: expected a list of structs in conversation, got {kind}")
    inner = [kind.value_type.field(i).name for i in range(kind.value_type.num_fields)]
    check_columns(f"{path}: structs in conversation", inner, NEEDED_OF_MESSAGES)


# From files to records: dictionaries as they stand in the file, or why there is none.


class _Source(NamedTuple):
    """Records of a file, and how many ticks a second has in whole numbers that are times: in
    those of conversations, and in those of messages."""

    records: Iterator[dict[str, Any] | str]
    ticks: tuple[int, int]


def _source(path: Path) -> _Source:
    if path.suffix == ".jsonl":
        return _Source(_lines(path), (TICKS["ms"], TICKS["ms"]))
    with parquet(str(path), path) as file:
        schema = file.schema_arrow
    message = schema.field("conversation").type.value_type
    return _Source(_rows_of(path), (_ticks(schema), _ticks(message)))


def _ticks(fields: pa.Schema | pa.StructType) -> int:
    place = fields.get_field_index("timestamp")
    unit = getattr(fields.field(place).type, "unit", "s") if place >= 0 else "s"
    return TICKS[unit]


def _lines(path: Path) -> Iterator[dict[str, Any] | str]:
    with open(path, "rb") as file:
        while line := file.readline(MOST_BYTES_OF_RECORD + 1):
            if len(line) > MOST_BYTES_OF_RECORD:
                while line and not line.endswith(b"\n"):
                    line = file.readline(BUFFER)
                yield LONG_RECORD
            elif line.strip():
                yield _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | str:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, RecursionError):
        return NOT_JSON
    return record if isinstance(record, dict) else NOT_JSON


def _rows_of(path: Path) -> Iterator[dict[str, Any] | str]:
    with parquet(str(path), path, buffer_size=BUFFER) as file:
        # Moderation scores and headers are a good part of the file, and stay there.
        wanted = [
            column
            for column in (file.schema.column(i).path for i in range(len(file.schema)))
            if _is_wanted(column.split("."))
        ]
        batches = file.iter_batches(RECORDS, columns=wanted)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError):
                raise InputError(
                    f"{path}: expected a Parquet file that can be read, it is damaged; get it again"
                ) from None
            if batch is None:
                return
            columns = [(name, _timeless(batch.column(name))) for name in batch.schema.names]
            for i in range(len(batch)):
                yield _record(columns, i)


def _is_wanted(place: list[str]) -> bool:
    outer, inner = place[0], place[-1]
    if outer == "conversation":
        return inner in (*NEEDED_OF_MESSAGES, *OPTIONAL_OF_MESSAGES)
    return len(place) == 1 and outer in (*NEEDED, *OPTIONAL)


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
        if name == "conversation" and cell.is_valid:
            # Before it becomes objects of Python, which take many times as much.
            messages = cell.values
            if len(messages) > MOST_MESSAGES or messages.nbytes > MOST_BYTES_OF_RECORD:
                return LONG_RECORD
        try:
            record[name] = cell.as_py()
        except UnicodeDecodeError:
            return NOT_UTF8
    return record


# From records to turns.


class _SetAside(Exception):
    """Its text is one of the reasons, and nothing from the file."""


def _turns_of(record: Mapping[str, Any], ticks: tuple[int, int]) -> list[dict[str, Any]] | str:
    """Rows of ``SCHEMA``, or why the record is set aside."""
    try:
        return _rows(record, ticks)
    except _SetAside as reason:
        return str(reason)


def _rows(record: Mapping[str, Any], ticks: tuple[int, int]) -> list[dict[str, Any]]:
    conversation = _name(record, "conversation_hash", NO_HASH)
    model = _name(record, "model", NO_MODEL)
    address, language = _optional(record, "hashed_ip"), _optional(record, "language")
    last = _moment(record.get("timestamp"), ticks[0])
    messages = record.get("conversation")
    if not isinstance(messages, list) or not messages:
        raise _SetAside(NO_CONVERSATION)
    if len(messages) > MOST_MESSAGES:
        raise _SetAside(LONG_RECORD)
    session = conversation + _identifier(messages[0])
    rows: list[dict[str, Any]] = []
    before = None
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            raise _SetAside(NO_MESSAGE)
        content = _text(message.get("content"), MOST_BYTES, NO_MESSAGE)
        moment = _moment(message.get("timestamp"), ticks[1])
        if message["role"] == "user":
            folded = " ".join(content.split())
            rows.append(
                {
                    "session_id": session,
                    "turn": len(rows),
                    "user_id": _optional(message, "hashed_ip") or address,
                    "timestamp": moment,
                    "model": model,
                    "text": content,
                    "response_chars": None,
                    "language": _optional(message, "language") or language,
                    "repeated": folded == before,
                }
            )
            before = folded
        elif rows:  # what is said before the user has said anything answers nothing
            row = rows[-1]
            row["response_chars"] = (row["response_chars"] or 0) + len(content)
            row["timestamp"] = row["timestamp"] or moment
    if not rows:
        raise _SetAside(NO_USER)
    rows[-1]["timestamp"] = rows[-1]["timestamp"] or last
    return rows


def _identifier(message: Any) -> str:
    value = message.get("turn_identifier") if isinstance(message, Mapping) else None
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return "/" + _text(value, MOST_BYTES_OF_NAME, NO_IDENTIFIER)


def _text(value: Any, most: int, reason: str) -> str:
    if not isinstance(value, str):
        raise _SetAside(reason)
    try:
        # JSON can hold unpaired surrogates, which have no encoding.
        size = len(value.encode()) if len(value) <= most else len(value)
    except UnicodeEncodeError:
        raise _SetAside(NOT_UTF8) from None
    if size > most:
        raise _SetAside(LONG_CELL)
    return value


def _name(record: Mapping[str, Any], key: str, reason: str) -> str:
    return _text(record.get(key) or None, MOST_BYTES_OF_NAME, reason)


def _optional(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return None if value is None else _text(value, MOST_BYTES_OF_NAME, NO_STRING)


def _moment(value: Any, ticks: int) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        if isinstance(value, int) and not isinstance(value, bool):
            return EPOCH + timedelta(microseconds=value * 1_000_000 // ticks)
    except (ValueError, OverflowError):
        pass
    raise _SetAside(NO_TIMESTAMP)

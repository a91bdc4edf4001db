"""The interface of a log format, one file with an ``IMPORTER``, and helpers for cells."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from cqbayes._tools import discovery

# Limits that bound the memory, whatever is in the file.
MOST_BYTES = 1_000_000  # of a message


MOST_BYTES_OF_NAME = 256  # of what is repeated in every row: hashes, names, languages


MOST_BYTES_OF_RECORD = 16_000_000  # as it stands in the file


MOST_MESSAGES = 10_000  # of a conversation


# Why records are set aside, in all formats.
NOT_JSON = "not a JSON object"


NOT_UTF8 = "not UTF-8"


LONG_RECORD = f"over {MOST_BYTES_OF_RECORD:,} bytes or {MOST_MESSAGES:,} messages"


LONG_CELL = f"a message over {MOST_BYTES:,} bytes, or a name over {MOST_BYTES_OF_NAME}"


NO_TIMESTAMP = "no valid timestamp"


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # per second


Record = Mapping[str, Any]


class SetAside(Exception):
    """Raised to set a record aside. Its text is one of the reasons, and nothing from the file."""


class Request(NamedTuple):
    """What a log says of one request to an LLM, and no more: a row of ``REQUESTS``.

    Digests are of :func:`cqbayes.logs.formats.messages.digest`. They stand for what is not kept: a
    conversation is sent again with every request of it.

    Attributes:
        kind: ``request``; ``span``, a record that is no request to an LLM and says where others
            belong; ``score``, an opinion of the record ``id``, or else of the ``trace``.
        id: of the record.
        trace: of one run of a program; never a conversation's.
        parent: id of the record in which this one happened.
        session: what a client or a tool calls the session, or the conversation that the record is.
        user: the person who asked.
        owner: who owns the key or the application, which is no user.
        start, end: when the request was sent, and when its answer was complete.
        place: 0, 1, ... where the file itself states the order of a session's requests.
        llm: the LLM that answered.
        call: kind of the call, as the log names it; None where it is not named.
        marks: tags, names and tasks that say what the request is for.
        attempts: how often the gateway had tried before.
        failed: whether there was no answer, because of an error.
        feedback: what the user said of the answer: -1 bad, 1 good.
        accepted: whether the user copied, merged or otherwise took the answer.
        latency: seconds.
        cost: dollars.
        language: of the text.
        response_chars: characters of the answer.
        answer: digest of the answer, as the same message would have in a later request.
        turn: messages of the user before the last one in the array of messages.
        text: the user's last message in words; None where it has none.
        message: digest of that message, of all that is in it; None where it is empty, or where no
            message of a user is there.
        before: digest of the user's message before that one.
        opening: digest of the user's first message.
        asked: digest of all messages of the user before the last one, chained; None for none.
        history: digest of all messages of user and assistant before the user's last, chained;
            None for none.
        system: digest of the system's messages.
        after: messages of assistants and tools after the user's last one, but for empty ones.
        tools: whether any of those is the result of a tool.
    """

    kind: str = "request"
    id: str | None = None
    trace: str | None = None
    parent: str | None = None
    session: str | None = None
    user: str | None = None
    owner: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    place: int | None = None
    llm: str | None = None
    call: str | None = None
    marks: tuple[str, ...] = ()
    attempts: int | None = None
    failed: bool | None = None
    feedback: float | None = None
    accepted: bool | None = None
    latency: float | None = None
    cost: float | None = None
    language: str | None = None
    response_chars: int | None = None
    answer: str | None = None
    turn: int | None = None
    text: str | None = None
    message: str | None = None
    before: str | None = None
    opening: str | None = None
    asked: str | None = None
    history: str | None = None
    system: str | None = None
    after: int | None = None
    tools: bool | None = None


def _itself(record: Record) -> Iterable[Any]:
    return (record,)


class Importer(NamedTuple):
    """A log format.

    Attributes:
        title: name of the format for users.
        requests: ``(record, ticks) -> requests``, at least one; raises :class:`SetAside`.
            ``ticks`` gives the ticks per second of times that are whole numbers, by the field's
            name with dots; for other fields the importer must know them.
        transport: how the format distinguishes a request that a program sent again after an error
            from a user who asked again, or that it does not.
        unpack: ``record -> records``, where one line of JSON holds several.
        wanted: whether a column of Parquet is read, by its name with dots; None where the format
            is not known in Parquet.
        check: refuses a Parquet file by its name and schema.
        signs: sets of field names; a record of the format has all fields of one set.
    """

    title: str
    requests: Callable[[Record, Mapping[str, int]], list[Request]]
    transport: str
    unpack: Callable[[Record], Iterable[Any]] = _itself
    wanted: Callable[[str], bool] | None = None
    check: Callable[[str, pa.Schema], None] | None = None
    signs: tuple[tuple[str, ...], ...] = ()


def text(value: Any, most: int, reason: str) -> str:
    """A string of at most ``most`` bytes; other values set the record aside for ``reason``."""
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
    """A short string, which the record must have."""
    return text(record.get(key) or None, MOST_BYTES_OF_NAME, reason)


def optional_name(record: Record, key: str, reason: str) -> str | None:
    """A short string, or null."""
    value = record.get(key)
    return None if value is None else text(value, MOST_BYTES_OF_NAME, reason)


def moment(value: Any, ticks: int) -> datetime | None:
    """A time in UTC, from ISO 8601 (UTC if without a zone) or from whole ticks since 1970."""
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
    """A text with its white space folded, to recognise a repeated text."""
    return " ".join(value.split())


def importer_names() -> list[str]:
    """Names of the log formats: files of ``logs/formats/`` that have an ``IMPORTER``."""
    return discovery.entry_names("logs.formats", "IMPORTER")


def load_importer(name: str) -> Importer:
    """The ``IMPORTER`` of ``logs/formats/<name>.py``.

    Raises:
        InputError: for an unknown format; lists the known ones.
    """
    return discovery.find_entry("logs.formats", "log format", name, "IMPORTER").IMPORTER

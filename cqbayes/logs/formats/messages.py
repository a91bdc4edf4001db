"""Arrays of messages, as in requests to LLMs, and the user's turn that they hold.

A message is an object with a ``role`` and a ``content``: a string, null, or a list of parts. Parts
of text are read (``type`` is ``text``, ``input_text`` or ``output_text``; the text stands in
``text``, or in ``content``); images, sounds and files are not. OpenTelemetry calls the list
``parts``. A message of role ``user`` with results of tools and without text is from a program.

References:
    OpenAI's reference of chat completions (``messages``) and of responses (``input``);
    OpenTelemetry, ``docs/gen-ai/gen-ai-input-messages.json``.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import (
    EPOCH,
    LONG_RECORD,
    MOST_BYTES,
    MOST_BYTES_OF_NAME,
    MOST_MESSAGES,
    NO_TIMESTAMP,
    SetAside,
    folded,
    moment,
    text,
)

TEXTS = ("text", "input_text", "output_text")
TOOL_ROLES = ("tool", "function")
RESULTS = ("tool_result", "tool_call_response", "function_call_output")
# Names of scores that users give; scores with other names are from judges or metrics.
FEEDBACK = ("user_feedback", "user_explicit_feedback", "user_rating", "feedback", "thumbs")
ACCEPTED = ("accepted", "copied", "merged")
GOOD = ("1", "true", "yes", "good", "positive", "up", "thumbs_up", "like", "accepted")
BAD = ("-1", "0", "false", "no", "bad", "negative", "down", "thumbs_down", "dislike", "rejected")

# Why records are set aside.
NO_MESSAGES = "no messages, or other things among them"
NO_USER = "no message of a user"
NO_NUMBER = "a cost, latency or count that is no number, or below zero"
NO_NAME = "an identifier that is neither a string nor a whole number"

Message = Mapping[str, Any]


class Request(NamedTuple):
    """The turn of a user that one request is.

    Attributes:
        turn: number of messages of the user before the last one.
        text: the user's last message.
        opening: the user's first message.
        repeated: whether the last message equals the user's message before, white space folded.
    """

    turn: int
    text: str
    opening: str
    repeated: bool


def messages(value: Any) -> Sequence[Message]:
    """The messages of a value: an array, a text, or an object that holds them."""
    if isinstance(value, Mapping):
        value = value.get("messages", [value] if "role" in value else None)
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    if not isinstance(value, list) or not value:
        raise SetAside(NO_MESSAGES)
    if len(value) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    if not all(isinstance(one, Mapping) and ("role" in one or "type" in one) for one in value):
        raise SetAside(NO_MESSAGES)
    return value


def request(value: Any) -> Request | None:
    """The user's turn in a request with these messages; None where the request is a program's.

    A request whose array goes on with results of tools after the last message of a user is a step
    of the program: the user has not asked again.

    Example:
        >>> asked = [{"role": "user", "content": word} for word in ("Why?", "Why? ")]
        >>> request(asked)
        Request(turn=1, text='Why? ', opening='Why?', repeated=True)
        >>> request([*asked, {"role": "tool", "content": "42"}]) is None
        True
    """
    array = messages(value)
    places = [i for i, message in enumerate(array) if of_user(message)]
    if not places:
        raise SetAside(NO_USER)
    if any(_has_result(message) for message in array[places[-1] + 1 :]):
        return None
    last = text(written(array[places[-1]]), MOST_BYTES, NO_MESSAGES)
    before = written(array[places[-2]]) if len(places) > 1 else None
    return Request(
        turn=len(places) - 1,
        text=last,
        opening=written(array[places[0]]),
        repeated=before is not None and folded(before) == folded(last),
    )


def conversation(
    value: Any, of_message: Callable[[Message], dict[str, Any]] = lambda _: {}
) -> list[dict[str, Any]]:
    """Rows for all turns in the messages of a whole conversation, with answers.

    Args:
        value: the messages.
        of_message: further columns of a row, from its message.
    """
    rows: list[dict[str, Any]] = []
    before = None
    for message in messages(value):
        said = written(message)
        if of_user(message):
            now = folded(said)
            row = {
                "turn": len(rows),
                "text": text(said, MOST_BYTES, NO_MESSAGES),
                "response_chars": None,
                "repeated": now == before,
            }
            rows.append({**row, **of_message(message)})
            before = now
        elif message.get("role") == "assistant" and rows:
            rows[-1]["response_chars"] = (rows[-1]["response_chars"] or 0) + len(said)
    if not rows:
        raise SetAside(NO_USER)
    return rows


def of_user(message: Message) -> bool:
    """Whether a user wrote a message."""
    return message.get("role") == "user" and not _has_result(message)


def written(message: Message) -> str:
    """The text of a message; empty where there is none."""
    content = _content(message)
    if content is None:
        content = message.get("refusal")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise SetAside(NO_MESSAGES)
    return "\n".join(found for part in content if (found := _text_of(part)) is not None)


def _content(message: Message) -> Any:
    found = message.get("content")
    return message.get("parts") if found is None else found


def _text_of(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise SetAside(NO_MESSAGES)
    if part.get("type") not in TEXTS:
        return None
    found = part.get("content") if part.get("text") is None else part["text"]
    if not isinstance(found, str):
        raise SetAside(NO_MESSAGES)
    return found


def _has_result(message: Message) -> bool:
    if message.get("role") in TOOL_ROLES or message.get("type") in RESULTS:
        return True
    content = _content(message)
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, Mapping)]
    return any(kind in RESULTS for kind in kinds) and not any(kind in TEXTS for kind in kinds)


def answer_chars(value: Any) -> int | None:
    """Characters of an answer in any of the shapes that APIs give; None in other shapes.

    These are a string, a message, a list of messages, and the responses of chat completions and
    completions (the first of ``choices``), of the responses API (``output``) and of Anthropic
    (``content``).
    """
    try:
        return _answer_chars(value)
    except SetAside:
        return None


def _answer_chars(value: Any) -> int | None:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            first = choices[0]
            said = first.get("message")
            return _chars(said if isinstance(said, Mapping) else {"content": first.get("text")})
        output = value.get("output")
        value = output if isinstance(output, list) else [value]
    if not isinstance(value, list):
        return None
    sizes = [_chars(one) for one in value if isinstance(one, Mapping)]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _chars(message: Message) -> int | None:
    """Characters of a message; None where it has no place for any."""
    is_one = any(message.get(key) is not None for key in ("content", "parts", "refusal"))
    is_call = "role" in message  # of a tool: the answer is there, and without text
    return len(written(message)) if is_one or is_call else None


def unquoted(value: Any, keys: Sequence[str] = ("role", "messages")) -> Any:
    """Messages out of a string of JSON; a value without any of the keys stays as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    objects = found if isinstance(found, list) else [found]
    is_known = any(isinstance(one, Mapping) and any(key in one for key in keys) for one in objects)
    return found if is_known else value


def unquoted_answer(value: Any) -> Any:
    """An answer out of a string of JSON, which may be a whole response."""
    return unquoted(value, ("role", "choices"))


def digest(*parts: Any) -> str:
    """A name for a session that has none: 32 hexadecimal digits of what its requests share."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def check_messages(where: str, schema: pa.Schema, column: str) -> None:
    """Refuses a column that does not hold messages.

    Raises:
        InputError: names the column and what it is.
    """
    kind = schema.field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type):
        raise InputError(f"{where}: expected a list of structs in {column}, got {kind}")
    names = [kind.value_type.field(i).name for i in range(kind.value_type.num_fields)]
    check_columns(f"{where}: structs in {column}", names, ("role", "content"))


# Helpers of importers for other cells.


def inner(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in a record; empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def identifier(*values: Any) -> str | None:
    """The first value that is present, as a short string; None where there is none."""
    for value in values:
        if value is None or value == "":
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return text(value, MOST_BYTES_OF_NAME, NO_NAME)
    return None


def number(*values: Any) -> float | None:
    """The first number that is present, finite and not below zero; None where there is none."""
    for value in values:
        if value is None:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                found = float(value)
            except OverflowError:
                raise SetAside(NO_NUMBER) from None
            if math.isfinite(found) and found >= 0:
                return found
        raise SetAside(NO_NUMBER)
    return None


def count(value: Any, most: int) -> int | None:
    """A whole number from 0 to ``most``; None where there is none."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise SetAside(NO_NUMBER)


def when(value: Any) -> datetime | None:
    """A time in UTC, from ISO 8601 or from seconds since 1970, also with a fraction."""
    if isinstance(value, float):
        try:
            return EPOCH + timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise SetAside(NO_TIMESTAMP) from None
    return moment(value, 1)


def elapsed(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds between two times; None where one is not known, or they are not in order."""
    if start is None or end is None or end < start:
        return None
    return (end - start).total_seconds()


def opinion(name: Any, value: Any) -> dict[str, Any]:
    """``feedback`` or ``accepted``, from a score that a user gave; nothing from any other score.

    Of numbers only -1, 0 and 1 are read, where 0 is bad: no scale says what 3 is.

    Example:
        >>> opinion("user-feedback", 0), opinion("copied", True), opinion("faithfulness", 1)
        ({'feedback': -1.0}, {'accepted': True}, {})
    """
    if not isinstance(name, str):
        return {}
    plain = name.lower().replace("-", "_").replace(" ", "_")
    good = _good(value)
    if good is None:
        return {}
    if plain in FEEDBACK:
        return {"feedback": 1.0 if good else -1.0}
    return {"accepted": good} if plain in ACCEPTED else {}


def _good(value: Any) -> bool | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    plain = str(value).lower() if isinstance(value, bool | int | str) else ""
    return True if plain in GOOD else False if plain in BAD else None

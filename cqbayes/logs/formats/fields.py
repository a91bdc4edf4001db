"""Fields of records besides messages: identifiers, marks, numbers, times and opinions.

What is not recognised is absent; what cannot be meant sets the record aside.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from cqbayes.logs.formats.importer import (
    EPOCH,
    MOST_BYTES_OF_NAME,
    NO_TIMESTAMP,
    SetAside,
    moment,
    text,
)

MOST_MARKS = 50  # in a list
# Names of scores that users give; scores with other names are from judges or metrics.
FEEDBACK = ("user_feedback", "user_explicit_feedback", "user_rating", "feedback", "thumbs")
ACCEPTED = ("accepted", "copied", "merged")
GOOD = ("1", "true", "yes", "good", "positive", "up", "thumbs_up", "like", "accepted", "👍")
BAD = (
    "-1",
    "0",
    "false",
    "no",
    "bad",
    "negative",
    "down",
    "thumbs_down",
    "dislike",
    "rejected",
    "👎",
)

# Why records are set aside.
NO_NUMBER = "a cost, latency or count that is no number, or below zero"
NO_NAME = "an identifier that is neither a string nor a whole number"


def inner(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in a record, also as JSON in a text; empty where there is none."""
    value = opened(record.get(key))
    return value if isinstance(value, Mapping) else {}


def opened(value: Any) -> Any:
    """What a text holds as JSON, where that is an object or an array; or else the value itself."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


WRITTEN_NULLS = ("None", "null", "undefined")  # what programs write for an absent name


def identifier(*values: Any) -> str | None:
    """The first value that is present, as a short string; None where there is none."""
    for value in values:
        if value is None or value == "" or value in WRITTEN_NULLS:
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return text(value, MOST_BYTES_OF_NAME, NO_NAME)
    return None


def mentioned(holders: Iterable[Mapping[str, Any]], names: Iterable[str]) -> str | None:
    """The first short string or whole number that one of several objects has under some name.

    Example:
        >>> mentioned([{"session_id": ["a"]}, {"chat_id": 7}], ("session_id", "chat_id"))
        '7'
    """
    for holder in holders:
        for name in names:
            found = short(holder.get(name))
            if found is not None:
                return found
    return None


def short(value: Any) -> str | None:
    """A string that is neither empty nor long, or a whole number as one; None for all else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_BYTES_OF_NAME:
        return None
    if value in WRITTEN_NULLS:
        return None
    try:
        return value if len(value.encode()) <= MOST_BYTES_OF_NAME else None
    except UnicodeEncodeError:
        return None


def marks(*values: Any) -> tuple[str, ...]:
    """Short strings, and those in lists, without repetitions.

    Example:
        >>> marks("chat", ["title", "chat", 7], None, '["tag"]')
        ('chat', 'title', 'tag')
    """
    found: dict[str, None] = {}
    for value in map(opened, values):
        several = value if isinstance(value, list) else [value]
        for one in several[:MOST_MARKS]:
            if isinstance(one, str) and short(one) is not None:
                found[one] = None
    return tuple(found)


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
        >>> opinion("user-feedback", 0), opinion("Thumbs", "thumbs-up"), opinion("copied", True)
        ({'feedback': -1.0}, {'feedback': 1.0}, {'accepted': True})
        >>> opinion("faithfulness", 1), opinion("user-feedback", 4)
        ({}, {})
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
    words = (plain, plain.replace("-", "_").replace(" ", "_"))
    if any(word in GOOD for word in words):
        return True
    return False if any(word in BAD for word in words) else None

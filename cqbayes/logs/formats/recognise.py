"""Which log format a record looks like, by the names of its fields.

This prevents that a file is read as another format with some of the same fields: a payload of
LiteLLM has an array of messages, but is not a whole conversation.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import SetAside, importer_names, load_importer

Signs = tuple[tuple[str, ...], ...]
Unpack = Callable[[Mapping[str, Any]], Iterable[Any]]

SURE = 2  # with so many fields, no other format is considered
SERVICES_FORMAT = "services"
OF_SERVICES: Signs = (("query_id", "attempt", "offered"),)


def strength(fields: Collection[str], signs: Signs) -> int:
    """Number of fields of the longest sign that is fully present; 0 where none is.

    Example:
        >>> strength({"messages": 1, "call_type": 2}, (("messages",), ("messages", "response")))
        1
    """
    return max((len(sign) for sign in signs if all(n in fields for n in sign)), default=0)


def refuse_other(
    where: str,
    fields: Collection[str],
    signs: Signs,
    expected: str,
    unpack: Unpack = lambda record: (record,),
) -> None:
    """Refuses a record that looks more like another format than like the one expected.

    Args:
        where: the file.
        fields: names of the file's columns, or a record, of which also the first part is looked
            at: of a page, say.
        signs: of the format that is expected.
        expected: its title.
        unpack: how it takes a record apart.

    Raises:
        InputError: names the other format.

    Example:
        >>> refuse_other("log.jsonl", ("model", "call_type"), (("messages",),), "messages")
        Traceback (most recent call last):
        cqbayes.errors.InputError: log.jsonl: expected messages, got what looks like LiteLLM; \
read it as format litellm
    """
    own = _strength_of_any(fields, signs, unpack)
    if own >= SURE:
        return
    best, name, title = strength(fields, OF_SERVICES), SERVICES_FORMAT, "a long table of services"
    for other in importer_names():
        importer = load_importer(other)
        found = _strength_of_any(fields, importer.signs, importer.unpack)
        if found > best:
            best, name, title = found, other, importer.title
    if best > own:
        raise InputError(
            f"{where}: expected {expected}, got what looks like {title}; read it as format {name}"
        )


def _strength_of_any(fields: Collection[str], signs: Signs, unpack: Unpack) -> int:
    """Of the record, or of the first of those that it holds."""
    found = strength(fields, signs)
    if not isinstance(fields, Mapping):
        return found
    try:
        first = next(iter(unpack(fields)), None)
    except (SetAside, RecursionError):
        return found
    return max(found, strength(first, signs)) if isinstance(first, Mapping) else found

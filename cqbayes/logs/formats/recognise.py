"""Which log format a record looks like, by the names of its fields.

This prevents that a file is read as another format with some of the same fields: a payload of
LiteLLM has an array of messages, but is not a whole conversation.
"""

from collections.abc import Collection, Mapping

from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import importer_names, load_importer

Signs = tuple[tuple[str, ...], ...]

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


def refuse_other(where: str, fields: Collection[str], signs: Signs, expected: str) -> None:
    """Refuses a record that looks more like another format than like the one expected.

    Args:
        where: the file.
        fields: names of the record's fields, or of the file's columns.
        signs: of the format that is expected.
        expected: its title.

    Raises:
        InputError: names the other format.

    Example:
        >>> refuse_other("log.jsonl", ("model", "call_type"), (("messages",),), "messages")
        Traceback (most recent call last):
        cqbayes.errors.InputError: log.jsonl: expected messages, got what looks like LiteLLM; \
read it as format litellm
    """
    own = strength(fields, signs)
    if own >= SURE:
        return
    known = _known()
    name = max(known, key=lambda other: strength(fields, known[other][1]))
    title, found = known[name]
    if strength(fields, found) > own:
        raise InputError(
            f"{where}: expected {expected}, got what looks like {title}; read it as format {name}"
        )


def _known() -> Mapping[str, tuple[str, Signs]]:
    found = {name: load_importer(name) for name in importer_names()}
    return {
        SERVICES_FORMAT: ("a long table of services", OF_SERVICES),
        **{name: (importer.title, importer.signs) for name, importer in found.items()},
    }

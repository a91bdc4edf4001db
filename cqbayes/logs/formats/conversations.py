"""Whole conversations: what stands beside the words of a user's message and of its answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cqbayes._tools.tables import check_columns
from cqbayes.errors import InputError
from cqbayes.logs.formats.exchanges import conversation_requests
from cqbayes.logs.formats.fields import opened
from cqbayes.logs.formats.importer import Request, SetAside
from cqbayes.logs.formats.messages import (
    ASSISTANT,
    NO_MESSAGES,
    USER,
    Message,
    read_messages,
)

Source = Mapping[str, Any]


def read_conversation(value: Any) -> tuple[Message, ...]:
    """The messages of an array, also as JSON in a text; nothing else is a conversation.

    Raises:
        SetAside: for what is no array, or holds no messages.
    """
    found = opened(value)
    if not isinstance(found, list):
        raise SetAside(NO_MESSAGES)
    return read_messages(found)


def requests_of(
    messages: Sequence[Message],
    fields: Callable[[Source, Sequence[Source]], Mapping[str, Any]],
    **shared: Any,
) -> list[Request]:
    """The requests of :func:`~cqbayes.logs.formats.exchanges.conversation_requests`, with more.

    Args:
        messages: all of the conversation.
        fields: further fields of a request, from the object that the user's message was, and those
            of its answers.
        shared: fields of all requests.

    Raises:
        SetAside: where nothing is of a user, or all of it is empty.

    Example:
        >>> said = [{"role": "user", "content": "Why?"},
        ...         {"role": "assistant", "content": "So.", "model": "gpt-4o"}]
        >>> (one,) = requests_of(
        ...     read_messages(said), lambda question, answers: {"llm": answers[0]["model"]}
        ... )
        >>> one.text, one.llm
        ('Why?', 'gpt-4o')
    """
    made = conversation_requests(messages, **shared)
    return [
        one._replace(**fields(question, answers))
        for one, (question, answers) in zip(made, _exchanges(messages), strict=True)
    ]


def _exchanges(messages: Sequence[Message]) -> Iterator[tuple[Source, list[Source]]]:
    places = [i for i, message in enumerate(messages) if message.role == USER]
    for place, end in zip(places, [*places[1:], None], strict=True):
        answers = [one.source for one in messages[place + 1 : end] if one.role == ASSISTANT]
        yield messages[place].source, answers


def check_messages(where: str, schema: pa.Schema, column: str, in_text: bool = False) -> None:
    """Refuses a column that does not hold messages.

    Args:
        where: the file.
        schema: of the file.
        column: that should hold messages.
        in_text: whether they may be JSON in texts.

    Raises:
        InputError: names the column and what it is.
    """
    kind = schema.field(column).type
    if in_text and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_struct(kind.value_type):
        raise InputError(f"{where}: expected a list of structs in {column}, got {kind}")
    names = [kind.value_type.field(i).name for i in range(kind.value_type.num_fields)]
    check_columns(f"{where}: structs in {column}", names, ("role", "content"))

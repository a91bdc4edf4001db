"""Whole conversations: what stands beside the words of a user's message and of its answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cqbayes.logs.formats.importer import Request, SetAside
from cqbayes.logs.formats.messages import (
    ASSISTANT,
    NO_MESSAGES,
    USER,
    Message,
    conversation_requests,
    opened,
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
    """The requests of :func:`~cqbayes.logs.formats.messages.conversation_requests`, with more.

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

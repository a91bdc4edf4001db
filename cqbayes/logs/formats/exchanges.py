"""What was asked, and what was answered: the facts that messages give of a request."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cqbayes.logs.formats.digests import chain, digest
from cqbayes.logs.formats.importer import MOST_BYTES, MOST_MESSAGES, Request, SetAside, folded, text
from cqbayes.logs.formats.messages import (
    ASSISTANT,
    CONTENTS,
    MOST_LEVELS,
    NO_CONTENT,
    NO_MESSAGES,
    NO_USER,
    SYSTEM,
    TOOL,
    USER,
    Message,
    decoded,
    is_part,
    message_of,
    role_of,
)


class Asked(NamedTuple):
    """What the messages of one request say; see :class:`~cqbayes.logs.formats.importer.Request`."""

    turn: int | None
    text: str | None
    message: str | None
    before: str | None
    opening: str | None
    asked: str | None
    history: str | None
    system: str | None
    after: int
    tools: bool


class Answer(NamedTuple):
    """An answer.

    Attributes:
        chars: its characters; None where there is none, or where its shape is not known.
        digest: the one that the same message has in a later request; None where it has no content.
    """

    chars: int | None = None
    digest: str | None = None


def asked_of(messages: Sequence[Message]) -> Asked:
    """What the messages of one request say: its last message of a user, and all before that.

    An array that holds results of tools and nothing of a user is a step of a program: it has no
    ``message``, and ``tools`` is true.

    Raises:
        SetAside: where nothing is of a user, or the user's last message is empty.

    Example:
        >>> from cqbayes.logs.formats.messages import read_messages
        >>> said = read_messages([{"role": "user", "content": word} for word in ("Why?", "Why? ")])
        >>> found = asked_of(said)
        >>> found.turn, found.text, found.message == found.before, found.after
        (1, 'Why? ', True, 0)
        >>> found.asked == asked_of(said[:1]).asked, found.asked == chain(None, found.before)
        (False, True)
    """
    places = [i for i, message in enumerate(messages) if message.role == USER]
    system = _chained(message.digest for message in messages if message.role == SYSTEM)
    if not places:
        if not any(message.role == TOOL for message in messages):
            raise SetAside(NO_USER)
        after = sum(map(_goes_on, messages))
        return Asked(None, None, None, None, None, None, None, system, after, True)
    *earlier, place = places
    last, later = messages[place], messages[place + 1 :]
    if last.digest is None:
        raise SetAside(NO_CONTENT)
    history = None
    for message in messages[:place]:
        if message.role in (USER, ASSISTANT) and message.digest is not None:
            history = chain(history, message.role, message.digest)
    asked = None
    for i in earlier:
        asked = chain(asked, messages[i].digest)
    return Asked(
        turn=len(earlier),
        text=_words(last),
        message=last.digest,
        before=messages[earlier[-1]].digest if earlier else None,
        opening=messages[places[0]].digest,
        asked=asked,
        history=history,
        system=system,
        after=sum(map(_goes_on, later)),
        tools=any(message.role == TOOL for message in later),
    )


def _goes_on(message: Message) -> bool:
    is_of_assistant = message.role == ASSISTANT and (message.digest is not None or message.calls)
    return is_of_assistant or message.role == TOOL


def _chained(digests: Iterator[str | None]) -> str | None:
    found = None
    for one in digests:
        found = found if one is None else chain(found, one)
    return found


def _words(message: Message) -> str | None:
    return None if message.text is None else text(message.text, MOST_BYTES, NO_MESSAGES)


def conversation_requests(messages: Sequence[Message], **shared: Any) -> list[Request]:
    """One request for each message of a user in a whole conversation, with its answer.

    Args:
        messages: all of the conversation.
        shared: fields of all requests.

    Raises:
        SetAside: where nothing is of a user, or all of it is empty.

    Example:
        >>> from cqbayes.logs.formats.messages import read_messages
        >>> said = [("user", "Why?"), ("assistant", "So."), ("user", "How?")]
        >>> found = conversation_requests(read_messages(said), llm="gpt-4o")
        >>> [(one.place, one.text, one.response_chars) for one in found]
        [(0, 'Why?', 3), (1, 'How?', None)]
        >>> found[1].history == chain(chain(None, "user", found[0].message), "assistant",
        ...                           found[0].answer)
        True
    """
    places = [i for i, message in enumerate(messages) if message.role == USER]
    if not places:
        raise SetAside(NO_USER)
    if all(messages[i].digest is None for i in places):
        raise SetAside(NO_CONTENT)
    system = _chained(message.digest for message in messages if message.role == SYSTEM)
    made: list[Request] = []
    asked = history = None
    for number, (place, end) in enumerate(zip(places, [*places[1:], None], strict=True)):
        message = messages[place]
        answers = [one for one in messages[place + 1 : end] if one.role == ASSISTANT]
        answer = _joined(answers)
        fields = {
            "place": number,
            "turn": number,
            "text": _words(message),
            "message": message.digest,
            "before": messages[places[number - 1]].digest if number else None,
            "opening": messages[places[0]].digest,
            "asked": asked,
            "history": history,
            "system": system,
            "after": 0,
            "tools": False,
            "response_chars": answer.chars,
            "answer": answer.digest,
        }
        made.append(Request(**{**fields, **shared}))
        asked = chain(asked, message.digest)
        for one in (message, *answers):
            if one.digest is not None:
                history = chain(history, one.role, one.digest)
    return made


def answer_of(value: Any) -> Answer:
    """An answer in any of the shapes that APIs give; empty for others.

    These are a text, a message, a list of messages or parts, and responses: of chat completions
    and completions (the first of ``choices``), of the responses API (``output``), of Anthropic
    (``content``), of Gemini (the first of ``candidates``), of Bedrock and Ollama (``message``);
    each of them also as JSON in a text.

    Example:
        >>> answer_of({"choices": [{"message": {"role": "assistant", "content": "So."}}]}).chars
        3
        >>> answer_of("So.") == answer_of('[{"type": "text", "text": "So."}]')
        True
    """
    try:
        return _joined(_answers(value, MOST_LEVELS))
    except (SetAside, RecursionError):
        return Answer()


def _joined(answers: Sequence[Message]) -> Answer:
    if not answers or any(one.hidden for one in answers):
        return Answer()
    there = [one for one in answers if one.digest is not None]
    chars = sum(len(one.text or "") for one in there)
    if len(there) == 1:
        return Answer(chars, there[0].digest)
    words = "\n".join(one.text for one in there if one.text is not None)
    return Answer(chars, digest(folded(words)) if there else None)


def _answers(value: Any, levels: int) -> list[Message]:
    """The messages of an answer; none where its shape is not known."""
    if not levels:
        return []
    if isinstance(value, str):
        return _answers_of_text(value, levels - 1)
    if isinstance(value, Mapping):
        return _answers_of_object(value, levels - 1)
    if not isinstance(value, list) or not value:
        return []
    if len(value) == 1 and not isinstance(value[0], Mapping):
        return _answers(value[0], levels - 1)
    if all(isinstance(one, Mapping) and role_of(one) is not None for one in value):
        found = [message_of(one) for one in value[:MOST_MESSAGES]]
        last = max((i for i, one in enumerate(found) if one.role != ASSISTANT), default=-1)
        return found[last + 1 :]
    if all(isinstance(one, str) or is_part(one) for one in value):
        return [_said(value)]
    return _answers(value[0], levels - 1) if len(value) == 1 else []


def _said(content: Any) -> Message:
    return message_of({"role": ASSISTANT, "content": content})


def _answers_of_text(value: str, levels: int) -> list[Message]:
    plain = value.strip()
    if plain in ("{}", "null", "None"):
        return []
    try:
        found, rest = decoded(plain)
    except SetAside:
        found, rest = None, ""
    if found is not None and not rest:
        # An answer that is JSON of another shape is an answer.
        inside = [_said(found)] if isinstance(found, str) else _answers(found, levels)
        if inside:
            return inside
    return [_said(value)]


def _answers_of_object(value: Mapping[str, Any], levels: int) -> list[Message]:
    for key in ("choices", "candidates", "generations"):
        several = value.get(key)
        if isinstance(several, list) and several:
            return _answers(several[0], levels)
    if isinstance(value.get("output"), list):
        items = [one for one in value["output"] if isinstance(one, Mapping)]
        said = [one for one in items if role_of(one) is not None]
        return [one for one in map(message_of, said) if one.role == ASSISTANT]
    for key in ("messages", "message", "output", "delta"):
        if isinstance(value.get(key), Mapping | list) and value[key]:
            found = _answers(value[key], levels)
            if found:
                return found
    if role_of(value) is not None or any(value.get(key) is not None for key in CONTENTS):
        content = value.get("content")
        inside = content if isinstance(content, Mapping) and role_of(content) is not None else value
        return [message_of({**inside, "role": ASSISTANT})]
    for key in ("response", "completion", "output", "output_text", "generated_text"):
        if isinstance(value.get(key), str):
            return [_said(value[key])]
    return []

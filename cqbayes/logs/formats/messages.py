"""Messages of every shape in which logs write them, and the facts that they give.

Read are

- arrays of objects with a role and a content, under the names of OpenAI (``role``, ``content``),
  Gemini (``parts``, ``contents``), OpenTelemetry, LangChain (``type`` ``human``, ``HumanMessage``
  with ``kwargs``), ShareGPT (``from``, ``value``) and others;
- objects that hold such an array, or a text, as ``messages``, ``contents``, ``input`` or
  ``prompt``, with the system's message beside it;
- either of these as JSON in a text, and texts in which the roles are written out
  (``system: ...`` and ``user: ...`` at the beginnings of lines, or ``<|im_start|>user``).

A content is a text or a list of parts. Pictures, sounds, files, data URLs and base64 are never
text: they have digests. A message that holds only results of tools is a program's, whatever its
role; so is one of any role but a user's, an assistant's or a system's.

**What is not recognised is never the user's text.** JSON of another shape, what is cut off, and
placeholders (``default-message-value``, ``redacted-by-...``) are set aside. JSON *in* the content
of a user's message is what the user pasted, and is text.

References:
    OpenAI's reference of chat completions (``messages``) and of responses (``input``);
    Google's reference of ``generateContent`` (``contents``, ``system_instruction``);
    OpenTelemetry, ``docs/gen-ai/gen-ai-input-messages.json``;
    LangChain, ``langchain_core/load/serializable.py`` and ``messages/base.py``;
    ``litellm/litellm_core_utils/redact_messages.py`` for placeholders.
"""

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Request,
    SetAside,
    folded,
    moment,
    text,
)

# Roles, in lower case and without "message" at their end. All others are a program's.
USER, ASSISTANT, SYSTEM, TOOL = "user", "assistant", "system", "tool"
ROLES = {
    **dict.fromkeys(("user", "human", "enduser", "end_user"), USER),
    **dict.fromkeys(("assistant", "ai", "model", "bot", "chatbot", "gpt", "chatgpt"), ASSISTANT),
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("tool", "function"), TOOL),
}
# Names under which objects hold messages, a text or the system's message.
HOLDERS = ("messages", "contents", "input", "inputs", "prompt", "kwargs", "request", "body")
EARLIER = ("chat_history", "history")
OF_SYSTEM = ("system", "system_instruction", "systemInstruction", "instructions")
# Names of a content, and of what stands beside it.
CONTENTS = ("content", "parts", "blocks", "text", "value", "message", "refusal")
BESIDE = ("images", "attachments", "experimental_attachments", "files", "audio")
# Kinds of parts, in lower case and without "-" and "_".
KINDS = ("type", "block_type", "content_type", "part_kind")
TEXTS = ("text", "inputtext", "outputtext", "userprompt")
SILENT = ("thinking", "reasoning", "redactedthinking", "reasoningcontent", "cachepoint", "thought")
RESULT = re.compile(r"\w*(?:tool|function|call|execution)\w*(?:result|response|output|return)\w*")
CALL = re.compile(r"\w*(?:tooluse|call)|itemreference|executablecode|mcplisttools")
OTHERS = ("image", "imageurl", "inputimage", "audio", "inputaudio", "file", "inputfile", "video")
# What changes in a part from one request to the next, and is nothing that it shows.
PASSING = ("cache_control", "cacheControl", "id", "detail")
# What is no text, in a text.
DATA = re.compile(
    r"data:[\w.+-]{1,99}/[\w.+-]{1,99}(?:;[\w.=-]{1,99}){0,9};base64,[\w+/=-]*"
    r"|@@@langfuseMedia:.{1,500}?@@@"
)
DATA_URL = re.compile(r"data:[\w.+-]{1,99}/[\w.+-]{1,99}[;,]")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}\s*")
# What stands for a text that was not logged.
PLACEHOLDER = re.compile(
    r"default-message-value|[\[<({*_]*redacted(?:[ _-]by[ _-][\w-]+)?[\])>}*_]*"
    r"|[\[<({*_]+(?:elided|masked|omitted|filtered|removed|hidden|scrubbed[^\]]{0,99})[\])>}*_]+"
    r"|\*{3,}",
    re.IGNORECASE,
)
NOTHING = ("", "{}", "[]")
NULLS = (*NOTHING, "null", "None", "undefined")
# Roles that are written out.
LABEL = re.compile(r"\s*(system|developer|user|human|assistant|ai|tool):", re.IGNORECASE)
LABELS = ("system", "developer", "user", "human", "assistant", "ai", "tool")
TEMPLATE = re.compile(
    r"(?:<\|im_start\|>|<\|start_header_id\|>)(\w+)(?:<\|end_header_id\|>)?\s*"
    r"(.*?)(?=<\|im_end\|>|<\|eot_id\|>|<\|im_start\|>|<\|start_header_id\|>|\Z)",
    re.DOTALL,
)
LIKE_JSON = re.compile(r"\[\s*\{|\{\s*[\"']")
MOST_MARKS = 50  # in a list
MOST_CHARS = 64  # of a role, or of the kind of a part
MOST_LEVELS = 8  # of objects, arrays and texts that hold each other around messages
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
NO_MESSAGES = "no messages, or other things among them"
NO_CONTENT = "no content: the messages are absent, redacted or a placeholder"
NO_JSON = "messages that are cut off, or not JSON"
UNKNOWN_JSON = "JSON that holds no messages"
NO_USER = "no message of a user"
NO_NUMBER = "a cost, latency or count that is no number, or below zero"
NO_NAME = "an identifier that is neither a string nor a whole number"


class Message(NamedTuple):
    """A message, whatever its shape was.

    Attributes:
        role: ``user``, ``assistant``, ``system`` or ``tool``.
        text: its words; None where it has none.
        digest: of its folded text and of all in it that is no text; None where it is empty.
        calls: whether it asks for tools.
        hidden: whether a placeholder stands in place of its text.
        source: the object that it was.
    """

    role: str
    text: str | None = None
    digest: str | None = None
    calls: bool = False
    hidden: bool = False
    source: Mapping[str, Any] = {}


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


# Digests


def digest(*parts: Any) -> str:
    """32 hexadecimal digits that stand for values of JSON, and for no others.

    Example:
        >>> digest("a", "b") == digest("ab"), digest("a", None) == digest("a")
        (False, False)
    """
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        is_text = isinstance(part, str)
        written = part if is_text else json.dumps(part, default=str)
        # JSON can hold unpaired surrogates.
        data = written.encode("utf-8", "surrogatepass")
        found.update(b"%c%d:" % (b"t" if is_text else b"j", len(data)))
        found.update(data)
    return found.hexdigest()


def chain(before: str | None, *parts: Any) -> str:
    """The digest of a sequence that is longer by one element than the sequence before."""
    return digest(before, *parts)


# The messages


def read_messages(value: Any) -> tuple[Message, ...]:
    """The messages in a value: an array, an object that holds one, or a text with either.

    Raises:
        SetAside: for what holds no messages.

    Example:
        >>> [(one.role, one.text) for one in read_messages("System: Be kind.\\nHuman: Why?")]
        [('system', 'Be kind.'), ('user', 'Why?')]
        >>> read_messages('{"contents": [{"parts": [{"text": "Why?"}]}]}')[0].text
        'Why?'
    """
    try:
        found = tuple(_found(value, MOST_LEVELS))
    except RecursionError:
        raise SetAside(NO_MESSAGES) from None
    if len(found) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    return found


def _found(value: Any, levels: int) -> list[Message]:
    if value is None or value in ([], {}):
        raise SetAside(NO_CONTENT)
    if levels:
        if isinstance(value, str):
            return _of_text(value, levels - 1)
        if isinstance(value, Mapping):
            return _of_object(value, levels - 1)
        if isinstance(value, list | tuple):
            return _of_array(value, levels - 1)
    raise SetAside(NO_MESSAGES)


def _of_text(value: str, levels: int) -> list[Message]:
    plain = value.strip()
    if plain in NULLS or PLACEHOLDER.fullmatch(plain):
        raise SetAside(NO_CONTENT)
    found, rest = _decoded(plain)
    if found is not None and not rest:
        return _found(found, levels)
    if rest[:1] in ("[", "{") if found is not None else LIKE_JSON.match(plain):
        raise SetAside(NO_JSON)
    return _rendered(value)


def _decoded(plain: str) -> tuple[Any, str]:
    """The JSON at the beginning of a text, and what follows it; None where there is none."""
    if plain[:1] not in ("[", "{", '"'):
        return None, plain
    try:
        found, end = json.JSONDecoder().raw_decode(plain)
    except RecursionError:
        raise SetAside(NO_JSON) from None
    except ValueError:
        return None, plain
    return found, plain[end:].lstrip()


def _rendered(value: str) -> list[Message]:
    """The messages of a text in which roles are written out, or else the text as a user's."""
    found = [(one[1], one[2]) for one in TEMPLATE.finditer(value)]
    first = LABEL.match(value)
    if not found and first:
        label = first[1]
        # Written as the first one is, or words of the user that look like a role would be one.
        change = str.lower if label.islower() else str.upper if label[1:].isupper() else str.title
        names = "|".join((*map(change, LABELS), "AI"))
        places = list(re.finditer(rf"^[ \t]*({names}):[ \t]*", value.lstrip(), re.MULTILINE))
        ends = [*(one.start() for one in places[1:]), None]
        found = [
            (one[1], value.lstrip()[one.end() : end].rstrip())
            for one, end in zip(places, ends, strict=True)
        ]
    if not found:
        return [_user(value)]
    return [_message({"role": role, "content": content}) for role, content in found]


def _user(content: Any, beside: Mapping[str, Any] | None = None) -> Message:
    return _message({**(beside or {}), "role": USER, "content": content})


def _of_object(value: Mapping[str, Any], levels: int) -> list[Message]:
    if _role(value) is not None:
        return [_message(value)]
    if _is_part(value):
        return [_user([value])]
    reasons = []
    for key in HOLDERS:
        if key not in value:
            continue
        inside = value[key]
        try:
            found = _found(inside, levels)
        except SetAside as reason:
            reasons.append(str(reason))
            continue
        if isinstance(inside, str) and len(found) == 1:
            found = _prompt(value, found[0], levels)
        return [*_system(value), *found]
    # Content that is absent in one place says less than what another place has.
    raise SetAside(min(reasons, key=NO_CONTENT.__eq__, default=UNKNOWN_JSON))


def _system(value: Mapping[str, Any]) -> list[Message]:
    """The system's messages that stand beside the others."""
    config = value.get("config")
    return [
        _message({"role": SYSTEM, "content": one[key]})
        for one in (value, config if isinstance(config, Mapping) else {})
        for key in OF_SYSTEM
        if isinstance(one.get(key), str | list | Mapping) and one[key]
    ]


def _prompt(value: Mapping[str, Any], prompt: Message, levels: int) -> list[Message]:
    """A prompt with the pictures beside it, after the messages before it."""
    beside = {name: value[name] for name in BESIDE if value.get(name)}
    now = _user(prompt.source["content"], beside) if beside else prompt
    earlier = next((one for key in EARLIER if isinstance(one := value.get(key), list) and one), [])
    return [*(_found(earlier, levels) if earlier else ()), now]


def _of_array(value: Sequence[Any], levels: int) -> list[Message]:
    if len(value) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    roles = [_role(one) if isinstance(one, Mapping) else None for one in value]
    if None not in roles:
        return [_message(one, role) for one, role in zip(value, roles, strict=True)]
    if all(_is_pair(one) for one in value):
        return [_message({"role": role, "content": content}) for role, content in value]
    if len(value) == 1 and not _is_part(value[0]):
        return _found(value[0], levels)
    if all(isinstance(one, str) or _is_part(one) for one in value):
        return [_user(value)]
    raise SetAside(NO_MESSAGES)


def _is_pair(value: Any) -> bool:
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    return is_pair and all(isinstance(one, str) for one in value) and value[0].lower() in ROLES


def _is_part(value: Any) -> bool:
    """Whether an object is a part of a message: a text, a picture or the like, without a role."""
    if not isinstance(value, Mapping) or _role(value) is not None:
        return False
    return any(kind in TEXTS or kind in OTHERS or kind == "inlinedata" for kind in _kinds(value))


def _role(message: Mapping[str, Any]) -> str | None:
    """The role of a message; None where the object is none."""
    plain = message.get("role")
    if type(plain) is str and plain in ROLES:
        return ROLES[plain]
    for key in ("role", "from", "author"):
        named = message.get(key)
        if isinstance(named, Mapping):
            named = named.get("role")
        if isinstance(named, str) and named:
            if key == "from" and "value" not in message:
                continue
            return ROLES.get(_plain_role(named), TOOL)
    kind = message.get("type")
    if kind == "constructor" and isinstance(message.get("id"), list) and message["id"]:
        kind = message["id"][-1]
    if isinstance(kind, str):
        plain = _folded_kind(kind)
        if _plain_role(kind) in ROLES:
            return ROLES[_plain_role(kind)]
        if RESULT.fullmatch(plain):
            return TOOL
        if CALL.fullmatch(plain) or plain in SILENT:
            return ASSISTANT
    return USER if isinstance(message.get("parts"), list) else None


@functools.lru_cache(256)
def _plain_role(name: str) -> str:
    return re.sub("message(chunk)?$", "", name[-MOST_CHARS:].strip().lower().rsplit(".", 1)[-1])


def _folded_kind(name: str) -> str:
    return name[:MOST_CHARS].lower().replace("_", "").replace("-", "")


def _message(raw: Mapping[str, Any], role: str | None = None) -> Message:
    role = role or _role(raw) or TOOL
    held = next((one for key in ("kwargs", "data") if isinstance(one := raw.get(key), Mapping)), {})
    body = held if "content" in held else raw
    texts: list[str] = []
    others: list[str] = []
    kinds: set[str] = set()
    for part in _parts(_content(body)):
        kinds.update(_take(part, texts, others))
    has_result = calls = False
    if kinds or len(body) > 2 or "role" not in body:  # or there is nothing but role and content
        kinds |= {_folded_kind(one) for one in (raw.get("type"),) if isinstance(one, str)}
        others += [digest(_lasting(body[key])) for key in BESIDE if body.get(key)]
        has_result = body.get("tool_call_id") is not None or any(map(RESULT.fullmatch, kinds))
        calls = bool(body.get("tool_calls") or body.get("function_call"))
        calls = calls or any(map(CALL.fullmatch, kinds))
    words = "\n".join(texts)
    plain = folded(words)
    hidden = PLACEHOLDER.fullmatch(plain) is not None
    if hidden or not plain or (role == USER and plain in NOTHING):
        words = plain = None
    if role == USER and plain is None and not others and has_result:
        role = TOOL
    seen = None if plain is None and not others else digest(plain, *others)
    return Message(role, words, seen, calls, hidden, raw)


def _content(body: Mapping[str, Any]) -> Any:
    for key in CONTENTS:
        found = body.get(key)
        if found is not None and found not in ("", []):
            return found
    return None


def _parts(content: Any) -> Sequence[Any]:
    """The parts of a content, which is one text, one part, or a list of them, also as JSON."""
    if content is None:
        return ()
    if isinstance(content, str):
        return _listed(content) or (content,)
    if isinstance(content, Mapping):
        is_part = any(kind in TEXTS or kind in OTHERS for kind in _kinds(content))
        if is_part and not isinstance(content.get("parts"), list):
            return (content,)
        return _parts(_content(content))
    if isinstance(content, list | tuple):
        return content
    raise SetAside(NO_MESSAGES)


def _listed(content: str) -> Sequence[Any] | None:
    """A list of parts that stands in a content as JSON; other JSON is what a user pasted."""
    if content[:1] != "[" or not LIKE_JSON.match(content):
        return None
    try:
        found, rest = _decoded(content.strip())
    except SetAside:
        return None
    if rest or not isinstance(found, list):
        return None
    known = (*TEXTS, *OTHERS, *SILENT)
    for part in found:
        kinds = _kinds(part) if isinstance(part, Mapping) and "type" in part else ()
        if not any(one in known or RESULT.fullmatch(one) or CALL.fullmatch(one) for one in kinds):
            return None
    return found


def _kinds(part: Mapping[str, Any]) -> Sequence[str]:
    """The kind of a part; where it names none, the names of its fields."""
    named = next((part[key] for key in KINDS if isinstance(part.get(key), str)), None)
    if named is not None:
        return (_folded_kind(named),)
    return [_folded_kind(key) for key, value in part.items() if value not in (None, False)]


def _take(part: Any, texts: list[str], others: list[str]) -> Sequence[str]:
    """Adds what a part shows to the texts or to the digests of others; returns its kind."""
    if part is None:
        return ()
    if isinstance(part, str):
        _take_text(part, texts, others)
        return ()
    if not isinstance(part, Mapping):
        raise SetAside(NO_MESSAGES)
    kinds = _kinds(part)
    is_known = any(one in SILENT or RESULT.fullmatch(one) or CALL.fullmatch(one) for one in kinds)
    if is_known:
        return kinds
    if any(one in TEXTS or one == "refusal" for one in kinds):
        found = next(
            (part[key] for key in ("text", "content", "refusal") if part.get(key) is not None), None
        )
        found = found.get("value") if isinstance(found, Mapping) else found
        if not isinstance(found, str):
            raise SetAside(NO_MESSAGES)
        _take_text(found, texts, others)
    elif kinds:
        others.append(digest(_lasting(part)))
    return kinds


def _take_text(value: str, texts: list[str], others: list[str]) -> None:
    if "base64," in value or "@@@langfuseMedia:" in value:
        others += [digest(one) for one in DATA.findall(value)]
        value = DATA.sub("", value)
    if DATA_URL.match(value) or _is_base64(value):
        others.append(digest(value))
    elif value:
        texts.append(value)


def _is_base64(value: str) -> bool:
    is_one_word = len(value) >= 256 and BASE64.fullmatch(value) is not None
    return is_one_word and all(re.search(one, value) for one in ("[a-z]", "[A-Z]", "[0-9]"))


def _lasting(value: Any) -> Any:
    """A part without what is absent in it, or changes from one request to the next."""
    if isinstance(value, Mapping):
        return {
            key: _lasting(value[key])
            for key in sorted(value)
            if value[key] is not None and key not in PASSING
        }
    return [_lasting(one) for one in value] if isinstance(value, list) else value


# What they say


def asked_of(messages: Sequence[Message]) -> Asked:
    """What the messages of one request say: its last message of a user, and all before that.

    An array that holds results of tools and nothing of a user is a step of a program: it has no
    ``message``, and ``tools`` is true.

    Raises:
        SetAside: where nothing is of a user, or the user's last message is empty.

    Example:
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


# Answers


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
    if all(isinstance(one, Mapping) and _role(one) is not None for one in value):
        found = [_message(one) for one in value[:MOST_MESSAGES]]
        last = max((i for i, one in enumerate(found) if one.role != ASSISTANT), default=-1)
        return found[last + 1 :]
    if all(isinstance(one, str) or _is_part(one) for one in value):
        return [_said(value)]
    return _answers(value[0], levels - 1) if len(value) == 1 else []


def _said(content: Any) -> Message:
    return _message({"role": ASSISTANT, "content": content})


def _answers_of_text(value: str, levels: int) -> list[Message]:
    plain = value.strip()
    if plain in ("{}", "null", "None"):
        return []
    try:
        found, rest = _decoded(plain)
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
        said = [one for one in items if _role(one) is not None]
        return [one for one in map(_message, said) if one.role == ASSISTANT]
    for key in ("messages", "message", "output", "delta"):
        if isinstance(value.get(key), Mapping | list) and value[key]:
            found = _answers(value[key], levels)
            if found:
                return found
    if _role(value) is not None or any(value.get(key) is not None for key in CONTENTS):
        content = value.get("content")
        inside = content if isinstance(content, Mapping) and _role(content) is not None else value
        return [_message({**inside, "role": ASSISTANT})]
    for key in ("response", "completion", "output", "output_text", "generated_text"):
        if isinstance(value.get(key), str):
            return [_said(value[key])]
    return []


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


# Helpers of importers for other cells.


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


def identifier(*values: Any) -> str | None:
    """The first value that is present, as a short string; None where there is none."""
    for value in values:
        if value is None or value == "":
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

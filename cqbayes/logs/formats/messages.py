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
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cqbayes.logs.formats.digests import digest
from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_MESSAGES,
    SetAside,
    folded,
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
BESIDE = ("image", "images", "image_url", "image_urls", "attachments", "experimental_attachments",
          "file", "files", "file_ids", "documents", "media", "audio", "video")  # fmt: skip
# Kinds of parts, in lower case and without "-" and "_".
KINDS = ("type", "block_type", "content_type", "part_kind")
TEXTS = ("text", "inputtext", "outputtext", "userprompt")
SILENT = ("thinking", "reasoning", "redactedthinking", "reasoningcontent", "cachepoint", "thought")
RESULT = re.compile(r"\w*(?:tool|function|call|execution)\w*(?:result|response|output|return)\w*")
CALL = re.compile(r"\w*(?:tooluse|call)|itemreference|executablecode|mcplisttools")
OTHERS = ("image", "imageurl", "inputimage", "audio", "inputaudio", "file", "inputfile", "video")
# What changes in a part from one request to the next, and is nothing that it shows; but an id may
# be all that it shows.
PASSING = ("cache_control", "cacheControl", "id", "detail")
# What is no text, in a text.
DATA = re.compile(
    r"data:[\w.+-]{1,99}/[\w.+-]{1,99}(?:;[\w.=-]{1,99}){0,9};base64,[\w+/=-]*"
    r"|@@@langfuseMedia:.{1,500}?@@@"
)
DATA_URL = re.compile(r"data:[\w.+-]{1,99}/[\w.+-]{1,99}[;,]")
# One word, or lines of one length and a last one.
BASE64 = re.compile(
    r"[A-Za-z0-9+/_-]{60,}(?:\r?\n[A-Za-z0-9+/_-]{60,})*(?:\r?\n[A-Za-z0-9+/_-]+)?={0,2}\s*"
)
# What stands for a text that was not logged.
PLACEHOLDER = re.compile(
    r"default-message-value|redacted(?:[ _-]by[ _-].{1,40})?"
    r"|[\[<({*_]+(?:[^\[\]<>(){}\"]{0,99}[^a-z\[\]<>(){}\"])?(?:redacted|elided|masked|omitted"
    r"|filtered|removed|hidden|scrubbed|not recorded)(?![a-z])[^\[\]<>(){}\"]{0,99}[\])>}*_]+"
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
MOST_CHARS = 64  # of a role, or of the kind of a part
MOST_LEVELS = 8  # of objects, arrays and texts that hold each other around messages
# Why records are set aside.
NO_MESSAGES = "no messages, or other things among them"
NO_CONTENT = "no content: the messages are absent, redacted or a placeholder"
NO_JSON = "messages that are cut off, or not JSON"
UNKNOWN_JSON = "JSON that holds no messages"
NO_USER = "no message of a user"


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
    found, rest = decoded(plain)
    if found is not None and not rest:
        return _found(found, levels)
    if rest[:1] in ("[", "{") if found is not None else LIKE_JSON.match(plain):
        raise SetAside(NO_JSON)
    return _rendered(value)


def decoded(plain: str) -> tuple[Any, str]:
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
    return [message_of({"role": role, "content": content}) for role, content in found]


def _user(content: Any, beside: Mapping[str, Any] | None = None) -> Message:
    return message_of({**(beside or {}), "role": USER, "content": content})


def _of_object(value: Mapping[str, Any], levels: int) -> list[Message]:
    if role_of(value) is not None:
        return [message_of(value)]
    if is_part(value):
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
        message_of({"role": SYSTEM, "content": one[key]})
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
    roles = [role_of(one) if isinstance(one, Mapping) else None for one in value]
    if None not in roles:
        return [message_of(one, role) for one, role in zip(value, roles, strict=True)]
    if all(_is_pair(one) for one in value):
        return [message_of({"role": role, "content": content}) for role, content in value]
    if len(value) == 1 and not is_part(value[0]):
        return _found(value[0], levels)
    if all(isinstance(one, str) or is_part(one) for one in value):
        return [_user(value)]
    raise SetAside(NO_MESSAGES)


def _is_pair(value: Any) -> bool:
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    return is_pair and all(isinstance(one, str) for one in value) and value[0].lower() in ROLES


def is_part(value: Any) -> bool:
    """Whether an object is a part of a message: a text, a picture or the like, without a role."""
    if not isinstance(value, Mapping) or role_of(value) is not None:
        return False
    return any(kind in TEXTS or kind in OTHERS or kind == "inlinedata" for kind in _kinds(value))


def role_of(message: Mapping[str, Any]) -> str | None:
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


def message_of(raw: Mapping[str, Any], role: str | None = None) -> Message:
    role = role or role_of(raw) or TOOL
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
        found, rest = decoded(content.strip())
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
        said = [key for key in sorted(value) if value[key] is not None]
        lasting = [key for key in said if key not in PASSING]
        if all(key in KINDS for key in lasting):
            lasting += [key for key in said if key == "id"]
        return {key: _lasting(value[key]) for key in lasting}
    return [_lasting(one) for one in value] if isinstance(value, list) else value

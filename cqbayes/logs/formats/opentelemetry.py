"""OpenTelemetry: spans of requests to LLMs, by the semantic conventions for generative AI.

OTLP in JSON, as the collector's file exporter writes it: a line holds ``resourceSpans``, or
``resourceLogs`` (for events), and each span or event in it is a record; one span per line is read
too. What is read, and nothing else:

======================================  ============================================================
``startTimeUnixNano``,                  nanoseconds since 1970
``endTimeUnixNano``
``status.code``, ``error.type``         2 (error), or any type, is a failure
``gen_ai.operation.name``               ``chat``, ``generate_content`` and ``text_completion`` give
                                        rows, other operations (tools, agents, embeddings) none
``gen_ai.request.model``                the LLM that was asked for; or else
                                        ``gen_ai.response.model``, which failures do not have
``gen_ai.conversation.id``              the session; or else ``session.id``
``user.id``                             the user; or else ``enduser.id``
``gen_ai.input.messages``               the conversation, as a structure or as JSON; also in an
                                        event ``gen_ai.client.inference.operation.details``
``gen_ai.output.messages``              the answer, likewise: the first, where there are several
``gen_ai.evaluation.name``,             of an event ``gen_ai.evaluation.result`` of the span
``gen_ai.evaluation.score.value``,
``gen_ai.evaluation.score.label``
======================================  ============================================================

Older instrumentations are read too: events ``gen_ai.user.message`` and so on with
``gen_ai.choice``; events ``gen_ai.content.prompt`` and ``gen_ai.content.completion``, or the
attributes ``gen_ai.prompt`` and ``gen_ai.completion`` in them on the span; and
``gen_ai.prompt.0.role``, ``gen_ai.prompt.0.content``, ``gen_ai.completion.0.content`` and so on.

Instrumentations record content only if configured to, and spans without content are set aside. So
are messages and evaluations in log records of their own, since their span is another record. Where
both spans and ``operation.details`` have the content, read one of the two files: each gives a row.

**Sessions** are ``gen_ai.conversation.id`` or ``session.id``, or else a digest of the user and of
the conversation's first message: conversations of one user that open with the same words then fall
together.

**Evaluations** become ``feedback`` or ``accepted`` where their name says that a user gave them
(``user_feedback``, ``accepted`` and alike, :func:`cqbayes.logs.formats.messages.opinion`).

**Transport.** A span covers a request with all retries that the instrumented library makes by
itself, so these do not show. What an application sends again is a span of its own after a failed
one. Costs are not in the conventions.

A span is one request: ``text`` is the last message of the user in it and ``turn`` how many come
before, so rows of a session come scattered, and a request that was sent again has the same
``turn`` as the one before.

References:
    ``docs/gen-ai/gen-ai-spans.md``, ``gen-ai-events.md`` and ``gen-ai-input-messages.json`` of
    open-telemetry/semantic-conventions-genai; ``docs/gen-ai/llm-spans.md`` and
    ``docs/gen-ai/gen-ai-events.md`` of open-telemetry/semantic-conventions, v1.26 and v1.36, for
    the older ones; ``opentelemetry/proto/{trace,logs,common}/v1`` of opentelemetry-proto.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_MESSAGES,
    NO_TIMESTAMP,
    TICKS,
    Importer,
    SetAside,
    moment,
)
from cqbayes.logs.formats.messages import (
    answer_chars,
    digest,
    elapsed,
    identifier,
    inner,
    opinion,
    request,
    unquoted,
    unquoted_answer,
)

NESTED = (("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords"))
OPERATIONS = ("chat", "generate_content", "text_completion", "chat.completions")
DETAILS = "gen_ai.client.inference.operation.details"
EVALUATION = "gen_ai.evaluation.result"
MESSAGE = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
NUMBERED = re.compile(r"gen_ai\.prompt\.(\d{1,5})\.(role|content)")
MOST_DEPTH = 32  # of an attribute
ERROR = (2, "STATUS_CODE_ERROR")

# Why spans and events are set aside.
NO_ATTRIBUTES = "attributes that are no list of keys and values, or too deep"
NO_MODEL = "no gen_ai.request.model"
NO_CONTENT = "no messages: the instrumentation did not record content"
NO_JSON = "messages that are cut off, or not JSON"
LONE_MESSAGE = "a message without its span, which is another record"
LONE_EVALUATION = "an evaluation without its span, which is another record"

Attributes = Mapping[str, Any]
Events = Sequence[tuple[Any, Attributes]]


def _unpacked(record: Mapping[str, Any]) -> Iterable[Any]:
    for outer, *below in NESTED:
        if outer in record:
            return _leaves(record[outer], below)
    return (record,)


def _leaves(value: Any, below: Sequence[str]) -> Iterator[Any]:
    """The values nested under names; a value of another shape comes out as null."""
    if value is None:
        return
    if not isinstance(value, list):
        yield None
        return
    for one in value:
        if not below:
            yield one
        elif isinstance(one, Mapping):
            yield from _leaves(one.get(below[0]), below[1:])
        else:
            yield None


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    attributes = _attributes(record.get("attributes"))
    event = record.get("eventName") or attributes.get("event.name")
    if isinstance(event, str) and event != DETAILS:
        if event == EVALUATION:
            raise SetAside(LONE_EVALUATION)
        if event.startswith("gen_ai."):
            raise SetAside(LONE_MESSAGE)
        return []
    events = _events(record.get("events"))
    about = [*attributes, *(name for name, _ in events)]
    if not any(isinstance(name, str) and name.startswith("gen_ai.") for name in about):
        return []
    operation = attributes.get("gen_ai.operation.name")
    if operation is None and "gen_ai.evaluation.name" in attributes:
        raise SetAside(LONE_EVALUATION)
    if operation is not None and operation not in OPERATIONS:
        return []
    row = _row(record, attributes, events)
    return [] if row is None else [row]


def _row(
    record: Mapping[str, Any], attributes: Attributes, events: Events
) -> dict[str, Any] | None:
    """A row of ``TURNS``; None where it is no turn of a user."""
    model = identifier(
        attributes.get("gen_ai.request.model"), attributes.get("gen_ai.response.model")
    )
    if model is None:
        raise SetAside(NO_MODEL)
    asked = request(_input(attributes, events))
    if asked is None:
        return None
    user = identifier(attributes.get("user.id"), attributes.get("enduser.id"))
    session = identifier(attributes.get("gen_ai.conversation.id"), attributes.get("session.id"))
    start = _time(record, "startTimeUnixNano") or _time(record, "timeUnixNano")
    failed = attributes.get("error.type") is not None or _is_error(record)
    row = {
        "session_id": session or digest(user, asked.opening),
        "turn": asked.turn,
        "user_id": user,
        "timestamp": start,
        "model": model,
        "text": asked.text,
        "response_chars": None if failed else _output_chars(attributes, events),
        "latency": elapsed(start, _time(record, "endTimeUnixNano")),
        "failed": failed,
        "repeated": asked.repeated,
    }
    for found in _called(events, EVALUATION):
        name = found.get("gen_ai.evaluation.name")
        by_value = opinion(name, found.get("gen_ai.evaluation.score.value"))
        row |= by_value or opinion(name, found.get("gen_ai.evaluation.score.label"))
    return row


def _is_error(record: Mapping[str, Any]) -> bool:
    return inner(record, "status").get("code") in ERROR


def _time(record: Mapping[str, Any], key: str) -> datetime | None:
    value = record.get(key)
    if isinstance(value, str):
        if not value.isdecimal() or len(value) > 20:
            raise SetAside(NO_TIMESTAMP)
        value = int(value)
    return None if value == 0 else moment(value, TICKS["ns"])


# The conversation and the answer, in all places where versions put them.


def _input(attributes: Attributes, events: Events) -> Any:
    for holder in (attributes, *_called(events, DETAILS)):
        if holder.get("gen_ai.input.messages") is not None:
            return _parsed(holder["gen_ai.input.messages"])
    numbered = _numbered(attributes)
    if numbered:
        return numbered
    for holder in (attributes, *_called(events, "gen_ai.content.prompt")):
        if holder.get("gen_ai.prompt") is not None:
            prompt = unquoted(holder["gen_ai.prompt"])
            is_cut = isinstance(prompt, str) and prompt.startswith("[{")
            return _parsed(prompt) if is_cut else prompt
    said = []
    for name, found in events:
        match = MESSAGE.fullmatch(name) if isinstance(name, str) else None
        if match:
            said.append({"role": match[1], **found})
    if not said:
        raise SetAside(NO_CONTENT)
    return said


def _parsed(value: Any) -> Any:
    found = unquoted(value)
    if isinstance(found, str):
        raise SetAside(NO_JSON)
    return found


def _numbered(attributes: Attributes) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        match = NUMBERED.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {"role": None})[match[2]] = value
    return [found[place] for place in sorted(found)]


def _output_chars(attributes: Attributes, events: Events) -> int | None:
    for holder in (attributes, *_called(events, DETAILS)):
        found = unquoted_answer(holder.get("gen_ai.output.messages"))
        if isinstance(found, list) and found:
            return answer_chars(found[0])
    for key in ("gen_ai.completion.0.content", "gen_ai.completion"):
        if attributes.get(key) is not None:
            return answer_chars(unquoted_answer(attributes[key]))
    for found in _called(events, "gen_ai.content.completion"):
        return answer_chars(unquoted_answer(found.get("gen_ai.completion")))
    for found in _called(events, "gen_ai.choice"):
        return answer_chars(unquoted_answer(found.get("message", found.get("content"))))
    return None


# Attributes and events as OTLP writes them in JSON.


def _called(events: Events, name: str) -> list[Attributes]:
    return [found for called, found in events if called == name]


def _events(value: Any) -> Events:
    if not isinstance(value, list):
        return ()
    if len(value) > MOST_MESSAGES:
        raise SetAside(LONG_RECORD)
    there = [one for one in value if isinstance(one, Mapping)]
    return [(one.get("name"), _attributes(one.get("attributes"))) for one in there]


def _attributes(value: Any, depth: int = MOST_DEPTH) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, list) or not depth:
        raise SetAside(NO_ATTRIBUTES)
    found = {}
    for one in value:
        if not isinstance(one, Mapping) or not isinstance(one.get("key"), str):
            raise SetAside(NO_ATTRIBUTES)
        found[one["key"]] = _value(one.get("value"), depth)
    return found


def _value(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping) or not depth:
        return None
    for kind in ("stringValue", "boolValue", "doubleValue"):
        if kind in value:
            return value[kind]
    if "intValue" in value:  # 64 bits are a string in the JSON of protocol buffers
        found = value["intValue"]
        is_whole = isinstance(found, str) and re.fullmatch(r"-?\d{1,19}", found)
        return int(found) if is_whole else found
    if "kvlistValue" in value:
        return _attributes(inner(value, "kvlistValue").get("values"), depth - 1)
    several = inner(value, "arrayValue").get("values")
    return [_value(one, depth - 1) for one in several] if isinstance(several, list) else None


IMPORTER = Importer(
    "OpenTelemetry GenAI",
    _rows,
    transport=(
        "retries of the instrumented library are in its span and do not show; what an application "
        "sends again shows by error.type or the status of the span before"
    ),
    unpack=_unpacked,
    signs=(("resourceSpans",), ("resourceLogs",), ("startTimeUnixNano", "attributes")),
)

"""OpenTelemetry: spans of requests to LLMs, by the conventions that instrumentations follow.

OTLP in JSON, as the collector's file exporter writes it: a line holds ``resourceSpans``, or
``resourceLogs`` (for events), and each span or event in it is a record; one span per line is read
too. Spans of LLMs are requests; all others are spans that say where those belong. Read are the
semantic conventions for generative AI in all their versions, OpenInference, OpenLLMetry and the AI
SDK of Vercel:

=====================================  =============================================================
``traceId``, ``spanId``,               zeros are no ids
``parentSpanId``
``startTimeUnixNano``,                 nanoseconds since 1970
``endTimeUnixNano``
``status.code``, ``error.type``        2 (error), or any type, is a failure
the operation                          ``gen_ai.operation.name`` or a name in ``OPERATIONS``: those
                                       of tools, agents and workflows are spans; embeddings and the
                                       like are named; all others are requests where they have the
                                       shape of a chat
the LLM                                names in ``MODELS``: the one asked for, or else the one that
                                       answered, which failures do not have
the session, the user                  names in ``SESSIONS`` and ``USERS``, also as association
                                       properties, as metadata of telemetry, in JSON in
                                       ``metadata``, and of the resource
the conversation                       ``gen_ai.input.messages``, also in an event
                                       ``gen_ai.client.inference.operation.details``;
                                       ``gen_ai.prompt.N.*``; ``gen_ai.prompt``, also in an event
                                       ``gen_ai.content.prompt``; ``llm.input_messages.N.*``;
                                       ``ai.prompt.messages``, ``ai.prompt``; events
                                       ``gen_ai.user.message`` and so on, also as JSON in
                                       ``events``; ``input.value``
the answer                             the names for outputs that belong to these: the first, where
                                       there are several
what a request is for                  the span's name, and names in ``MARKS``
``gen_ai.evaluation.*``                of an event ``gen_ai.evaluation.result``, in the span or
                                       alone
=====================================  =============================================================

Instrumentations record content only if configured to, and requests without content are set aside,
named after the conventions that they follow. So are messages in log records of their own, since
their span is another record. An event ``operation.details`` in a log is a request, with the id of
its span.

**Evaluations** become ``feedback`` or ``accepted`` where their name says that a user gave them
(``user_feedback``, ``accepted`` and alike, :func:`cqbayes.logs.formats.messages.opinion`).

**Transport.** A span covers a request with all retries that the instrumented library makes by
itself, so these do not show. What an application sends again is a span of its own after a failed
one. Costs are not in the conventions.

References:
    ``docs/gen-ai/gen-ai-spans.md``, ``gen-ai-events.md`` and ``gen-ai-input-messages.json`` of
    open-telemetry/semantic-conventions-genai; ``docs/gen-ai/llm-spans.md`` and
    ``docs/gen-ai/gen-ai-events.md`` of open-telemetry/semantic-conventions, v1.26 and v1.36, for
    the older ones; ``opentelemetry/proto/{trace,logs,common}/v1`` of opentelemetry-proto;
    ``spec/semantic_conventions.md`` of Arize-ai/openinference; ``opentelemetry/semconv_ai`` of
    traceloop/openllmetry; https://ai-sdk.dev/docs/ai-sdk-core/telemetry.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from cqbayes.logs.formats.exchanges import (
    Answer,
    Asked,
    answer_of,
    asked_of,
)
from cqbayes.logs.formats.fields import (
    elapsed,
    identifier,
    inner,
    marks,
    mentioned,
    opened,
    opinion,
    short,
)
from cqbayes.logs.formats.importer import (
    LONG_RECORD,
    MOST_MESSAGES,
    NO_TIMESTAMP,
    TICKS,
    Importer,
    Request,
    SetAside,
    moment,
)
from cqbayes.logs.formats.messages import (
    NO_MESSAGES,
    NO_USER,
    UNKNOWN_JSON,
    read_messages,
)

# Names of the three levels of OTLP: in camel and snake case, of older versions, and of stores.
NESTED = (
    (
        ("resourceSpans", "resource_spans", "batches"),
        ("scopeSpans", "scope_spans", "instrumentationLibrarySpans"),
        ("spans",),
    ),
    (
        ("resourceLogs", "resource_logs"),
        ("scopeLogs", "scope_logs", "instrumentationLibraryLogs"),
        ("logRecords", "log_records"),
    ),
)
DETAILS = "gen_ai.client.inference.operation.details"
EVALUATION = "gen_ai.evaluation.result"
ERROR = (2, "STATUS_CODE_ERROR")
MOST_DEPTH = 32  # of an attribute

# Attributes and events by which a span is one of an LLM, and attributes that say what it does.
OF_LLM = re.compile(
    r"gen_ai\.(?:operation\.name|(?:request|response)\.model|(?:input|output)\.messages|evaluation\..*"
    r"|(?:prompt|completion)(?:\.\d+\..*)?|(?:system|user|assistant|tool)\.message|choice"
    r"|content\.(?:prompt|completion)|client\.inference\.operation\.details)"
    r"|llm\.(?:model_name|request\.(?:type|model)|(?:input|output)_messages\..*|prompts\..*)"
    r"|ai\.(?:operationId|model\.id|prompt.*|response\..*)"
)
OPERATIONS = (
    "gen_ai.operation.name",
    "ai.operationId",
    "openinference.span.kind",
    "traceloop.span.kind",
    "llm.request.type",
)
CHATS = re.compile(r"chat|complet|generat|respon|message|text|stream|converse|llm")
NO_REQUESTS = re.compile(
    r".*(?:agent|tool|workflow|task|chain|retriev|guardrail|evaluator|memory|plan).*|prompt|unknown"
)
# Requests though their name says tool or plan, too.
NAMED_CHATS = re.compile(
    r"(?:chat|(?:text_)?completions?)(?:[._ -].*)?|.*[._](?:chat|completions?)"
)
OTHERS = re.compile(r"embed|rerank|image|speech|transcri|moderat")
MODELS = (
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.model_name",
    "ai.model.id",
    "llm.request.model",
)
PLACES = ("", "traceloop.association.properties.", "ai.telemetry.metadata.", "langfuse.")
SESSIONS = (
    "gen_ai.conversation.id",
    *(
        place + name
        for place in PLACES
        for name in ("session.id", "session_id", "sessionId", "conversation_id", "conversationId")
    ),
    *(place + name for place in PLACES for name in ("chat_id", "chatId", "thread_id", "threadId")),
    "langsmith.trace.session_id",
)
USERS = (
    *(place + name for place in PLACES for name in ("user.id", "enduser.id", "user_id", "userId")),
    "metadata.user_api_key_end_user_id",
    "llm.user",
    "gen_ai.user",
    "gen_ai.request.user",
)
OWNERS = ("metadata.user_api_key_user_id",)
MARKS = (
    "tag.tags",
    "langfuse.trace.name",
    "langfuse.trace.tags",
    "ai.telemetry.functionId",
    "traceloop.entity.name",
    "traceloop.workflow.name",
    "gen_ai.agent.name",
    "gen_ai.prompt.name",
)
MESSAGE = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")

# Why spans and events are set aside.
NO_ATTRIBUTES = "attributes that are no list of keys and values, or too deep"
NO_MODEL = "no gen_ai.request.model, and no other name of an LLM"
NO_OPENINFERENCE = "OpenInference spans without llm.input_messages or input.value"
NO_VERCEL = "spans of Vercel's AI SDK without ai.prompt.messages or ai.prompt"
NO_OPENLLMETRY = "OpenLLMetry spans without gen_ai.prompt"
NO_GENAI = "GenAI spans without messages, in attributes and in events"
LONE_MESSAGE = "a message without its span, which is another record"
WITHOUT = {
    "openinference.": NO_OPENINFERENCE,
    "ai.": NO_VERCEL,
    "traceloop.": NO_OPENLLMETRY,
    "llm.request.type": NO_OPENLLMETRY,
}

Attributes = Mapping[str, Any]
Events = Sequence[tuple[Any, Attributes]]


def _unpacked(record: Mapping[str, Any]) -> Iterable[Any]:
    found = [
        _leaves(record[name], below) for outer, *below in NESTED for name in outer if name in record
    ]
    return chain.from_iterable(found) if found else (record,)


def _leaves(value: Any, below: Sequence[Sequence[str]], resource: Any = None) -> Iterator[Any]:
    """The values nested under names, with their resource; one of another shape comes as null."""
    if value is None:
        return
    if not isinstance(value, list):
        yield None
        return
    for one in value:
        if not isinstance(one, Mapping):
            yield None
        elif below:
            held = [one[name] for name in below[0] if name in one]
            if not held:
                yield None
            for inside in held:
                yield from _leaves(inside, below[1:], one.get("resource", resource))
        else:
            yield one if resource is None else {**one, "resource": resource}


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    attributes = _attributes(record.get("attributes"))
    events = _events(record.get("events"))
    found = _identified(record, attributes)
    event = record.get("eventName") or attributes.get("event.name")
    if isinstance(event, str) and event != DETAILS:
        if event == EVALUATION:
            return [_score(found._replace(parent=found.id), attributes)]
        if OF_LLM.fullmatch(event):
            raise SetAside(LONE_MESSAGE)
        return [found._replace(kind="span", parent=found.id, id=None)]
    if "gen_ai.evaluation.name" in attributes and "gen_ai.operation.name" not in attributes:
        return [_score(found, attributes)]
    for evaluation in _called(events, EVALUATION):
        found = found._replace(**_evaluated(evaluation))
    return [_of_span(record, found, attributes, events)]


def _score(found: Request, attributes: Attributes) -> Request:
    """An opinion of the span around it."""
    score = Request(kind="score", id=found.parent, trace=found.trace, session=found.session)
    return score._replace(start=found.start, **_evaluated(attributes))


def _of_span(
    record: Mapping[str, Any], found: Request, attributes: Attributes, events: Events
) -> Request:
    """A span, a request to an LLM, or a call of another kind, with what each of them says."""
    call = _operation(attributes)
    plain = (call or "").lower()
    about = [*attributes, *(name for name, _ in events)]
    is_llm = any(isinstance(name, str) and OF_LLM.fullmatch(name) for name in about)
    is_other = NO_REQUESTS.fullmatch(plain) and not NAMED_CHATS.fullmatch(plain)
    if is_other or not (is_llm or plain == "llm" or OTHERS.search(plain)):
        # The outermost span may say what the user asked.
        asked = _told(attributes, events) if plain and found.parent is None else None
        said = None if asked is None else asked.message
        return found._replace(kind="span", call=short(call), message=said)
    failed = attributes.get("error.type") is not None or _is_error(record)
    model = identifier(*(attributes.get(name) for name in MODELS))
    latency = elapsed(found.start, found.end)
    found = found._replace(call=short(call), llm=model, failed=failed, latency=latency)
    if OTHERS.search(plain):
        return found
    asked = _asked(attributes, events, is_chat=not plain or CHATS.search(plain) is not None)
    if asked is None:
        return found
    if model is None:
        raise SetAside(NO_MODEL)
    answer = Answer() if failed else _answer(attributes, events)
    return found._replace(response_chars=answer.chars, answer=answer.digest, **asked._asdict())


def _operation(attributes: Attributes) -> str | None:
    return next((one for key in OPERATIONS if isinstance(one := attributes.get(key), str)), None)


def _identified(record: Mapping[str, Any], attributes: Attributes) -> Request:
    """A request with only its ids and times, and what says whose it is and what it is for."""
    holders = [attributes, inner(attributes, "metadata"), _resource(record)]
    named = [attributes.get(key) for key in MARKS]
    return Request(
        id=_id(record, "spanId"),
        trace=_id(record, "traceId"),
        parent=_id(record, "parentSpanId"),
        session=identifier(attributes.get("gen_ai.conversation.id"), attributes.get("session.id"))
        or mentioned(holders, SESSIONS),
        user=identifier(attributes.get("user.id"), attributes.get("enduser.id"))
        or mentioned(holders, USERS),
        owner=mentioned(holders, OWNERS),
        start=_time(record, "startTimeUnixNano") or _time(record, "timeUnixNano"),
        end=_time(record, "endTimeUnixNano"),
        marks=marks(record.get("name"), *named, inner(attributes, "metadata").get("tags")),
    )


def _evaluated(found: Attributes) -> dict[str, Any]:
    name = found.get("gen_ai.evaluation.name")
    by_value = opinion(name, found.get("gen_ai.evaluation.score.value"))
    return by_value or opinion(name, found.get("gen_ai.evaluation.score.label"))


def _is_error(record: Mapping[str, Any]) -> bool:
    return inner(record, "status").get("code") in ERROR


def _id(record: Mapping[str, Any], key: str) -> str | None:
    found = identifier(record.get(key))
    return found if found is not None and found.strip("0=A") else None


def _time(record: Mapping[str, Any], key: str) -> datetime | None:
    value = record.get(key)
    if isinstance(value, str):
        if not value.isdecimal() or len(value) > 20:
            raise SetAside(NO_TIMESTAMP)
        value = int(value)
    return None if value == 0 else moment(value, TICKS["ns"])


# The conversation and the answer, in all places where conventions put them.


def _asked(attributes: Attributes, events: Events, is_chat: bool) -> Asked | None:
    """What was asked; None where an operation that is not known has not the shape of a chat."""
    messages = _input(attributes, events)
    if messages is None:
        if not is_chat:
            return None
        kinds = (reason for prefix, reason in WITHOUT.items() if _has(attributes, prefix))
        raise SetAside(next(kinds, NO_GENAI))
    try:
        return asked_of(read_messages(messages))
    except SetAside as reason:
        if is_chat or str(reason) not in (NO_MESSAGES, UNKNOWN_JSON, NO_USER):
            raise
        return None


def _told(attributes: Attributes, events: Events) -> Asked | None:
    """What an agent or a workflow was asked, where it says so in messages."""
    try:
        return asked_of(read_messages(_input(attributes, events)))
    except SetAside:
        return None


def _has(attributes: Attributes, prefix: str) -> bool:
    return any(key.startswith(prefix) for key in attributes)


def _input(attributes: Attributes, events: Events) -> Any:
    holders = (attributes, *_called(events, DETAILS))
    found = _first(holders, "gen_ai.input.messages")
    if found is not None:
        system = _first(holders, "gen_ai.system_instructions")
        return found if system is None else {"system": opened(system), "messages": found}
    found = _grown(attributes, "gen_ai.prompt")
    if found:
        return [
            {**one, "role": one.get("role") or "user"} if isinstance(one, Mapping) else one
            for one in found
        ]
    found = _first((attributes, *_called(events, "gen_ai.content.prompt")), "gen_ai.prompt")
    if found is not None:
        return found
    found = _of_openinference(attributes, "llm.input_messages")
    if found:
        return found
    for key in ("ai.prompt.messages", "ai.prompt"):
        if attributes.get(key) is not None:
            return attributes[key]
    prompts = _grown(attributes, "llm.prompts")
    if prompts:
        return [inner(one, "prompt").get("text") for one in prompts if isinstance(one, Mapping)]
    said = [
        {"role": match[1], **one}
        for name, one in (*events, *_in_json(attributes))
        if isinstance(name, str) and (match := MESSAGE.fullmatch(name))
    ]
    return said or attributes.get("input.value")


def _answer(attributes: Attributes, events: Events) -> Answer:
    found = opened(_first((attributes, *_called(events, DETAILS)), "gen_ai.output.messages"))
    if isinstance(found, list) and found:
        return answer_of(found[0])
    several = _grown(attributes, "gen_ai.completion") or _of_openinference(
        attributes, "llm.output_messages"
    )
    if several:
        return answer_of(several[0])
    holders = (attributes, *_called(events, "gen_ai.content.completion"))
    for key in ("gen_ai.completion", "ai.response.text", "ai.result.text", "ai.response.object"):
        if _first(holders, key) is not None:
            return answer_of(_first(holders, key))
    for name, one in (*events, *_in_json(attributes)):
        if name == "gen_ai.choice":
            return answer_of(opened(one.get("message", one.get("content"))))
    if attributes.get("ai.response.toolCalls") is not None:
        return answer_of({"role": "assistant"})
    return answer_of(attributes.get("output.value"))


def _first(holders: Iterable[Attributes], key: str) -> Any:
    return next((one[key] for one in holders if one.get(key) is not None), None)


def _in_json(attributes: Attributes) -> Events:
    """Events that stand in an attribute."""
    several = opened(attributes.get("events"))
    there = several if isinstance(several, list) else []
    return [(one.get("event.name"), one) for one in there if isinstance(one, Mapping)]


def _of_openinference(attributes: Attributes, prefix: str) -> list[Any]:
    return [_message(one) for one in _grown(attributes, prefix)]


def _message(value: Any) -> Any:
    message = value.get("message", value) if isinstance(value, Mapping) else value
    if not isinstance(message, Mapping) or not isinstance(message.get("contents"), list):
        return message
    parts = [
        one.get("message_content", one) if isinstance(one, Mapping) else one
        for one in message["contents"]
    ]
    return {**message, "content": parts}


def _grown(attributes: Attributes, prefix: str) -> list[Any]:
    """The list that attributes with numbers in their names stand for: ``prefix.0.role``."""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if not key.startswith(prefix + "."):
            continue
        *path, last = key.removeprefix(prefix + ".").split(".")
        holder: Any = tree
        for step in path[:MOST_DEPTH]:
            holder = holder.setdefault(step, {}) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.setdefault(last, value)
    found = _with_lists(tree)
    return found if isinstance(found, list) else []


def _with_lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    grown = {key: _with_lists(value) for key, value in tree.items()}
    if grown and all(re.fullmatch(r"\d{1,5}", key) for key in grown):
        return [grown[key] for key in sorted(grown, key=int)]
    return grown


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


def _resource(record: Mapping[str, Any]) -> Attributes:
    try:
        return _attributes(inner(record, "resource").get("attributes"))
    except SetAside:
        return {}


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
    _requests,
    transport=(
        "retries of the instrumented library are in its span and do not show; what an application "
        "sends again shows by error.type or the status of the span before"
    ),
    unpack=_unpacked,
    signs=(("resourceSpans",), ("resourceLogs",), ("startTimeUnixNano", "attributes")),
)

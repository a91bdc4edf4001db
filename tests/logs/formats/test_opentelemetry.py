"""OpenTelemetry: made-up spans and events, by all the conventions."""

import json
from datetime import timedelta
from typing import Any

import pytest
from made_up_records import OF_REQUEST, SAID, START, TOOL_STEP, reason_of, rows_of, said
from simulated import any_value, key_values

from cqbayes.logs.formats import fields, messages, opentelemetry
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats.digests import digest

NANO = int(START.timestamp()) * 1_000_000_000
TRACE, SPAN, ROOT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"


def _parts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
        for one in found
    ]


INPUT = _parts(SAID)
OUTPUT = [
    {**_parts([{"role": "assistant", "content": content}])[0], "finish_reason": "stop"}
    for content in ("Because.", "No.")
]
BASIC = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.request.max_tokens": 200,
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 52,
    "gen_ai.usage.output_tokens": 47,
    "gen_ai.conversation.id": "s",
    "user.id": "ann",
}
CONTENT = {"gen_ai.input.messages": INPUT, "gen_ai.output.messages": OUTPUT}
IN_JSON = {key: json.dumps(value) for key, value in CONTENT.items()}


def _event(name: str, **found: Any) -> dict[str, Any]:
    attributes = {key.replace("__", "."): value for key, value in found.items()}
    return {"name": name, "timeUnixNano": str(NANO), "attributes": key_values(attributes)}


def _span(found: dict[str, Any], *events: Any, **rest: Any) -> dict[str, Any]:
    span = {
        "traceId": TRACE,
        "spanId": SPAN,
        "parentSpanId": "",
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(NANO),
        "endTimeUnixNano": str(NANO + 2_500_000_000),
        "attributes": key_values(found),
        "events": list(events),
        "status": {},
    }
    return span | rest


def _line(*spans: Any, **resource: Any) -> dict[str, Any]:
    scope = {"scope": {"name": "opentelemetry.instrumentation.openai_v2"}, "spans": list(spans)}
    about = {"attributes": key_values(resource)}
    return {"resourceSpans": [{"resource": about, "scopeSpans": [scope]}]}


OF_SPAN = {
    **OF_REQUEST,
    "id": SPAN,
    "trace": TRACE,
    "marks": ["chat gpt-4o"],
    "call": "chat",
    "cost": None,
}
NUMBERED = {
    f"gen_ai.prompt.{place}.{key}": one[key]
    for place, one in zip((0, 1, 2, 10), SAID, strict=True)
    for key in ("role", "content")
}
NUMBERED |= {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Because."}
FLAT, MADE = json.dumps(SAID), json.dumps([{"role": "assistant", "content": "Because."}])
SPOKEN = [
    _event("gen_ai.system.message", content="Be kind."),
    _event("gen_ai.user.message", content="Why?"),
    _event("gen_ai.assistant.message", content="So.", role="assistant"),
    _event("gen_ai.user.message", content="Why? "),
    _event("gen_ai.choice", index=0, message={"content": "Because."}),
]
IN_EVENTS = json.dumps(
    [
        *({"event.name": f"gen_ai.{one['role']}.message", **one} for one in SAID),
        {"event.name": "gen_ai.choice", "message": {"role": "assistant", "content": "Because."}},
    ]
)


@pytest.mark.parametrize(
    "found",
    [
        _line(_span(BASIC | IN_JSON)),
        _span(BASIC | IN_JSON),
        _line(_span(BASIC | CONTENT)),
        _span(
            BASIC
            | {**IN_JSON, "gen_ai.input.messages": json.dumps(INPUT[1:])}
            | {"gen_ai.system_instructions": '[{"type": "text", "content": "Be kind."}]'}
        ),
        _span(BASIC, _event("gen_ai.client.inference.operation.details", **CONTENT)),
        _span(BASIC | NUMBERED),
        _span(dict(reversed((BASIC | NUMBERED).items()))),
        _span(BASIC | {"gen_ai.prompt": FLAT, "gen_ai.completion": MADE}),
        _span(
            BASIC,
            _event("gen_ai.content.prompt", gen_ai__prompt=FLAT),
            _event("gen_ai.content.completion", gen_ai__completion=MADE),
        ),
        _span(BASIC, *SPOKEN),
        _span(BASIC | {"events": IN_EVENTS}),
    ],
)
def test_a_span_in_all_the_shapes_that_content_has_had(tmp_path, found):
    assert rows_of(tmp_path, opentelemetry, found) == [OF_SPAN]


def _of_openinference(prefix: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"{prefix}.{i}.message.{key}": one[key]
        for i, one in enumerate(found)
        for key in ("role", "content")
    }


LISTED = {
    f"llm.input_messages.{i}.message.contents.0.message_content.{key}": value
    for i, one in enumerate(SAID)
    for key, value in (("type", "text"), ("text", one["content"]))
} | {f"llm.input_messages.{i}.message.role": one["role"] for i, one in enumerate(SAID)}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o",
    "session.id": "s",
    "user.id": "ann",
    **_of_openinference("llm.output_messages", [{"role": "assistant", "content": "Because."}]),
}
TRACELOOP = {
    "llm.request.type": "chat",
    "gen_ai.request.model": "gpt-4o",
    "traceloop.association.properties.session_id": "s",
    "traceloop.association.properties.user_id": "ann",
}
VERCEL = {
    "ai.operationId": "ai.streamText.doStream",
    "ai.model.id": "gpt-4o",
    "ai.telemetry.metadata.sessionId": "s",
    "ai.telemetry.metadata.userId": "ann",
    "ai.response.text": "Because.",
}


@pytest.mark.parametrize(
    ("found", "call"),
    [
        (OPENINFERENCE | _of_openinference("llm.input_messages", SAID), "LLM"),
        (OPENINFERENCE | LISTED, "LLM"),
        (OPENINFERENCE | {"input.value": json.dumps({"messages": SAID})}, "LLM"),
        (TRACELOOP | NUMBERED, "chat"),
        (VERCEL | {"ai.prompt.messages": FLAT}, "ai.streamText.doStream"),
        (
            VERCEL
            | {"ai.prompt": json.dumps({"system": "Be kind.", "messages": SAID[1:]})}
            | {"ai.operationId": "ai.generateText"},
            "ai.generateText",
        ),
    ],
)
def test_other_conventions(tmp_path, found, call):
    assert rows_of(tmp_path, opentelemetry, _span(found)) == [{**OF_SPAN, "call": call}]


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGkh"}}


@pytest.mark.parametrize(
    "found",
    [
        TRACELOOP
        | {
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": json.dumps([{"type": "text", "text": "A?"}, PICTURE]),
        },
        OPENINFERENCE
        | {
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "A?",
            "llm.input_messages.0.message.contents.1.message_content.type": "image",
            "llm.input_messages.0.message.contents.1.message_content.image.image.url": "data:x",
        },
    ],
)
def test_pictures_are_no_text(tmp_path, found):
    (row,) = rows_of(tmp_path, opentelemetry, _span(found))
    assert row["text"] == "A?"
    assert row["message"] != digest("A?")


def test_a_prompt_without_roles(tmp_path):
    found = {"gen_ai.prompt.0.content": "Why?", "gen_ai.request.model": "gpt-4o"}
    (row,) = rows_of(tmp_path, opentelemetry, _span(found | {"llm.request.type": "completion"}))
    assert (row["text"], row["turn"], row["call"]) == ("Why?", 0, "completion")


def test_an_event_in_a_log(tmp_path):
    """It is the request of its span, without an end; other events belong to their spans."""
    event = {
        "timeUnixNano": str(NANO),
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": key_values(BASIC | CONTENT),
        "traceId": TRACE,
        "spanId": SPAN,
    }
    other = {"eventName": "started", "spanId": SPAN, "traceId": TRACE}
    line = {"resourceLogs": [{"scopeLogs": [{"logRecords": [event, other]}]}]}
    one, two = rows_of(tmp_path, opentelemetry, line)
    assert one == {**OF_SPAN, "latency": None, "end": None, "marks": []}
    assert (two["kind"], two["id"], two["parent"], two["trace"]) == ("span", None, SPAN, TRACE)


def test_what_is_sent_again_follows_a_failure(tmp_path):
    failed = {key: one for key, one in (BASIC | IN_JSON).items() if ".response." not in key}
    found = [
        _span(failed | {"error.type": "timeout"}),
        _span(failed, status={"code": 2, "message": "x"}),
        _span(failed, status={"code": "STATUS_CODE_ERROR"}),
        _span(BASIC | IN_JSON, status={"code": 1}),
    ]
    rows = rows_of(tmp_path, opentelemetry, _line(*found))
    assert [row["failed"] for row in rows] == [True, True, True, False]
    assert [row["response_chars"] for row in rows] == [None, None, None, 8]
    assert {row["llm"] for row in rows} == {"gpt-4o"}, "or a failure would be another LLM's"


# Opinions


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({"name": "user_feedback", "score.value": 1.0}, (1, None)),
        ({"name": "user_feedback", "score.value": 0}, (-1, None)),
        ({"name": "user_feedback", "score.label": "thumbs_down"}, (-1, None)),
        ({"name": "user_feedback", "score.value": 4.0, "score.label": "good"}, (1, None)),
        ({"name": "accepted", "score.value": 1}, (None, True)),
        ({"name": "Relevance", "score.value": 1.0, "score.label": "pass"}, (None, None)),
    ],
)
def test_evaluations(tmp_path, evaluation, expected):
    """In the span, as an event of a log, and as a span below the one that it is about."""
    found = key_values({f"gen_ai.evaluation.{key}": value for key, value in evaluation.items()})
    event = {"name": "gen_ai.evaluation.result", "attributes": found}
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, event))
    assert (row["kind"], row["feedback"], row["accepted"]) == ("request", *expected)
    about = {"traceId": TRACE, "attributes": found, "timeUnixNano": str(NANO)}
    alone = [
        {**about, "spanId": SPAN, "eventName": "gen_ai.evaluation.result"},
        {**about, "spanId": "1", "parentSpanId": SPAN},
    ]
    for row in rows_of(tmp_path, opentelemetry, *alone):
        assert (row["kind"], row["id"], row["trace"], row["start"]) == ("score", SPAN, TRACE, START)
        assert (row["feedback"], row["accepted"]) == expected


# Identity


NOBODY = {key: one for key, one in (BASIC | IN_JSON).items() if key not in ("user.id",)}
del NOBODY["gen_ai.conversation.id"]


@pytest.mark.parametrize(
    ("found", "session", "user"),
    [
        ({}, None, None),
        ({"session.id": "t", "enduser.id": "bob"}, "t", "bob"),
        ({"gen_ai.conversation.id": "c", "session.id": "t"}, "c", None),
        ({"traceloop.association.properties.chat_id": "t"}, "t", None),
        ({"ai.telemetry.metadata.session.id": "t", "ai.telemetry.metadata.user_id": "b"}, "t", "b"),
        ({"langfuse.session.id": "t", "langfuse.user.id": "b"}, "t", "b"),
        ({"metadata": json.dumps({"session_id": "t", "user_id": "b"})}, "t", "b"),
        ({"metadata.user_api_key_end_user_id": "b", "llm.user": "c"}, None, "b"),
        ({"metadata.user_api_key_user_id": "owner"}, None, None),
    ],
)
def test_sessions_and_users_of_spans(tmp_path, found, session, user):
    (row,) = rows_of(tmp_path, opentelemetry, _span(NOBODY | found))
    assert (row["session"], row["user"]) == (session, user)
    assert row["owner"] == found.get("metadata.user_api_key_user_id")
    (other,) = rows_of(tmp_path, opentelemetry, _span({"http.method": "GET"} | found))
    assert (other["kind"], other["session"], other["user"]) == ("span", session, user)


def test_a_resource_says_whose_its_spans_are(tmp_path):
    rows = rows_of(tmp_path, opentelemetry, _line(_span(NOBODY), _span({}), **{"session.id": "r"}))
    assert [row["session"] for row in rows] == ["r", "r"]
    rows = rows_of(tmp_path, opentelemetry, _line(_span(BASIC | IN_JSON), **{"session.id": "r"}))
    assert [row["session"] for row in rows] == ["s"]


def test_zeros_are_no_ids(tmp_path):
    found = _span(BASIC | IN_JSON, traceId="0" * 32, spanId="0" * 16, parentSpanId="0" * 16)
    (row,) = rows_of(tmp_path, opentelemetry, found)
    assert (row["id"], row["trace"], row["parent"]) == (None, None, None)
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, parentSpanId=ROOT))
    assert (row["id"], row["trace"], row["parent"]) == (SPAN, TRACE, ROOT)


def test_what_a_request_is_for(tmp_path):
    found = {"tag.tags": ["beta"], "gen_ai.agent.name": "titles", "traceloop.workflow.name": "w"}
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON | found))
    assert row["marks"] == ["chat gpt-4o", "beta", "w", "titles"]


# Which spans are requests


@pytest.mark.parametrize(
    "operation",
    ["generate_content", "text_completion", "acompletion", "aresponses", "chat.completions",
     "chat.streaming_completions", "some.chat.of.tomorrow", "respond", "chat_with_tools",
     "completions.tools", "planner.chat"],
)  # fmt: skip
def test_operations_that_have_the_shape_of_a_chat(tmp_path, operation):
    found = BASIC | IN_JSON | {"gen_ai.operation.name": operation}
    assert rows_of(tmp_path, opentelemetry, _span(found)) == [{**OF_SPAN, "call": operation}]


@pytest.mark.parametrize(
    ("found", "call"),
    [
        ({"http.request.method": "GET"}, None),
        ({"gen_ai.conversation.id": "s", "gen_ai.agent.name": "a"}, None),
        ({"llm.openai.messages": FLAT}, None),  # the gateway's own request below a request
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}, "execute_tool"),
        ({"gen_ai.operation.name": "create_agent"}, "create_agent"),
        ({"openinference.span.kind": "CHAIN", "input.value": "{}"}, "CHAIN"),
        ({"openinference.span.kind": "TOOL", "input.value": "Why?"}, "TOOL"),
        ({"traceloop.span.kind": "task", "traceloop.entity.name": "t"}, "task"),
        ({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "weather"}, "ai.toolCall"),
    ],
)
def test_spans_that_are_no_requests(tmp_path, found, call):
    (row,) = rows_of(tmp_path, opentelemetry, _span(found, parentSpanId=ROOT))
    assert (row["kind"], row["call"], row["parent"]) == ("span", call, ROOT)
    assert (row["text"], row["message"], row["turn"]) == (None, None, None)


@pytest.mark.parametrize(
    "found",
    [
        BASIC | IN_JSON | {"gen_ai.operation.name": "invoke_agent"},
        {"openinference.span.kind": "CHAIN", "input.value": "Why?"},
        {"openinference.span.kind": "AGENT", "input.value": FLAT},
        {"traceloop.span.kind": "workflow", "gen_ai.input.messages": FLAT},
    ],
)
def test_the_outermost_span_says_what_the_user_asked(tmp_path, found):
    outermost, below = rows_of(
        tmp_path, opentelemetry, _line(_span(found), _span(found, parentSpanId=ROOT))
    )
    assert (outermost["kind"], below["kind"]) == ("span", "span")
    assert (outermost["message"], below["message"]) == (digest("Why?"), None)


@pytest.mark.parametrize(
    "found",
    [
        {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"},
        {"openinference.span.kind": "EMBEDDING", "input.value": "Why?"},
        {"openinference.span.kind": "RERANKER"},
        {"llm.request.type": "embedding", "gen_ai.prompt.0.content": "Why?"},
        {"ai.operationId": "ai.embed.doEmbed", "ai.model.id": "e"},
        {"gen_ai.operation.name": "count_tokens", "gen_ai.request.model": "e"},
    ],
)
def test_other_calls_are_named(tmp_path, found):
    (row,) = rows_of(tmp_path, opentelemetry, _span(found))
    (call,) = (found[key] for key in opentelemetry.OPERATIONS if key in found)
    assert (row["kind"], row["call"], row["message"], row["text"]) == ("request", call, None, None)


@pytest.mark.parametrize(
    ("given", "after"),
    [
        (TOOL_STEP, 2),
        ([*_parts(said("Hi")), {"role": "user", "parts": [{"type": "tool_call_response"}]}], 1),
    ],
)
def test_steps_of_programs(tmp_path, given, after):
    found = BASIC | {"gen_ai.input.messages": json.dumps(given)}
    (row,) = rows_of(tmp_path, opentelemetry, _span(found))
    assert (row["after"], row["tools"]) == (after, True)


@pytest.mark.parametrize(
    "names",
    [
        ("resource_spans", "scope_spans"),
        ("batches", "scopeSpans"),
        ("batches", "instrumentationLibrarySpans"),
        ("resourceSpans", "instrumentationLibrarySpans"),
    ],
)
def test_names_that_others_give_to_the_levels_of_a_line(tmp_path, names):
    (outer,) = _line(_span(BASIC | IN_JSON))["resourceSpans"]
    spans = outer.pop("scopeSpans")
    found = {names[0]: [{**outer, names[1]: spans}]}
    assert rows_of(tmp_path, opentelemetry, found) == [OF_SPAN]


def test_spans_without_a_known_level_are_set_aside(tmp_path):
    found = {"resourceSpans": [{"spansOfTomorrow": [{"spans": [_span(BASIC | IN_JSON)]}]}]}
    assert reason_of(tmp_path, opentelemetry, found) == log_format.NOT_JSON


@pytest.mark.parametrize(
    "found", [{"resourceSpans": []}, {"resourceSpans": [{"scopeSpans": None}]}]
)
def test_lines_without_spans(tmp_path, found):
    assert rows_of(tmp_path, opentelemetry, found) == []


# What is set aside


def _deep(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return any_value(value)


def _deep_key(depth: int) -> Any:
    value: Any = {"a": "x"}
    for _ in range(depth):
        value = {"a": value}
    return any_value(value)


WITHOUT = {key: one for key, one in VERCEL.items() if key != "ai.response.text"}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (_span(BASIC), opentelemetry.NO_GENAI),
        (_span(OPENINFERENCE), opentelemetry.NO_OPENINFERENCE),
        (_span(TRACELOOP), opentelemetry.NO_OPENLLMETRY),
        (_span(WITHOUT), opentelemetry.NO_VERCEL),
        (_span(OPENINFERENCE | {"input.value": "__REDACTED__"}), messages.NO_CONTENT),
        (_span(IN_JSON), opentelemetry.NO_MODEL),
        (
            _span(BASIC | {"gen_ai.input.messages": IN_JSON["gen_ai.input.messages"][:50]}),
            messages.NO_JSON,
        ),
        (
            _span(BASIC | {"gen_ai.prompt": "[{'role': 'user', 'content': 'Why?'}]"}),
            messages.NO_JSON,
        ),
        (_span(BASIC | IN_JSON, startTimeUnixNano="soon"), log_format.NO_TIMESTAMP),
        (_span(BASIC | IN_JSON, startTimeUnixNano="9" * 21), log_format.NO_TIMESTAMP),
        (
            _span(BASIC | IN_JSON, attributes={"gen_ai.request.model": "x"}),
            opentelemetry.NO_ATTRIBUTES,
        ),
        (_span(BASIC | IN_JSON, attributes=[7]), opentelemetry.NO_ATTRIBUTES),
        (
            _span(BASIC, attributes=[{"key": "gen_ai.input.messages", "value": _deep_key(99)}]),
            opentelemetry.NO_ATTRIBUTES,
        ),
        (
            {"attributes": key_values({"event.name": "gen_ai.user.message"})},
            opentelemetry.LONE_MESSAGE,
        ),
        ({"eventName": "gen_ai.choice", "attributes": []}, opentelemetry.LONE_MESSAGE),
        (_span(BASIC | IN_JSON, *[{"name": "x"}] * 10_001), log_format.LONG_RECORD),
        (_span(BASIC | IN_JSON | {"user.id": ["ann"]}), fields.NO_NAME),
        ({"resourceSpans": 7}, log_format.NOT_JSON),
        (_line(7), log_format.NOT_JSON),
    ],
)
def test_what_is_set_aside_of_opentelemetry(tmp_path, found, reason):
    assert reason_of(tmp_path, opentelemetry, found) == reason


def test_values_that_are_too_deep_are_null(tmp_path):
    deep = [{"key": "gen_ai.input.messages", "value": _deep(200)}, *key_values(BASIC)]
    assert reason_of(tmp_path, opentelemetry, _span({}, attributes=deep)) == messages.NO_MESSAGES


def test_names_with_many_dots_end_somewhere(tmp_path):
    found = BASIC | {"gen_ai.prompt.0." + ".".join("a" * 5000): "x", "gen_ai.prompt.x.role": "y"}
    assert reason_of(tmp_path, opentelemetry, _span(found)) == opentelemetry.NO_GENAI


def test_zero_is_no_time(tmp_path):
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, endTimeUnixNano="0"))
    assert (row["start"], row["end"], row["latency"]) == (START, None, None)
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano="0"))
    assert (row["start"], row["latency"]) == (None, None)
    later = NANO + int(timedelta(days=1).total_seconds()) * 10**9
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano=later))
    assert (row["start"], row["latency"]) == (START + timedelta(days=1), None)

"""OpenTelemetry: made-up spans and events in the official shapes."""

import json
from datetime import timedelta
from typing import Any

import pytest
from made_up_records import OF_TURN, START, TOOL_STEP, reason_of, rows_of, said
from simulated import any_value, key_values

from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats import messages, opentelemetry

NANO = int(START.timestamp()) * 1_000_000_000


def _parts(*contents: Any) -> list[dict[str, Any]]:
    messages_said = said(*contents)
    return [
        {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
        for one in messages_said
    ]


INPUT = [{"role": "system", "parts": [{"type": "text", "content": "Be kind."}]}]
INPUT += _parts("Why?", "So.", "Why? ")
OUTPUT = [
    {
        "role": "assistant",
        "parts": [{"type": "text", "content": "Because."}],
        "finish_reason": "stop",
    },
    {"role": "assistant", "parts": [{"type": "text", "content": "No."}], "finish_reason": "stop"},
]
BASIC = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4",
    "gen_ai.request.max_tokens": 200,
    "gen_ai.response.model": "gpt-4-0613",
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
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "00f067aa0ba902b7",
        "name": "chat gpt-4",
        "kind": 3,
        "startTimeUnixNano": str(NANO),
        "endTimeUnixNano": str(NANO + 2_500_000_000),
        "attributes": key_values(found),
        "events": list(events),
        "status": {},
    }
    return span | rest


def _line(*spans: Any) -> dict[str, Any]:
    scope = {"scope": {"name": "opentelemetry.instrumentation.openai_v2"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]}


OF_SPAN = {**OF_TURN, "model": "gpt-4", "cost": None}
NUMBERED = {
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be kind.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "Why?",
    "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.content": "So.",
    "gen_ai.prompt.10.role": "user",
    "gen_ai.prompt.10.content": "Why? ",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "Because.",
}
FLAT = json.dumps(said("Why?", "So.", "Why? "))
MADE = json.dumps([{"role": "assistant", "content": "Because."}])


@pytest.mark.parametrize(
    "found",
    [
        _line(_span(BASIC | IN_JSON)),
        _span(BASIC | IN_JSON),
        _line(_span(BASIC | CONTENT)),
        _span(BASIC, _event("gen_ai.client.inference.operation.details", **CONTENT)),
        _span(BASIC | NUMBERED),
        _span(dict(reversed((BASIC | NUMBERED).items()))),
        _span(BASIC | {"gen_ai.prompt": FLAT, "gen_ai.completion": MADE}),
        _span(
            BASIC,
            _event("gen_ai.content.prompt", gen_ai__prompt=FLAT),
            _event("gen_ai.content.completion", gen_ai__completion=MADE),
        ),
        _span(
            BASIC,
            _event("gen_ai.system.message", content="Be kind."),
            _event("gen_ai.user.message", content="Why?"),
            _event("gen_ai.assistant.message", content="So.", role="assistant"),
            _event("gen_ai.user.message", content="Why? "),
            _event("gen_ai.choice", index=0, message={"content": "Because."}),
        ),
        _span({key: one for key, one in (BASIC | IN_JSON).items() if "operation" not in key}),
    ],
)
def test_a_span_in_all_the_shapes_that_content_has_had(tmp_path, found):
    assert rows_of(tmp_path, opentelemetry, found) == [OF_SPAN]


def test_an_event_in_a_log(tmp_path):
    """It has no end, so there is no latency."""
    event = {
        "timeUnixNano": str(NANO),
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": key_values(BASIC | CONTENT),
        "spanId": "00f067aa0ba902b7",
    }
    line = {"resourceLogs": [{"scopeLogs": [{"logRecords": [event, {"eventName": "started"}]}]}]}
    assert rows_of(tmp_path, opentelemetry, line) == [{**OF_SPAN, "latency": None}]


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
    assert {row["model"] for row in rows} == {"gpt-4"}, "or a failure would be another LLM's"


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
    found = {f"gen_ai.evaluation.{key}": value for key, value in evaluation.items()}
    event = {"name": "gen_ai.evaluation.result", "attributes": key_values(found)}
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, event))
    assert (row["feedback"], row["accepted"]) == expected


def test_sessions_and_users_of_spans(tmp_path):
    without = {key: one for key, one in (BASIC | IN_JSON).items() if key not in ("user.id",)}
    del without["gen_ai.conversation.id"]
    found = [
        _span(BASIC | IN_JSON | {"session.id": "other"}),
        _span(without | {"session.id": "other"}),
        _span(without | {"enduser.id": "bob"}),
        _span(without),
        _span(without | {"gen_ai.input.messages": json.dumps(_parts("Why?"))}),
    ]
    rows = rows_of(tmp_path, opentelemetry, *found)
    sessions = [row["session_id"] for row in rows]
    assert sessions[:2] == ["s", "other"]
    assert sessions[3] == sessions[4] != sessions[2]
    assert [row["user_id"] for row in rows] == ["ann", None, "bob", None, None]


@pytest.mark.parametrize(
    "found",
    [
        _span({"http.request.method": "GET"}),
        _span({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}),
        _span(BASIC | IN_JSON | {"gen_ai.operation.name": "invoke_agent"}),
        _span(BASIC | {"gen_ai.input.messages": json.dumps(TOOL_STEP)}),
        _span(
            BASIC
            | {
                "gen_ai.input.messages": [
                    *_parts("Weather?"),
                    {"role": "user", "parts": [{"type": "tool_call_response", "id": "1"}]},
                ]
            }
        ),
        {"resourceSpans": []},
        {"resourceSpans": [{"scopeSpans": None}]},
    ],
)
def test_spans_that_are_no_turn(tmp_path, found):
    assert rows_of(tmp_path, opentelemetry, found) == []


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


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (_span(BASIC), opentelemetry.NO_CONTENT),
        (_span(IN_JSON), opentelemetry.NO_MODEL),
        (
            _span(BASIC | {"gen_ai.input.messages": IN_JSON["gen_ai.input.messages"][:50]}),
            opentelemetry.NO_JSON,
        ),
        (
            _span(BASIC | {"gen_ai.prompt": "[{'role': 'user', 'content': 'Why?'}]"}),
            opentelemetry.NO_JSON,
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
        (_span({"gen_ai.evaluation.name": "user_feedback"}), opentelemetry.LONE_EVALUATION),
        (
            {"eventName": "gen_ai.evaluation.result", "attributes": []},
            opentelemetry.LONE_EVALUATION,
        ),
        (
            {"attributes": key_values({"event.name": "gen_ai.user.message"})},
            opentelemetry.LONE_MESSAGE,
        ),
        (_span(BASIC | IN_JSON, *[{"name": "x"}] * 10_001), log_format.LONG_RECORD),
        ({"resourceSpans": 7}, log_format.NOT_JSON),
        (_line(7), log_format.NOT_JSON),
    ],
)
def test_what_is_set_aside_of_opentelemetry(tmp_path, found, reason):
    assert reason_of(tmp_path, opentelemetry, found) == reason


def test_values_that_are_too_deep_are_null(tmp_path):
    deep = [{"key": "gen_ai.input.messages", "value": _deep(200)}, *key_values(BASIC)]
    assert reason_of(tmp_path, opentelemetry, _span({}, attributes=deep)) == messages.NO_MESSAGES


def test_zero_is_no_time(tmp_path):
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, endTimeUnixNano="0"))
    assert (row["timestamp"], row["latency"]) == (START, None)
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano="0"))
    assert (row["timestamp"], row["latency"]) == (None, None)
    later = NANO + int(timedelta(days=1).total_seconds()) * 10**9
    (row,) = rows_of(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano=later))
    assert (row["timestamp"], row["latency"]) == (START + timedelta(days=1), None)

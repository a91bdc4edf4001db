"""LiteLLM, Langfuse and OpenTelemetry: made-up records in the official shapes."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from logs.simulated import any_value, key_values

from cqbayes.logs import langfuse, litellm, messages, opentelemetry, records
from cqbayes.logs.records import Turns, turns

START = datetime(2025, 6, 1, 12, tzinfo=UTC)
NANO = int(START.timestamp()) * 1_000_000_000


def _read(tmp_path, importer, *found: Any) -> Turns:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return turns(importer.IMPORTER, path)


def _rows(tmp_path, importer, *found: Any) -> list[dict[str, Any]]:
    stream = _read(tmp_path, importer, *found)
    rows = [row for batch in stream for row in batch.to_pylist()]
    assert stream.report.set_aside == {}
    return rows


def _reason(tmp_path, importer, found: Any) -> str:
    stream = _read(tmp_path, importer, found)
    assert list(stream) == []
    (reason,) = stream.report.set_aside
    return reason


def _said(*contents: Any) -> list[dict[str, Any]]:
    """A user and an assistant by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": one} for i, one in enumerate(contents)]


def _assistant(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


def _nested(depth: int) -> dict[str, Any]:
    """Responses in responses, which no API gives."""
    return {"output": [_nested(depth - 1)]} if depth else {}


TOOL_STEP = [
    *_said("Weather in Paris?"),
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rainy"},
]
ANTHROPIC_STEP = [
    *_said("Weather in Paris?", [{"type": "tool_use", "id": "toolu_1", "name": "weather"}]),
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
]
ANTHROPIC_TURN = [
    *ANTHROPIC_STEP[:-1],
    {
        "role": "user",
        "content": [*ANTHROPIC_STEP[-1]["content"], {"type": "text", "text": "And in Rome?"}],
    },
]

# LiteLLM


def _payload(**rest: Any) -> dict[str, Any]:
    payload = {
        "id": "chatcmpl-BcVx",
        "trace_id": "3f1c",
        "call_type": "acompletion",
        "stream": False,
        "response_cost": 0.00325,
        "cost_breakdown": {"total_cost": 0.00325},
        "response_cost_failure_debug_info": None,
        "status": "success",
        "custom_llm_provider": "openai",
        "total_tokens": 60,
        "prompt_tokens": 40,
        "completion_tokens": 20,
        "startTime": START.timestamp(),
        "endTime": START.timestamp() + 2.5,
        "completionStartTime": START.timestamp() + 2.5,
        "response_time": 2.5,
        "model_map_information": {"model_map_key": "gpt-4o", "model_map_value": None},
        "model": "gpt-4o",
        "model_id": "7c",
        "model_group": "chat",
        "api_base": "https://api.openai.com",
        "metadata": {
            "user_api_key_hash": "88dc",
            "user_api_key_user_id": "key-owner",
            "user_api_key_end_user_id": None,
            "requester_metadata": {},
            "attempted_retries": 0,
            "max_retries": 2,
        },
        "cache_hit": None,
        "request_tags": ["User-Agent: curl"],
        "end_user": "ann",
        "messages": [{"role": "system", "content": "Be kind."}, *_said("Why?", "So.", "Why? ")],
        "response": {
            "id": "chatcmpl-BcVx",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Because."}},
                {"index": 1, "message": {"role": "assistant", "content": "No reason at all."}},
            ],
        },
        "error_str": None,
        "error_information": {"error_code": "", "error_class": ""},
        "model_parameters": {"temperature": 1},
        "hidden_params": {"model_id": "7c"},
    }
    return payload | rest


FAILED = {
    "status": "failure",
    "response": {},
    "response_cost": 0,
    "error_str": "litellm.Timeout: APITimeoutError - Request timed out",
    "error_information": {"error_code": "408", "error_class": "Timeout"},
}


def test_a_payload(tmp_path):
    (row,) = _rows(tmp_path, litellm, _payload(session_id="s"))
    assert row == {
        "session_id": "s",
        "turn": 1,
        "user_id": "ann",
        "timestamp": START,
        "model": "gpt-4o",
        "text": "Why? ",
        "response_chars": 8,
        "language": None,
        "latency": 2.5,
        "cost": 0.00325,
        "failed": False,
        "regenerated": None,
        "feedback": None,
        "accepted": None,
        "repeated": True,
    }


def test_the_gateway_sends_again_and_the_user_asks_again(tmp_path):
    """Both have the same turn; only what follows an answer is the user's."""
    sent = [
        _payload(session_id="s", **FAILED),
        _payload(session_id="s", metadata={"attempted_retries": 1}, model="gpt-4o-mini"),
        _payload(session_id="s", metadata={"attempted_retries": 0}),
    ]
    rows = _rows(tmp_path, litellm, *sent)
    assert [row["turn"] for row in rows] == [1, 1, 1]
    assert [row["failed"] for row in rows] == [True, False, False]
    assert [row["regenerated"] for row in rows] == [None, False, None]
    assert [row["response_chars"] for row in rows] == [None, 8, 8]


def test_sessions_of_litellm(tmp_path):
    given = {"requester_metadata": {"session_id": "given"}}
    first = _payload(messages=_said("Hi"))
    found = [
        _payload(session_id="s", trace_id="t"),
        _payload(metadata=given),
        # Which may be made up for the one request, as the trace is.
        _payload(session_id="t", trace_id="t"),
        _payload(session_id=None, trace_id="u"),
        first,
        _payload(messages=_said("Hi", "Hello!", "Why?")),
        _payload(messages=_said("Hi"), end_user="bob"),
    ]
    sessions = [row["session_id"] for row in _rows(tmp_path, litellm, *found)]
    assert sessions[:2] == ["s", "given"]
    assert sessions[2] == sessions[3] not in ("t", "u")
    assert sessions[4] == sessions[5] != sessions[6]
    assert "Hi" not in "".join(sessions)


def test_users_and_models_of_litellm(tmp_path):
    keys = {"user_api_key_end_user_id": "end", "user_api_key_user_id": "owner"}
    found = [
        _payload(),
        _payload(end_user=None, metadata=keys),
        _payload(end_user="", metadata={"user_api_key_user_id": "owner"}),
        _payload(end_user=None, metadata={}, model=""),
    ]
    rows = _rows(tmp_path, litellm, *found)
    assert [row["user_id"] for row in rows] == ["ann", "end", "owner", None]
    assert [row["model"] for row in rows] == ["gpt-4o", "gpt-4o", "gpt-4o", "chat"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"response_cost_failure_debug_info": {"error_str": "unknown model"}}, {"cost": None}),
        ({"endTime": None}, {"latency": 2.5}),
        ({"endTime": None, "stream": True}, {"latency": None}),  # to the first token, that is
        ({"endTime": START.timestamp() - 1}, {"latency": None}),
        ({"startTime": "2025-06-01T14:00:00+02:00"}, {"timestamp": START}),
        ({"status": None, "error_str": "x"}, {"failed": True, "response_chars": None}),
        ({"status": None}, {"failed": None, "response_chars": 8}),
        ({"messages": "Once upon a time"}, {"text": "Once upon a time", "turn": 0}),
        (
            {
                "call_type": "aresponses",
                "messages": _said([{"type": "input_text", "text": "Why?"}]),
            },
            {"text": "Why?"},
        ),
        ({"messages": _said([{"type": "image_url", "image_url": {"url": "data:"}}])}, {"text": ""}),
        ({"messages": ANTHROPIC_TURN}, {"text": "And in Rome?", "turn": 1}),
        ({"response": "So."}, {"response_chars": 3}),
        ({"response": {"choices": [{"text": "So."}]}}, {"response_chars": 3}),
        ({"response": {"content": [{"type": "text", "text": "So."}]}}, {"response_chars": 3}),
        (
            {
                "response": {
                    "output": [
                        {"type": "reasoning"},
                        {"type": "message", "content": [{"type": "output_text", "text": "So."}]},
                    ]
                }
            },
            {"response_chars": 3},
        ),
        ({"response": {"data": [1]}}, {"response_chars": None}),
        ({"response": {"choices": []}}, {"response_chars": None}),
        ({"response": {"choices": [{"message": {"content": 7}}]}}, {"response_chars": None}),
        (
            {"response": {"choices": [{"message": _assistant(None, tool_calls=[{"id": "1"}])}]}},
            {"response_chars": 0},
        ),
        ({"response": _nested(300)}, {"response_chars": None}),
    ],
)
def test_parts_of_a_payload(tmp_path, change, expected):
    (row,) = _rows(tmp_path, litellm, _payload(**change))
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    "change",
    [
        {"call_type": "aembedding", "messages": "x"},
        {"messages": TOOL_STEP},
        {"messages": ANTHROPIC_STEP, "call_type": "anthropic_messages"},
        {"messages": [*_said("x"), {"type": "function_call_output", "output": "42"}]},
    ],
)
def test_payloads_that_are_no_turn(tmp_path, change):
    assert _rows(tmp_path, litellm, _payload(**change)) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": None, "model_group": None}, litellm.NO_MODEL),
        ({"messages": None}, messages.NO_MESSAGES),
        ({"messages": []}, messages.NO_MESSAGES),
        ({"messages": [{"role": "user", "content": 7}]}, messages.NO_MESSAGES),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": _said("redacted-by-litellm")}, litellm.NO_CONTENT),
        ({"messages": _said("x") * 10_001}, records.LONG_RECORD),
        ({"model_parameters": {"previous_response_id": "resp_1"}}, litellm.NO_CONVERSATION),
        ({"response_cost": "free"}, messages.NO_NUMBER),
        ({"response_cost": -1}, messages.NO_NUMBER),
        ({"response_cost": 10**400}, messages.NO_NUMBER),
        ({"startTime": float("inf")}, records.NO_TIMESTAMP),
        ({"startTime": 1e300}, records.NO_TIMESTAMP),
        ({"end_user": ["ann"]}, messages.NO_NAME),
    ],
)
def test_payloads_that_are_set_aside(tmp_path, change, reason):
    assert _reason(tmp_path, litellm, _payload(**change)) == reason


def test_what_is_no_payload(tmp_path):
    assert _reason(tmp_path, litellm, {"event": "started"}) == litellm.NO_PAYLOAD


# Langfuse


def _generation(**rest: Any) -> dict[str, Any]:
    generation = {
        "id": "o1",
        "traceId": "t1",
        "type": "GENERATION",
        "name": "answer",
        "startTime": "2025-06-01T12:00:00.000Z",
        "endTime": "2025-06-01T12:00:02.500Z",
        "completionStartTime": None,
        "model": "gpt-4o",
        "modelParameters": {"temperature": 1},
        "input": [{"role": "system", "content": "Be kind."}, *_said("Why?", "So.", "Why? ")],
        "output": {"role": "assistant", "content": "Because."},
        "metadata": {},
        "level": "DEFAULT",
        "statusMessage": None,
        "parentObservationId": None,
        "usageDetails": {"input": 40, "output": 20, "total": 60},
        "costDetails": {"input": 0.001, "output": 0.00225, "total": 0.00325},
        "calculatedTotalCost": 0.00325,
        "latency": 2.5,
    }
    return generation | rest


def _trace(*observations: Any, scores: Any = (), **rest: Any) -> dict[str, Any]:
    trace = {
        "id": "t1",
        "timestamp": "2025-06-01T12:00:00.000Z",
        "name": "chat",
        "input": None,
        "output": None,
        "sessionId": "s",
        "userId": "ann",
        "tags": [],
        "htmlPath": "/project/p/traces/t1",
        "latency": 2.5,
        "totalCost": 0.00325,
        "observations": list(observations),
        "scores": list(scores),
    }
    return trace | rest


def _score(name: str, value: Any, **rest: Any) -> dict[str, Any]:
    score = {
        "id": "c1",
        "traceId": "t1",
        "name": name,
        "value": value,
        "dataType": "BOOLEAN",
        "source": "API",
        "observationId": None,
        "timestamp": "2025-06-01T12:01:00.000Z",
        "comment": "Not for anybody else to read",
    }
    return score | rest


OF_GENERATION = {
    "session_id": "s",
    "turn": 1,
    "user_id": "ann",
    "timestamp": START,
    "model": "gpt-4o",
    "text": "Why? ",
    "response_chars": 8,
    "language": None,
    "latency": 2.5,
    "cost": 0.00325,
    "failed": False,
    "regenerated": None,
    "feedback": None,
    "accepted": None,
    "repeated": True,
}
IN_STORAGE = {
    "id": "o1",
    "trace_id": "t1",
    "type": "GENERATION",
    "start_time": "2025-06-01 12:00:00.000000",
    "end_time": "2025-06-01 12:00:02.500000",
    "provided_model_name": "gpt-4o",
    "input": json.dumps(_generation()["input"]),
    "output": json.dumps(_generation()["output"]),
    "level": "DEFAULT",
    "cost_details": {"total": 0.00325},
    "user_id": "ann",
    "session_id": "s",
}
VERSION_2 = {
    **_generation(input=IN_STORAGE["input"], output=IN_STORAGE["output"]),
    "model": None,
    "providedModelName": "gpt-4o",
    "costDetails": {},
    "totalCost": 0.00325,
    "userId": "ann",
    "sessionId": "s",
}


@pytest.mark.parametrize(
    "found",
    [
        _trace(_generation()),
        _trace({"id": "o0", "type": "SPAN", "input": "x"}, _generation()),
        {"data": [_trace(_generation())], "meta": {"page": 1, "limit": 50}},
        {**_generation(), "userId": "ann", "sessionId": "s"},
        VERSION_2,
        IN_STORAGE,
    ],
)
def test_a_generation(tmp_path, found):
    assert _rows(tmp_path, langfuse, found) == [OF_GENERATION]


def test_pages_are_unpacked_in_json_too(tmp_path):
    path = tmp_path / "page.json"
    page = {"data": [_trace(_generation()), 7, _trace(_generation())], "meta": {}}
    path.write_text(json.dumps(page, indent=1))
    stream = turns(langfuse.IMPORTER, path)
    assert sum(len(batch) for batch in stream) == 2
    assert stream.report[:3] == (3, 2, {records.NOT_JSON: 1})


def test_the_application_sends_again_in_a_trace(tmp_path):
    """After a failure it is the application; after an answer nobody knows."""
    later = [f"2025-06-01T12:0{minute}:00.000Z" for minute in range(4)]
    failed = {"level": "ERROR", "statusMessage": "429", "output": None}
    found = _trace(
        _generation(id="o3", startTime=later[2]),
        _generation(id="o1", startTime=later[0], **failed),
        _generation(id="o2", startTime=later[1], **failed),
        _generation(id="o4", startTime=later[3]),
    )
    rows = _rows(tmp_path, langfuse, found)
    assert [row["failed"] for row in rows] == [True, True, False, False]
    assert [row["regenerated"] for row in rows] == [None, False, False, None]
    assert [row["response_chars"] for row in rows] == [None, None, 8, 8]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (_score("user-feedback", 1), (None, 1)),
        (_score("user-feedback", 0), (None, -1)),
        (_score("User Feedback", -1, dataType="NUMERIC"), (None, -1)),
        (_score("feedback", 1, observationId="o1"), (1, None)),
        (_score("feedback", 1, observationId="elsewhere"), (None, None)),
        # The value of a category is 0 where nobody has given it another.
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="up"), (None, 1)),
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="sideways"), (None, None)),
        (_score("user-feedback", 4, dataType="NUMERIC"), (None, None)),
        (_score("user-feedback", 1, source="EVAL"), (None, None)),
        (_score("user-feedback", 1, source="ANNOTATION"), (None, None)),
        (_score("faithfulness", 1), (None, None)),
        (_score("user-feedback", None), (None, None)),
        (7, (None, None)),
    ],
)
def test_scores(tmp_path, score, expected):
    second = _generation(id="o2", startTime="2025-06-01T12:05:00.000Z", input=_said("Hi"))
    rows = _rows(tmp_path, langfuse, _trace(_generation(), second, scores=[score]))
    assert tuple(row["feedback"] for row in rows) == expected


def test_taken_answers(tmp_path):
    found = [_trace(_generation(), scores=[_score("copied", value)]) for value in (1, 0)]
    assert [row["accepted"] for row in _rows(tmp_path, langfuse, *found)] == [True, False]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input": "Why?"}, {"text": "Why?", "turn": 0}),
        ({"input": {"messages": _said("Why?")}}, {"text": "Why?"}),
        ({"input": '{"pasted": "by a user"}'}, {"text": '{"pasted": "by a user"}'}),
        ({"input": "[" * 100_000}, {"text": "[" * 100_000}),
        ({"output": "So."}, {"response_chars": 3}),
        ({"output": None}, {"response_chars": None}),
        ({"endTime": None}, {"latency": 2.5}),
        (
            {"costDetails": {}, "calculatedTotalCost": None, "usage": {"totalCost": 0.5}},
            {"cost": 0.5},
        ),
        ({"costDetails": {}, "calculatedTotalCost": None}, {"cost": None}),
    ],
)
def test_parts_of_a_generation(tmp_path, change, expected):
    (row,) = _rows(tmp_path, langfuse, _trace(_generation(**change)))
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (_trace("o1", "o2"), langfuse.IDS_ONLY),
        (_trace(7), langfuse.NO_RECORD),
        (_score("user-feedback", 1), langfuse.LONE_SCORE),
        ({"id": "s", "projectId": "p"}, langfuse.NO_RECORD),
        (_trace(_generation(model=None)), langfuse.NO_MODEL),
        (_trace(_generation(input=None)), messages.NO_MESSAGES),
        (_trace(_generation(startTime="noon")), records.NO_TIMESTAMP),
        (_trace(*[{"type": "SPAN"}] * 10_001), records.LONG_RECORD),
    ],
)
def test_what_is_set_aside_of_langfuse(tmp_path, found, reason):
    assert _reason(tmp_path, langfuse, found) == reason


def test_observations_that_are_no_turn(tmp_path):
    assert _rows(tmp_path, langfuse, _generation(type="SPAN"), _generation(input=TOOL_STEP)) == []
    assert _rows(tmp_path, langfuse, _trace()) == []


# OpenTelemetry


def _parts(*contents: Any) -> list[dict[str, Any]]:
    said = _said(*contents)
    return [
        {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
        for one in said
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


OF_SPAN = {**OF_GENERATION, "model": "gpt-4", "cost": None}
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
FLAT = json.dumps(_said("Why?", "So.", "Why? "))
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
    assert _rows(tmp_path, opentelemetry, found) == [OF_SPAN]


def test_an_event_in_a_log(tmp_path):
    """It has no end, so there is no latency."""
    event = {
        "timeUnixNano": str(NANO),
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": key_values(BASIC | CONTENT),
        "spanId": "00f067aa0ba902b7",
    }
    line = {"resourceLogs": [{"scopeLogs": [{"logRecords": [event, {"eventName": "started"}]}]}]}
    assert _rows(tmp_path, opentelemetry, line) == [{**OF_SPAN, "latency": None}]


def test_what_is_sent_again_follows_a_failure(tmp_path):
    failed = {key: one for key, one in (BASIC | IN_JSON).items() if ".response." not in key}
    found = [
        _span(failed | {"error.type": "timeout"}),
        _span(failed, status={"code": 2, "message": "x"}),
        _span(failed, status={"code": "STATUS_CODE_ERROR"}),
        _span(BASIC | IN_JSON, status={"code": 1}),
    ]
    rows = _rows(tmp_path, opentelemetry, _line(*found))
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
    (row,) = _rows(tmp_path, opentelemetry, _span(BASIC | IN_JSON, event))
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
    rows = _rows(tmp_path, opentelemetry, *found)
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
    assert _rows(tmp_path, opentelemetry, found) == []


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
        (_span(BASIC | IN_JSON, startTimeUnixNano="soon"), records.NO_TIMESTAMP),
        (_span(BASIC | IN_JSON, startTimeUnixNano="9" * 21), records.NO_TIMESTAMP),
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
        (_span(BASIC | IN_JSON, *[{"name": "x"}] * 10_001), records.LONG_RECORD),
        ({"resourceSpans": 7}, records.NOT_JSON),
        (_line(7), records.NOT_JSON),
    ],
)
def test_what_is_set_aside_of_opentelemetry(tmp_path, found, reason):
    assert _reason(tmp_path, opentelemetry, found) == reason


def test_values_that_are_too_deep_are_null(tmp_path):
    deep = [{"key": "gen_ai.input.messages", "value": _deep(200)}, *key_values(BASIC)]
    assert _reason(tmp_path, opentelemetry, _span({}, attributes=deep)) == messages.NO_MESSAGES


def test_zero_is_no_time(tmp_path):
    (row,) = _rows(tmp_path, opentelemetry, _span(BASIC | IN_JSON, endTimeUnixNano="0"))
    assert (row["timestamp"], row["latency"]) == (START, None)
    (row,) = _rows(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano="0"))
    assert (row["timestamp"], row["latency"]) == (None, None)
    later = NANO + int(timedelta(days=1).total_seconds()) * 10**9
    (row,) = _rows(tmp_path, opentelemetry, _span(BASIC | IN_JSON, startTimeUnixNano=later))
    assert (row["timestamp"], row["latency"]) == (START + timedelta(days=1), None)

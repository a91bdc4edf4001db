"""LiteLLM: made-up payloads in the official shape."""

from typing import Any

import pytest
from made_up_records import (
    ANTHROPIC_STEP,
    ANTHROPIC_TURN,
    OF_TURN,
    START,
    TOOL_STEP,
    assistant,
    nested,
    reason_of,
    rows_of,
    said,
)

from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats import litellm, messages


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
        "messages": [{"role": "system", "content": "Be kind."}, *said("Why?", "So.", "Why? ")],
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
    assert rows_of(tmp_path, litellm, _payload(session_id="s")) == [OF_TURN]


def test_the_gateway_sends_again_and_the_user_asks_again(tmp_path):
    """Both have the same turn; only what follows an answer is the user's."""
    sent = [
        _payload(session_id="s", **FAILED),
        _payload(session_id="s", metadata={"attempted_retries": 1}, model="gpt-4o-mini"),
        _payload(session_id="s", metadata={"attempted_retries": 0}),
    ]
    rows = rows_of(tmp_path, litellm, *sent)
    assert [row["turn"] for row in rows] == [1, 1, 1]
    assert [row["failed"] for row in rows] == [True, False, False]
    assert [row["regenerated"] for row in rows] == [None, False, None]
    assert [row["response_chars"] for row in rows] == [None, 8, 8]


def test_sessions_of_litellm(tmp_path):
    given = {"requester_metadata": {"session_id": "given"}}
    first = _payload(messages=said("Hi"))
    found = [
        _payload(session_id="s", trace_id="t"),
        _payload(metadata=given),
        # Which may be made up for the one request, as the trace is.
        _payload(session_id="t", trace_id="t"),
        _payload(session_id=None, trace_id="u"),
        first,
        _payload(messages=said("Hi", "Hello!", "Why?")),
        _payload(messages=said("Hi"), end_user="bob"),
    ]
    sessions = [row["session_id"] for row in rows_of(tmp_path, litellm, *found)]
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
    rows = rows_of(tmp_path, litellm, *found)
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
                "messages": said([{"type": "input_text", "text": "Why?"}]),
            },
            {"text": "Why?"},
        ),
        ({"messages": said([{"type": "image_url", "image_url": {"url": "data:"}}])}, {"text": ""}),
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
            {"response": {"choices": [{"message": assistant(None, tool_calls=[{"id": "1"}])}]}},
            {"response_chars": 0},
        ),
        ({"response": nested(300)}, {"response_chars": None}),
    ],
)
def test_parts_of_a_payload(tmp_path, change, expected):
    (row,) = rows_of(tmp_path, litellm, _payload(**change))
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    "change",
    [
        {"call_type": "aembedding", "messages": "x"},
        {"messages": TOOL_STEP},
        {"messages": ANTHROPIC_STEP, "call_type": "anthropic_messages"},
        {"messages": [*said("x"), {"type": "function_call_output", "output": "42"}]},
    ],
)
def test_payloads_that_are_no_turn(tmp_path, change):
    assert rows_of(tmp_path, litellm, _payload(**change)) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": None, "model_group": None}, litellm.NO_MODEL),
        ({"messages": None}, messages.NO_MESSAGES),
        ({"messages": []}, messages.NO_MESSAGES),
        ({"messages": [{"role": "user", "content": 7}]}, messages.NO_MESSAGES),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": said("redacted-by-litellm")}, litellm.NO_CONTENT),
        ({"messages": said("x") * 10_001}, log_format.LONG_RECORD),
        ({"model_parameters": {"previous_response_id": "resp_1"}}, litellm.NO_CONVERSATION),
        ({"response_cost": "free"}, messages.NO_NUMBER),
        ({"response_cost": -1}, messages.NO_NUMBER),
        ({"response_cost": 10**400}, messages.NO_NUMBER),
        ({"startTime": float("inf")}, log_format.NO_TIMESTAMP),
        ({"startTime": 1e300}, log_format.NO_TIMESTAMP),
        ({"end_user": ["ann"]}, messages.NO_NAME),
    ],
)
def test_payloads_that_are_set_aside(tmp_path, change, reason):
    assert reason_of(tmp_path, litellm, _payload(**change)) == reason


def test_what_is_no_payload(tmp_path):
    assert reason_of(tmp_path, litellm, {"event": "started"}) == litellm.NO_PAYLOAD

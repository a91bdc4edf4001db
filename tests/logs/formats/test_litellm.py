"""LiteLLM: made-up payloads and spend logs in the official shapes."""

import json
from datetime import timedelta
from typing import Any

import pytest
from made_up_records import (
    ANTHROPIC_STEP,
    ANTHROPIC_TURN,
    OF_REQUEST,
    SAID,
    START,
    TOOL_STEP,
    reason_of,
    rows_of,
    said,
)

from cqbayes.logs.formats import fields, litellm, messages
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats.digests import digest


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
            "user_api_key_alias": "app",
            "user_api_key_user_id": "key-owner",
            "user_api_key_end_user_id": None,
            "requester_metadata": {},
            "attempted_retries": 0,
            "max_retries": 2,
        },
        "cache_hit": None,
        "request_tags": ["User-Agent: curl"],
        "end_user": "ann",
        "messages": SAID,
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


def _spent(**rest: Any) -> dict[str, Any]:
    """A row of the table of spend logs, as it is exported: JSON stands in strings."""
    row = {
        "request_id": "chatcmpl-BcVx",
        "call_type": "acompletion",
        "api_key": "88dc",
        "spend": 0.00325,
        "startTime": "2025-06-01 12:00:00",
        "endTime": "2025-06-01 12:00:02.500000",
        "model": "gpt-4o",
        "user": "key-owner",
        "end_user": "ann",
        "metadata": json.dumps({"user_api_key_alias": "app", "attempted_retries": 0}),
        "request_tags": '["User-Agent: curl"]',
        "messages": json.dumps(SAID),
        "response": json.dumps(_payload()["response"]),
        "proxy_server_request": "{}",
        "session_id": "s",
        "status": "success",
    }
    return row | rest


FAILED = {
    "status": "failure",
    "response": {},
    "response_cost": 0,
    "error_str": "litellm.Timeout: APITimeoutError - Request timed out",
    "error_information": {"error_code": "408", "error_class": "Timeout"},
}
BODY = {"model": "gpt-4o", "messages": SAID}
OF_PAYLOAD = {
    **OF_REQUEST,
    "id": "chatcmpl-BcVx",
    "owner": "key-owner",
    "call": "acompletion",
    "marks": ["User-Agent: curl", "app"],
    "attempts": 0,
}


@pytest.mark.parametrize(
    "found",
    [
        _payload(session_id="s"),
        _payload(
            session_id="s", messages=json.dumps(SAID), metadata=json.dumps(_payload()["metadata"])
        ),
        _spent(),
        _spent(messages="{}", proxy_server_request=json.dumps(BODY)),
        _spent(messages={}, proxy_server_request=BODY, response=_payload()["response"]),
        _spent(messages=said("default-message-value"), proxy_server_request={"body": BODY}),
    ],
)
def test_a_payload(tmp_path, found):
    assert rows_of(tmp_path, litellm, found) == [OF_PAYLOAD]


def test_the_gateway_sends_again_and_the_user_asks_again(tmp_path):
    sent = [
        _payload(session_id="s", **FAILED),
        _payload(session_id="s", metadata={"attempted_retries": "1"}, model="gpt-4o-mini"),
        _payload(session_id="s", metadata={"attempted_retries": None}),
    ]
    rows = rows_of(tmp_path, litellm, *sent)
    assert [row["turn"] for row in rows] == [1, 1, 1]
    assert [row["failed"] for row in rows] == [True, False, False]
    assert [row["attempts"] for row in rows] == [0, 1, None]
    assert [row["response_chars"] for row in rows] == [None, 8, 8]
    assert [row["answer"] is None for row in rows] == [True, False, False]


CODING = "user_0a1b_account__session_2c4e1cf0-7a67"
CODING_JSON = json.dumps({"device_id": "d", "account_uuid": "a", "session_id": "2c4e"})


@pytest.mark.parametrize(
    ("change", "session"),
    [
        ({"session_id": "s", "trace_id": "t"}, "s"),
        # Which may be made up for the one request, as the trace is.
        ({"session_id": "t", "trace_id": "t"}, None),
        ({"session_id": None, "trace_id": "t"}, None),
        ({"metadata": {"requester_metadata": {"session_id": "s"}}}, "s"),
        ({"metadata": {"requester_metadata": {"chat_id": "s"}}}, "s"),
        ({"metadata": {"spend_logs_metadata": {"conversation_id": "s"}}}, "s"),
        ({"metadata": {"session_id": "s"}}, "s"),
        ({"proxy_server_request": {"litellm_session_id": "s", "messages": SAID}}, "s"),
        ({"proxy_server_request": json.dumps({"metadata": {"session_id": "s"}})}, "s"),
        ({"metadata": {"requester_custom_headers": {"X-LiteLLM-Session-Id": "s"}}}, "s"),
        ({"metadata": {"requester_custom_headers": {"x-openwebui-chat-id": "s"}}}, "s"),
        ({"request_tags": ["User-Agent: x", "X-OpenWebUI-Chat-Id: s"]}, "s"),
        ({"proxy_server_request": {"headers": {"x-session-id": "s"}, "body": BODY}}, "s"),
        ({"end_user": CODING}, "2c4e1cf0-7a67"),
        ({"end_user": CODING_JSON}, "2c4e"),
        ({"session_id": "s", "end_user": CODING}, "s"),
        ({"metadata": {"requester_metadata": {"session_id": ["s"]}}}, None),
        ({}, None),
    ],
)
def test_sessions_of_litellm(tmp_path, change, session):
    (row,) = rows_of(tmp_path, litellm, _payload(**change))
    assert (row["session"], row["trace"]) == (session, None)


@pytest.mark.parametrize(
    ("change", "user"),
    [
        ({"metadata": {"user_api_key_end_user_id": "end"}}, "end"),
        ({"metadata": {"requester_metadata": {"trace_user_id": "end"}}}, "end"),
        ({"metadata": {"requester_metadata": {"user_id": "end"}}}, "end"),
        ({"model_parameters": {"user": "end"}}, "end"),
        ({"proxy_server_request": {"user": "end"}}, "end"),
        ({"metadata": {"requester_custom_headers": {"x-litellm-end-user-id": "end"}}}, "end"),
        ({"request_tags": ["x-openwebui-user-email: e@x.org", "x-openwebui-user-id: end"]}, "end"),
        ({"end_user": CODING}, "user_0a1b_account_"),
        ({"end_user": CODING_JSON}, "a"),
        # The owner of a key is no user.
        ({"metadata": {"user_api_key_user_id": "owner"}}, None),
        ({"user": "owner", "spend": 0.1}, None),
        ({"user": "owner"}, None),
    ],
)
def test_users_of_litellm(tmp_path, change, user):
    (row,) = rows_of(tmp_path, litellm, _payload(**{"end_user": None, **change}))
    assert row["user"] == user
    assert not any("openwebui-user" in mark for mark in row["marks"])


def test_owners_and_llms_of_litellm(tmp_path):
    found = [
        _payload(),
        _payload(metadata={}, model="", user="ann"),
        _spent(metadata="{}"),
        _spent(metadata="{", user=""),
    ]
    rows = rows_of(tmp_path, litellm, *found)
    assert [row["owner"] for row in rows] == ["key-owner", None, "key-owner", None]
    assert [row["llm"] for row in rows] == ["gpt-4o", "chat", "gpt-4o", "gpt-4o"]


@pytest.mark.parametrize(
    ("change", "marks"),
    [
        (
            {"request_tags": ["litellm-internal-health-check"]},
            ["litellm-internal-health-check", "app"],
        ),
        ({"request_tags": '["a", "b", "a"]'}, ["a", "b", "app"]),
        ({"request_tags": [], "metadata": {"tags": ["title"], "task": "tags"}}, ["title", "tags"]),
        ({"request_tags": None, "metadata": {"requester_metadata": {"task": "title"}}}, ["title"]),
        (
            {
                "request_tags": [],
                "metadata": {"requester_custom_headers": {"X-OpenWebUI-Task": "title"}},
            },
            ["title"],
        ),
    ],
)
def test_what_a_request_is_for(tmp_path, change, marks):
    (row,) = rows_of(tmp_path, litellm, _payload(**change))
    assert row["marks"] == marks


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"response_cost": None, "response_cost_failure_debug_info": {"e": "x"}}, {"cost": None}),
        ({"response_cost": None}, {"cost": None}),
        ({"response_cost": 0.0, "cache_hit": True}, {"cost": 0.0}),
        ({"endTime": None}, {"latency": 2.5, "end": None}),
        ({"endTime": None, "stream": True}, {"latency": None}),  # to the first token, that is
        ({"endTime": START.timestamp() - 1}, {"latency": None}),
        ({"startTime": "2025-06-01T14:00:00+02:00"}, {"start": START}),
        ({"status": None, "error_str": "x"}, {"failed": True, "response_chars": None}),
        ({"status": None, "metadata": {"status": "failure"}}, {"failed": True}),
        ({"status": None}, {"failed": None, "response_chars": 8}),
        ({"messages": "Once upon a time"}, {"text": "Once upon a time", "turn": 0}),
        ({"messages": ANTHROPIC_TURN}, {"text": "And in Rome?", "turn": 1}),
        ({"messages": TOOL_STEP}, {"after": 2, "tools": True, "text": "Weather in Paris?"}),
        (
            {"messages": ANTHROPIC_STEP, "call_type": "anthropic_messages"},
            {"after": 2, "tools": True},
        ),
        ({"response": "redacted-by-litellm"}, {"response_chars": None, "answer": None}),
    ],
)
def test_parts_of_a_payload(tmp_path, change, expected):
    (row,) = rows_of(tmp_path, litellm, _payload(**change))
    assert {key: row[key] for key in expected} == expected


PASSED = [{"role": "user", "content": json.dumps(BODY)}]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Why?"}]}]}


@pytest.mark.parametrize(
    ("call", "given", "text"),
    [
        ("completion", SAID, "Why? "),
        ("atext_completion", "Why?", "Why?"),
        ("aresponses", "Why?", "Why?"),
        ("agenerate_content_stream", GEMINI["contents"], "Why?"),
        ("_arealtime", said("Why?"), "Why?"),
        ("pass_through_endpoint", said("Why?"), "Why?"),
        ("pass_through_endpoint", PASSED, "Why? "),
        ("allm_passthrough_route", [{"role": "user", "content": json.dumps(GEMINI)}], "Why?"),
        ("some_call_of_tomorrow", said("Why?"), "Why?"),
        (None, said("Why?"), "Why?"),
    ],
)
def test_calls_that_have_the_shape_of_a_chat(tmp_path, call, given, text):
    (row,) = rows_of(tmp_path, litellm, _payload(call_type=call, messages=given))
    assert (row["call"], row["text"]) == (call, text)
    assert row["message"] == digest(text.strip())


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("aembedding", "Why?"),
        ("aembedding", ["Why?", "How?"]),
        ("embedding", said("Why?")),
        ("aimage_generation", "A cat"),
        ("amoderation", said("Why?")),
        ("atranscription", "default-message-value"),
        ("arerank", None),
        ("some_call_of_tomorrow", "Why?"),
        ("aretrieve_batch", "default-message-value"),
        ("some_call_of_tomorrow", [{"type": "session.update"}]),
        ("pass_through_endpoint", [{"role": "user", "content": '{"documents": ["a"]}'}]),
    ],
)
def test_other_calls_are_named(tmp_path, call, given):
    (row,) = rows_of(tmp_path, litellm, _payload(call_type=call, messages=given, model=None))
    assert (row["kind"], row["call"], row["id"]) == ("request", call, "chatcmpl-BcVx")
    assert [row[key] for key in ("text", "message", "turn", "tools")] == [None] * 4


@pytest.mark.parametrize(
    "change",
    [
        {"model_parameters": {"previous_response_id": "resp_1"}},
        {"proxy_server_request": {"previous_response_id": "resp_1"}},
        {"proxy_server_request": {"conversation": {"id": "conv_1"}}},
    ],
)
def test_of_messages_that_go_on_from_elsewhere_only_the_last_is_known(tmp_path, change):
    (row,) = rows_of(tmp_path, litellm, _payload(call_type="aresponses", **change))
    known = {key: OF_REQUEST[key] for key in ("text", "message", "after", "tools")}
    unknown = dict.fromkeys(("turn", "opening", "asked", "history"))
    assert {key: row[key] for key in (*known, *unknown)} == {**known, **unknown}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": None, "model_group": None}, litellm.NO_MODEL),
        ({"messages": None}, messages.NO_CONTENT),
        ({"messages": "{}"}, messages.NO_CONTENT),
        ({"messages": said("redacted-by-litellm")}, messages.NO_CONTENT),
        (
            {"messages": said("default-message-value"), "call_type": "_arealtime"},
            messages.NO_CONTENT,
        ),
        ({"messages": '{"a": 1}'}, messages.UNKNOWN_JSON),
        ({"messages": [{"role": "user", "content": 7}]}, messages.NO_MESSAGES),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": said("x") * 10_001}, log_format.LONG_RECORD),
        ({"response_cost": "free"}, fields.NO_NUMBER),
        ({"response_cost": -1}, fields.NO_NUMBER),
        ({"response_cost": 10**400}, fields.NO_NUMBER),
        ({"startTime": float("inf")}, log_format.NO_TIMESTAMP),
        ({"startTime": 1e300}, log_format.NO_TIMESTAMP),
        ({"end_user": ["ann"]}, fields.NO_NAME),
    ],
)
def test_payloads_that_are_set_aside(tmp_path, change, reason):
    assert reason_of(tmp_path, litellm, _payload(**change)) == reason


def test_what_is_no_payload(tmp_path):
    assert reason_of(tmp_path, litellm, {"event": "started"}) == litellm.NO_PAYLOAD


def test_times_of_spend_logs(tmp_path):
    (row,) = rows_of(tmp_path, litellm, _spent(startTime="2025-06-01T12:00:01Z", endTime=None))
    assert (row["start"], row["end"]) == (START + timedelta(seconds=1), None)

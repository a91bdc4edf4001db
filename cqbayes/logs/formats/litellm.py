"""LiteLLM: requests through its gateway or its library, one standard logging payload a record.

JSON Lines, or ``.json`` files with one payload each, as its callbacks for S3, GCS and the like
write them. Every attempt that the gateway makes is a payload of its own. What is read, and nothing
else:

============================  ======================================================================
``call_type``                 other calls than for text (embeddings, images, ...) give no rows
``model``, ``model_group``    the LLM is ``model``, or else ``model_group``
``messages``                  string or messages: the conversation so far
``response``                  string, or the API's response
``startTime``, ``endTime``    seconds since 1970, or ISO 8601
``response_time``             seconds; read only where ``endTime`` is absent and nothing is streamed
``response_cost``             dollars; null where ``response_cost_failure_debug_info`` is there
``status``                    ``success`` or ``failure``; or else ``error_str`` says so
``session_id``, ``trace_id``  see below
``end_user``                  the user, or ``metadata.user_api_key_end_user_id``, or
                              ``metadata.user_api_key_user_id``
``metadata``                  also ``attempted_retries`` and ``requester_metadata.session_id``
``model_parameters``          ``previous_response_id``: messages that are not the whole conversation
============================  ======================================================================

**Sessions.** ``session_id`` (of ``litellm_session_id``; newer versions only) or
``metadata.requester_metadata.session_id``, where a client sends one. ``trace_id`` is not used: in
older versions it is the client's session, but it is made up for a single request where the client
sent none. A ``session_id`` that equals the ``trace_id`` may be made up in the same way and is not
used either. Otherwise the session is a digest of the user and of the conversation's first message:
conversations of one user that open with the same words then fall together.

**Transport.** Each of the gateway's retries (``num_retries``) and fallbacks is a payload: those
that failed have ``failed``, and one with ``metadata.attempted_retries`` above 0 was sent by the
gateway, so its ``regenerated`` is false. Where that field is absent, and for clients that send
again by themselves, the failure before is the only sign. "Regenerate" is not recorded: the same
turn of a session again, after an answer, counts as one.

A payload is one request: ``text`` is the last message of the user in it and ``turn`` how many
come before, so rows of a session come scattered, and a request that was sent again has the
same ``turn`` as the one before.

References:
    https://docs.litellm.ai/docs/proxy/logging_spec; ``StandardLoggingPayload`` in
    ``litellm/types/utils.py``; on sessions and traces
    https://github.com/BerriAI/litellm/pull/36035; on attempts
    https://github.com/BerriAI/litellm/pull/21704 and
    https://github.com/BerriAI/litellm/issues/39455.
"""

from collections.abc import Mapping
from typing import Any

from cqbayes.logs.formats.importer import Importer, SetAside
from cqbayes.logs.formats.messages import (
    answer_chars,
    digest,
    elapsed,
    identifier,
    inner,
    number,
    request,
    when,
)

# Names of litellm's CallTypes for text, each also with an "a" before it where it is asynchronous.
CALLS = (
    "completion",
    "acompletion",
    "text_completion",
    "atext_completion",
    "responses",
    "aresponses",
    "anthropic_messages",
)
REDACTED = "redacted-by-litellm"

# Why payloads are set aside.
NO_PAYLOAD = "no call_type, messages and model: not a standard logging payload"
NO_MODEL = "no model"
NO_CONVERSATION = "messages that continue a response kept elsewhere (previous_response_id)"
NO_CONTENT = "messages that were redacted"


def _rows(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[dict[str, Any]]:
    if not any(key in record for key in ("call_type", "messages", "model")):
        raise SetAside(NO_PAYLOAD)
    if record.get("call_type") not in (None, "", *CALLS):
        return []
    if inner(record, "model_parameters").get("previous_response_id"):
        raise SetAside(NO_CONVERSATION)
    model = identifier(record.get("model"), record.get("model_group"))
    if model is None:
        raise SetAside(NO_MODEL)
    asked = request(record.get("messages"))
    if asked is None:
        return []
    if asked.text == REDACTED:
        raise SetAside(NO_CONTENT)
    metadata = inner(record, "metadata")
    user = identifier(
        record.get("end_user"),
        metadata.get("user_api_key_end_user_id"),
        metadata.get("user_api_key_user_id"),
    )
    failed = _failed(record)
    start = when(record.get("startTime"))
    row = {
        "session_id": _session(record, metadata) or digest(user, asked.opening),
        "turn": asked.turn,
        "user_id": user,
        "timestamp": start,
        "model": model,
        "text": asked.text,
        "response_chars": None if failed else answer_chars(record.get("response")),
        "latency": _latency(record, start),
        "cost": _cost(record),
        "failed": failed,
        "regenerated": False if _sent_by_gateway(metadata) else None,
        "repeated": asked.repeated,
    }
    return [row]


def _session(record: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    own = record.get("session_id")
    if own == record.get("trace_id"):
        own = None
    return identifier(own, inner(metadata, "requester_metadata").get("session_id"))


def _failed(record: Mapping[str, Any]) -> bool | None:
    if record.get("status") in ("success", "failure"):
        return record["status"] == "failure"
    return True if record.get("error_str") else None


def _latency(record: Mapping[str, Any], start: Any) -> float | None:
    end = when(record.get("endTime"))
    if end is None and record.get("stream") is not True:
        return number(record.get("response_time"))
    return elapsed(start, end)


def _cost(record: Mapping[str, Any]) -> float | None:
    unknown = record.get("response_cost_failure_debug_info") is not None
    return None if unknown else number(record.get("response_cost"))


def _sent_by_gateway(metadata: Mapping[str, Any]) -> bool:
    attempts = metadata.get("attempted_retries")
    return isinstance(attempts, int) and attempts > 0


IMPORTER = Importer(
    "LiteLLM",
    _rows,
    transport=(
        "failed attempts are marked failed, and what the gateway sent again is not regenerated "
        "where metadata.attempted_retries says so; what a client sent again shows by the failure "
        "before it"
    ),
    signs=(
        ("call_type", "model"),
        *(("messages", own) for own in ("call_type", "response", "status", "startTime")),
    ),
)

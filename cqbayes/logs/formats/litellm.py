"""LiteLLM: requests through its gateway or its library, one a record.

JSON Lines, or ``.json`` files: **standard logging payloads**, as its callbacks for S3, GCS and the
like write them, and rows of its table of **spend logs**. Every attempt that the gateway makes is a
record of its own. What is read, and nothing else:

============================  ======================================================================
``call_type``                 all calls that have the shape of a chat are requests of users; others
                              (embeddings, images, ...) are named
``model``, ``model_group``    the LLM is ``model``, or else ``model_group``
``messages``                  the conversation so far; or else, in spend logs,
                              ``proxy_server_request``, which is the request's body
``response``                  string, or the API's response
``startTime``, ``endTime``    seconds since 1970, or ISO 8601
``response_time``             seconds; read only where ``endTime`` is absent and nothing is streamed
``response_cost``, ``spend``  dollars; null where ``response_cost_failure_debug_info`` is there
``status``                    ``success`` or ``failure``; or else ``error_str`` says so
``metadata``                  an object, or JSON in a string; ``attempted_retries`` in it
``request_tags``              what a request is for, with ``metadata.user_api_key_alias`` and
                              ``tags`` and ``task`` of the metadata
``previous_response_id``      in ``model_parameters`` or the body: what came before is kept
                              elsewhere, so of the messages only the last is known
============================  ======================================================================

**Sessions** are ``session_id``, or the names in ``SESSIONS`` in ``metadata.requester_metadata``,
``metadata.spend_logs_metadata``, the metadata and the body, or a header in
``metadata.requester_custom_headers`` or in a tag (``x-openwebui-chat-id: ...``). ``trace_id`` is
not used: in older versions it is the client's session, but it is made up for a single request where
the client sent none; nor is a ``session_id`` that equals it. **Spend logs make up a**
``session_id`` where the client sent none, and nothing tells it from a client's.

**Users** are ``end_user``, ``metadata.user_api_key_end_user_id``, or what the client sent as
``user``, in its metadata, or in a header. The owner of the key (``user_api_key_user_id``, in spend
logs ``user``) is none. Anthropic's coding client sends user and session in one name, which is taken
apart.

**Transport.** Each of the gateway's retries (``num_retries``) and fallbacks is a record: those that
failed say so, and ``metadata.attempted_retries`` above 0 was sent by the gateway. Where that field
is absent, and for clients that send again by themselves, the failure before is the only sign.

References:
    https://docs.litellm.ai/docs/proxy/logging_spec; ``StandardLoggingPayload`` in
    ``litellm/types/utils.py``; ``litellm/proxy/spend_tracking/spend_tracking_utils.py``; on
    sessions and traces https://github.com/BerriAI/litellm/pull/36035; on attempts
    https://github.com/BerriAI/litellm/pull/21704 and
    https://github.com/BerriAI/litellm/issues/39455.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cqbayes.logs.formats.exchanges import (
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
    number,
    opened,
    when,
)
from cqbayes.logs.formats.importer import Importer, Request, SetAside
from cqbayes.logs.formats.messages import (
    NO_CONTENT,
    NO_MESSAGES,
    NO_USER,
    UNKNOWN_JSON,
    read_messages,
)

# Of litellm's CallTypes, those whose messages are a chat, or a text of a user, by their name.
CHATS = re.compile(
    r"a?(?:text_)?completion|a?chat|a?responses|anthropic_messages|a?generate_content(?:_stream)?"
)
OTHERS = re.compile(r"embedding|moderation|image|speech|transcription|rerank|search")
SESSIONS = (
    "session_id",
    "litellm_session_id",
    "sessionId",
    "chat_id",
    "conversation_id",
    "thread_id",
)
USERS = ("user", "user_id", "trace_user_id", "userId")
HEADERS_OF_SESSIONS = (
    "x-litellm-session-id",
    "x-openwebui-chat-id",
    "x-claude-code-session-id",
    "x-session-id",
    "x-conversation-id",
    "x-chat-id",
)
HEADERS_OF_USERS = (
    "x-litellm-end-user-id",
    "x-litellm-customer-id",
    "x-openwebui-user-id",
    "x-openwebui-user-email",
    "x-user-id",
)
TASK = "x-openwebui-task"
OF_CODING_CLIENT = re.compile(r"(user_\w+?_account_[\w-]*?)_session_([\w-]+)")

# Why records are set aside.
NO_PAYLOAD = "no call_type, messages and model: neither a standard logging payload nor a spend log"
NO_MODEL = "no model"


def _requests(record: Mapping[str, Any], ticks: Mapping[str, int]) -> list[Request]:
    if not any(key in record for key in ("call_type", "messages", "model")):
        raise SetAside(NO_PAYLOAD)
    call = identifier(record.get("call_type"))
    metadata, body = inner(record, "metadata"), _body(record)
    asked = _asked(record, call, body)
    model = identifier(record.get("model"), record.get("model_group"))
    if model is None and asked is not None:
        raise SetAside(NO_MODEL)
    is_of_table = "request_id" in record or "spend" in record
    client = [inner(metadata, key) for key in ("requester_metadata", "spend_logs_metadata")]
    client += [body, inner(body, "metadata"), inner(record, "model_parameters")]
    headers = _headers(record, metadata)
    user, session = _taken_apart(
        identifier(record.get("end_user"), metadata.get("user_api_key_end_user_id"))
        or mentioned(client, USERS)
        or mentioned([metadata], USERS[1:])
        or mentioned([headers], HEADERS_OF_USERS)
    )
    own = record.get("session_id")
    failed = _failed(record, metadata)
    start, end = when(record.get("startTime")), when(record.get("endTime"))
    answer = answer_of(None if failed else record.get("response"))
    request = Request(
        id=identifier(record.get("id"), record.get("request_id")),
        session=identifier(None if own == record.get("trace_id") else own)
        or mentioned([*client, metadata], SESSIONS)
        or mentioned([headers], HEADERS_OF_SESSIONS)
        or session,
        user=user,
        owner=identifier(
            metadata.get("user_api_key_user_id"), record.get("user") if is_of_table else None
        ),
        start=start,
        end=end,
        llm=model,
        call=call,
        marks=_marks(record, metadata, headers),
        attempts=_attempts(metadata),
        failed=failed,
        latency=_latency(record, start, end),
        cost=_cost(record),
        response_chars=answer.chars,
        answer=answer.digest,
    )
    return [request if asked is None else request._replace(**asked._asdict())]


def _body(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request as the client sent it, where it is kept."""
    sent = inner(record, "proxy_server_request")
    return inner(sent, "body") or sent


def _asked(record: Mapping[str, Any], call: str | None, body: Mapping[str, Any]) -> Asked | None:
    """What was asked; None where the call is no chat."""
    if call is not None and OTHERS.search(call):
        return None
    is_chat = call is None or CHATS.fullmatch(call) is not None
    messages = opened(record.get("messages"))
    if call is not None and "pass" in call:
        messages = _passed_through(messages)
    is_array = isinstance(messages, list | Mapping)
    places = [*([messages] if is_chat or is_array else []), *([body] if body else [])]
    try:
        asked = _first_asked(places)
    except SetAside as reason:
        if is_chat or str(reason) not in (NO_MESSAGES, UNKNOWN_JSON, NO_USER):
            raise
        asked = None
    if asked is None:
        return None
    sent = (body, inner(record, "model_parameters"))
    if any(one.get(key) for one in sent for key in ("previous_response_id", "conversation")):
        return asked._replace(turn=None, opening=None, asked=None, history=None)
    return asked


def _first_asked(places: Sequence[Any]) -> Asked | None:
    """What is asked in the first place that has content; None where there is no place."""
    for place in places:
        try:
            return asked_of(read_messages(place))
        except SetAside as reason:
            if str(reason) != NO_CONTENT or place is places[-1]:
                raise
    return None


def _passed_through(messages: Any) -> Any:
    """The body of a request that is passed on as it is: logged as the content of one message."""
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], Mapping):
        return messages
    body = opened(messages[0].get("content"))
    return body if isinstance(body, Mapping) and body else messages


def _headers(record: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Headers of the client: in the metadata, in the request, and in tags."""
    found: dict[str, Any] = {}
    for tag in marks(record.get("request_tags"), metadata.get("tags")):
        key, colon, value = tag.partition(": ")
        if colon and key.lower().startswith("x-"):
            found[key.lower()] = value
    sent = inner(inner(record, "proxy_server_request"), "headers")
    for headers in (sent, inner(metadata, "requester_custom_headers")):
        found |= {key.lower(): value for key, value in headers.items()}
    return found


def _taken_apart(user: str | None) -> tuple[str | None, str | None]:
    """User and session of a name that holds both."""
    if user is None:
        return None, None
    both = opened(user)
    if isinstance(both, Mapping):
        return mentioned([both], ("account_uuid", "user_id", "device_id")), mentioned(
            [both], SESSIONS
        )
    found = OF_CODING_CLIENT.fullmatch(user)
    return (found[1], found[2]) if found else (user, None)


def _marks(
    record: Mapping[str, Any], metadata: Mapping[str, Any], headers: Mapping[str, Any]
) -> tuple[str, ...]:
    client = inner(metadata, "requester_metadata")
    of_client = [one.get(key) for one in (metadata, client) for key in ("tags", "task")]
    alias = metadata.get("user_api_key_alias")
    found = marks(record.get("request_tags"), alias, *of_client, headers.get(TASK))
    return tuple(one for one in found if not one.lower().startswith(HEADERS_OF_USERS))


def _failed(record: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool | None:
    for status in (record.get("status"), metadata.get("status")):
        if status in ("success", "failure"):
            return status == "failure"
    return True if record.get("error_str") else None


def _latency(
    record: Mapping[str, Any], start: datetime | None, end: datetime | None
) -> float | None:
    if end is None and record.get("stream") is not True:
        return number(record.get("response_time"))
    return elapsed(start, end)


def _cost(record: Mapping[str, Any]) -> float | None:
    unknown = record.get("response_cost_failure_debug_info") is not None
    return None if unknown else number(record.get("response_cost"), record.get("spend"))


def _attempts(metadata: Mapping[str, Any]) -> int | None:
    said = metadata.get("attempted_retries")
    if isinstance(said, bool) or not re.fullmatch("[0-9]{1,9}", str(said)):
        return None
    return int(str(said))


IMPORTER = Importer(
    "LiteLLM",
    _requests,
    transport=(
        "failed attempts are marked failed, and what the gateway sent again says so in "
        "metadata.attempted_retries; what a client sent again shows by the failure before it"
    ),
    signs=(
        ("call_type", "model"),
        *(("messages", own) for own in ("call_type", "response", "status", "startTime")),
    ),
)

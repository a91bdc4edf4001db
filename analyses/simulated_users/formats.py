"""Writers of simulated logs, one for each shape of each format that the package reads.

Names of fields are those of LiteLLM's standard logging payload and of its spend logs; of Langfuse's
API, of its observations and of "Download trace as JSON"; of OpenTelemetry's conventions for
generative AI, of OpenInference and of OpenLLMetry; and of the data sets WildChat, LMSYS-Chat-1M and
RealHumanEval. No record was logged by any of them.
"""

import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from simulated_users.gateways import (
    CHECK,
    EMBEDDING,
    FOUND,
    TOOL,
    Call,
    Message,
    answer_to,
    calls_of,
)
from simulated_users.users import OTHER, SAME, Asked, Simulated
from simulated_users.worlds import World

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
CHECK_TAG = "litellm-internal-health-check"
A_LINE = 16  # spans in a line of OTLP
Record = dict[str, Any]


def write_log(path: Path, world: World, simulated: Simulated, seed: int) -> Path:
    """Writes what simulated users did as the world's gateway or data set does.

    Args:
        path: of the file, without its suffix.
        world: its settings.
        simulated: what its users did.
        seed: decides what goes wrong, and the order of records.

    Returns:
        The file.
    """
    rng = random.Random(f"records {seed}")
    requests = OF_REQUESTS.get((world.format, world.shape))
    if requests is not None:
        records = list(requests(calls_of(world, simulated, seed), world))
    else:
        records = list(OF_CONVERSATIONS[world.format](simulated, world, rng))
    records += [one for one in records if rng.random() < world.faults.doubles]
    if world.shuffled:
        rng.shuffle(records)
    if world.format == "opentelemetry":
        records = [_line(records[i : i + A_LINE]) for i in range(0, len(records), A_LINE)]
    if world.shape == "parquet":
        path = path.with_suffix(".parquet")
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOON + timedelta(seconds=seconds)


def _iso(seconds: float | None) -> str | None:
    at = _at(seconds)
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _openai(message: Message) -> Message:
    """A message as OpenAI's chat completions have it."""
    tool = message.get("tool")
    said = {"role": message["role"], "content": message["content"]}
    if tool is None:
        return said
    if message["role"] == "tool":
        return {**said, "tool_call_id": tool["id"]}
    function = {"name": tool["name"], "arguments": tool["arguments"]}
    return {**said, "tool_calls": [{"id": tool["id"], "type": "function", "function": function}]}


def _answer(call: Call) -> Message | None:
    if call.calls_tool:
        return _openai({"role": "assistant", "content": None, "tool": TOOL})
    return None if call.answer is None else {"role": "assistant", "content": call.answer}


# LiteLLM


def _response(call: Call) -> Record:
    answer = _answer(call)
    if call.kind == EMBEDDING:
        return {"object": "list", "data": [{"embedding": [0.1, 0.2], "index": 0}]}
    return {} if answer is None else {"choices": [{"index": 0, "message": answer}]}


def _tags(call: Call) -> list[str]:
    return [CHECK_TAG] if call.kind == CHECK else [call.task] if call.task else []


def _litellm_payload(calls: Iterable[Call], world: World) -> Iterable[Record]:
    for call in calls:
        stated: Record = {"attempted_retries": call.attempts, "user_api_key_user_id": "owner"}
        if call.kind == CHECK:
            stated["user_api_key_alias"] = CHECK_TAG
        own = None if world.rooted else call.session
        if world.rooted and call.session is not None:
            stated["requester_metadata"] = {"session_id": call.session}
        kind = "aembedding" if call.kind == EMBEDDING else "acompletion"
        messages: Any = [_openai(message) for message in call.messages]
        if call.kind == EMBEDDING:
            messages = [call.messages[-1]["content"]]
        yield {
            "id": f"chatcmpl-{call.id}",
            "trace_id": call.trace,
            "session_id": own,
            "call_type": "aresponses" if call.again else kind,
            "stream": False,
            "status": "failure" if call.failed else "success",
            "error_str": "litellm.Timeout: timed out" if call.failed else None,
            "model": call.llm,
            "model_group": EMBEDDING if call.kind == EMBEDDING else "chat",
            "messages": messages,
            "response": _response(call),
            "startTime": None if call.start is None else NOON.timestamp() + call.start,
            "endTime": None if call.end is None else NOON.timestamp() + call.end,
            "response_cost": 0.0 if call.failed else 0.001,
            "end_user": call.user,
            "metadata": stated,
            "request_tags": _tags(call),
        }


def _litellm_spend(calls: Iterable[Call], world: World) -> Iterable[Record]:
    """Rows of the table LiteLLM_SpendLogs, whose JSON is in strings when it comes from SQL."""

    def when(seconds: float | None) -> str | None:
        at = _at(seconds)
        return None if at is None else at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    for row, call in zip(_litellm_payload(calls, world), calls, strict=True):
        written = {"messages": row["messages"], "response": row["response"]}
        if world.quoted:
            written = {name: json.dumps(value) for name, value in written.items()}
        elif world.rooted:  # newer versions keep the request as it came
            request = {"model": row["model"], "messages": row["messages"]}
            written |= {"messages": {}, "proxy_server_request": request}
        yield {
            "request_id": row["id"],
            "session_id": call.session,
            "call_type": row["call_type"],
            "api_key": "key",
            "cache_hit": "None",
            "startTime": when(call.start),
            "endTime": when(call.end),
            "model": row["model"],
            "user": "owner",
            "team_id": "",
            "end_user": call.user or "",
            "metadata": json.dumps(row["metadata"]),
            "spend": row["response_cost"],
            "request_tags": json.dumps(row["request_tags"]),
            "proxy_server_request": "{}",
            **written,
            "status": row["status"],
        }


# Langfuse


def _observation(call: Call, world: World) -> Record:
    messages: Any = [_openai(message) for message in call.messages]
    output: Any = _answer(call)
    if call.kind == EMBEDDING:
        messages, output = call.messages[-1]["content"], None
    elif world.quoted:
        messages, output = json.dumps(messages), None if output is None else json.dumps(output)
    return {
        "id": call.id,
        "traceId": call.trace,
        "parentObservationId": call.parent,
        "type": "EMBEDDING" if call.kind == EMBEDDING else "GENERATION",
        "name": call.task or ("litellm-acompletion" if call.again else "chat"),
        "model": call.llm,
        "startTime": _iso(call.start),
        "endTime": _iso(call.end),
        "level": "ERROR" if call.failed else "DEFAULT",
        "statusMessage": "timeout" if call.failed else None,
        "input": messages,
        "output": output,
        "usageDetails": {"input": 9, "output": 9, "total": 18},
        "costDetails": {"total": 0.0 if call.failed else 0.001},
    }


def _scores(call: Call, world: World) -> list[Record]:
    """What the user said: of the generation, or of the trace as a whole."""
    shared = {"traceId": call.trace, "observationId": None if world.rooted else call.id}
    shared |= {"source": "API", "dataType": "BOOLEAN"}
    found = {"user-feedback": None if call.thumb is None else int(call.thumb > 0)}
    found["copied"] = 1 if call.copied else None
    return [
        {"id": f"{call.id}-{name}", "name": name, "value": value, **shared}
        for name, value in found.items()
        if value is not None
    ]


def _traces(calls: Iterable[Call]) -> Iterable[list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.trace, []).append(call)
    return found.values()


def _langfuse_trace(calls: Iterable[Call], world: World) -> Iterable[Record]:
    for trace in _traces(calls):
        yield {
            **_of_trace(trace),
            "observations": [_observation(call, world) for call in trace],
            "scores": [score for call in trace for score in _scores(call, world)],
        }


def _of_trace(trace: list[Call]) -> Record:
    first = trace[0]
    return {
        "id": first.trace,
        "name": first.task or "chat",
        "sessionId": first.session,
        "userId": first.user,
        "timestamp": _iso(first.start if first.start is not None else first.order),
        "tags": _tags(first),
    }


def _langfuse_download(calls: Iterable[Call], world: World) -> Iterable[Record]:
    for whole in _langfuse_trace(calls, world):
        observations = whole.pop("observations")
        yield {"trace": whole, "observations": observations}


def _langfuse_observation(calls: Iterable[Call], world: World) -> Iterable[Record]:
    """One a line, with scores on lines of their own."""
    for call in calls:
        named = {"sessionId": call.session, "userId": call.user, "traceName": call.task or "chat"}
        yield {**_observation(call, world), **named, "tags": _tags(call)}
        yield from _scores(call, world)


# OpenTelemetry


def any_value(value: Any) -> Record:
    """A value as OTLP writes it in JSON."""
    kinds = {bool: "boolValue", float: "doubleValue", str: "stringValue"}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"intValue": str(value)}
    return {kinds[type(value)]: value}


def _attributes(found: Record) -> list[Record]:
    known = {key: value for key, value in found.items() if value is not None}
    return [{"key": key, "value": any_value(value)} for key, value in known.items()]


def _nano(seconds: float | None) -> str:
    """Nanoseconds since 1970; 0 means that they are not known."""
    if seconds is None:
        return "0"
    whole = (NOON - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return str(whole * 10**9 + round(seconds * 10**6) * 1_000)


def _span(call: Call, name: str, attributes: Record, events: list[Record]) -> Record:
    return {
        "traceId": call.trace,
        "spanId": call.id,
        "parentSpanId": call.parent or "",
        "name": name,
        "kind": 3,
        "startTimeUnixNano": _nano(call.start),
        "endTimeUnixNano": _nano(call.end),
        "attributes": _attributes(attributes),
        "events": events,
        "status": {"code": 2, "message": "timeout"} if call.failed else {"code": 1},
    }


def _line(spans: list[Record]) -> Record:
    scope = {"scope": {"name": "instrumentation"}, "spans": spans}
    service = _attributes({"service.name": "chat"})
    return {"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [scope]}]}


def _rooted(span: Callable[[Call, Record], Record], names: tuple[str, str]) -> Any:
    """A writer of spans: the session is on each of them, or on the root of their trace only."""

    def written(calls: Iterable[Call], world: World) -> Iterable[Record]:
        for trace in _traces(calls):
            first, last = trace[0], max(trace, key=lambda call: call.order)
            shared = {names[0]: first.session, names[1]: first.user}
            root = first._replace(id=f"{int(first.trace[:16], 16) ^ 1:016x}", parent=None)
            times = [call.start for call in trace]
            known = [one for one in times if one is not None]
            root = root._replace(
                start=min(known) - 0.01 if len(known) == len(times) else None,
                end=None if last.end is None else last.end + 0.01,
                failed=False,
            )
            for call in trace:
                here = call if call.parent else call._replace(parent=root.id)
                own = {names[0]: call.session, names[1]: call.user}
                yield span(here, {} if world.rooted else own)
            yield _span(root, "POST /chat", shared if world.rooted else {}, [])

    return written


def _parts(message: Message) -> Message:
    tool, role = message.get("tool"), message["role"]
    if tool is None:
        part = {"type": "text", "content": message["content"]}
    elif role == "tool":
        part = {"type": "tool_call_response", "id": tool["id"], "response": message["content"]}
    else:
        part = {"type": "tool_call", **tool}
    return {"role": role, "parts": [part]}


def _gen_ai(call: Call, shared: Record) -> Record:
    found: Record = {
        "gen_ai.operation.name": "embeddings" if call.kind == EMBEDDING else "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": call.llm,
        **shared,
    }
    if call.kind != EMBEDDING:
        found["gen_ai.input.messages"] = json.dumps([_parts(one) for one in call.messages])
        answer = _answer(call)
        if answer is not None:
            plain = {"role": "assistant", "content": call.answer}
            parts = _parts({**plain, "tool": TOOL} if call.calls_tool else plain)
            found["gen_ai.output.messages"] = json.dumps([{**parts, "finish_reason": "stop"}])
    if call.failed:
        found["error.type"] = "timeout"
    scores = {"user_feedback": call.thumb and float(call.thumb > 0)}
    scores["copied"] = 1.0 if call.copied else None
    events = [
        {
            "name": "gen_ai.evaluation.result",
            "timeUnixNano": _nano(call.end),
            "attributes": _attributes(
                {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value}
            ),
        }
        for name, value in scores.items()
        if value is not None
    ]
    return _span(call, f"chat {call.llm}", found, events)


def _numbered(messages: Iterable[Message], form: str, tool_form: str) -> Record:
    found: Record = {}
    for place, message in enumerate(messages):
        found[form.format(place, "role")] = message["role"]
        found[form.format(place, "content")] = message["content"]
        if "tool" in message and message["role"] == "assistant":
            for name, value in message["tool"].items():
                found[tool_form.format(place, name)] = value
    return found


def _openinference(call: Call, shared: Record) -> Record:
    kind = "EMBEDDING" if call.kind == EMBEDDING else "LLM"
    found: Record = {"openinference.span.kind": kind, **shared}
    if call.kind == EMBEDDING:
        found |= {"embedding.model_name": call.llm}
        found["embedding.embeddings.0.embedding.text"] = call.messages[-1]["content"]
        return _span(call, "CreateEmbeddings", found, [])
    found |= {"llm.model_name": call.llm, "llm.provider": "openai"}
    found |= _numbered(
        call.messages,
        "llm.input_messages.{}.message.{}",
        "llm.input_messages.{}.message.tool_calls.0.tool_call.function.{}",
    )
    if not call.failed:
        answer = {"role": "assistant", "content": call.answer}
        if call.calls_tool:
            answer["tool"] = TOOL
        found |= _numbered(
            [answer],
            "llm.output_messages.{}.message.{}",
            "llm.output_messages.{}.message.tool_calls.0.tool_call.function.{}",
        )
    return _span(call, "ChatCompletion", found, [])


def _openllmetry(call: Call, shared: Record) -> Record:
    found: Record = {"gen_ai.system": "openai", "gen_ai.request.model": call.llm, **shared}
    found["llm.request.type"] = "embedding" if call.kind == EMBEDDING else "chat"
    form = "gen_ai.{}.{{}}.{{}}"
    calls = "gen_ai.{}.{{}}.tool_calls.0.{{}}"
    found |= _numbered(call.messages, form.format("prompt"), calls.format("prompt"))
    if not call.failed and call.kind != EMBEDDING:
        answer = {"role": "assistant", "content": call.answer}
        if call.calls_tool:
            answer["tool"] = TOOL
        found |= _numbered([answer], form.format("completion"), calls.format("completion"))
    name = "openai.embeddings" if call.kind == EMBEDDING else "openai.chat"
    return _span(call, name, found, [])


OF_REQUESTS: dict[tuple[str, str], Callable[[list[Call], World], Iterable[Record]]] = {
    ("litellm", "payload"): _litellm_payload,
    ("litellm", "spend log"): _litellm_spend,
    ("langfuse", "trace"): _langfuse_trace,
    ("langfuse", "observation"): _langfuse_observation,
    ("langfuse", "download"): _langfuse_download,
    ("opentelemetry", "gen_ai"): _rooted(_gen_ai, ("session.id", "user.id")),
    ("opentelemetry", "openinference"): _rooted(_openinference, ("session.id", "user.id")),
    ("opentelemetry", "openllmetry"): _rooted(
        _openllmetry,
        (
            "traceloop.association.properties.session_id",
            "traceloop.association.properties.user_id",
        ),
    ),
}


# Whole conversations


def _openai_chat(simulated: Simulated, world: World, rng: random.Random) -> Iterable[Record]:
    faults = world.faults
    for session in simulated.sessions:
        said: list[Message] = [{"role": "system", "content": "Be kind."}]
        timed = rng.random() >= faults.no_time
        for one in session:
            at = {"created": round(NOON.timestamp() + one.start)} if timed else {}
            said.append({"role": "user", "content": one.text, **at})
            if rng.random() < faults.steps:
                said += [
                    _openai({"role": "assistant", "content": None, "tool": TOOL}),
                    _openai({"role": "tool", "content": FOUND, "tool": TOOL}),
                ]
            answer = {"role": "assistant", "content": answer_to(one)}
            said.append({**answer, "model": world.llms[one.llm]})
        # The LLM of a turn stands with the user's message too, where a conversation has several.
        for one, message in zip(session, [m for m in said if m["role"] == "user"], strict=True):
            message["model"] = world.llms[one.llm]
        found: Record = {"messages": json.dumps(said) if _in_string(world) else said}
        if rng.random() >= faults.no_session:
            found["id"] = f"c-{session[0].session}"
        if rng.random() >= faults.no_user:
            found["user"] = f"user-{session[0].user}"
        yield found


def _in_string(world: World) -> bool:
    return world.shape == "messages in a string"


def _wildchat(simulated: Simulated, world: World, rng: random.Random) -> Iterable[Record]:
    faults = world.faults
    for session in simulated.sessions:
        user = f"{session[0].user:032x}" if rng.random() >= faults.no_user else None
        timed = rng.random() >= faults.no_time

        def of(one: Asked, user: str | None = user, timed: bool = timed) -> Iterable[Message]:
            at = _at(one.end) if timed else None
            shared = {"language": "English", "toxic": False, "redacted": False}
            when = None if at is None else at.isoformat()
            who = {"hashed_ip": user, "timestamp": None}
            yield {"content": one.text, "role": "user", **shared, **who}
            shared |= {"hashed_ip": None, "timestamp": when}
            yield {"content": answer_to(one), "role": "assistant", **shared}

        last = _at(session[-1].end) if timed else None
        yield {
            "conversation_hash": f"{session[0].session:032x}",
            "model": world.llms[session[0].llm],
            "timestamp": None if last is None else last.isoformat(),
            "conversation": [message for one in session for message in of(one)],
            "turn": len(session),
            "language": "English",
            "hashed_ip": user,
        }


def _lmsys(simulated: Simulated, world: World, rng: random.Random) -> Iterable[Record]:
    for session in simulated.sessions:
        said: list[Message] = []
        for one in session:
            said.append({"content": one.text, "role": "user"})
            said.append({"content": answer_to(one), "role": "assistant"})
        yield {
            "conversation_id": f"{session[0].session:032x}",
            "model": world.llms[session[0].llm],
            "conversation": said,
            "turn": len(session),
            "language": "English",
            "openai_moderation": [{"flagged": False}],
            "redacted": False,
        }


def _realhumaneval(simulated: Simulated, world: World, rng: random.Random) -> Iterable[Record]:
    kinds = {SAME: "verbatim_retry", OTHER: "rephrase"}
    began: dict[int, float] = {}
    for session in simulated.sessions:
        first = began.setdefault(session[0].user, session[0].start)
        for place, one in enumerate(session):
            yield {
                "programmer_id": one.user,
                "task_name": f"task-{one.session}",
                "turn": place,
                "t_s": None if rng.random() < world.faults.no_time else one.start - first,
                "model": world.llms[one.llm],
                "n_context_msgs": 2 * place + 1,
                "user_text": one.text,
                "response_chars": len(answer_to(one)),
                "copied": one.copied,
                "kind": kinds.get(one.how, "followup"),
            }


OF_CONVERSATIONS: dict[str, Callable[[Simulated, World, random.Random], Iterable[Record]]] = {
    "openai_chat": _openai_chat,
    "wildchat": _wildchat,
    "lmsys": _lmsys,
    "realhumaneval": _realhumaneval,
}

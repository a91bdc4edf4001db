"""Simulated logs: made-up turns of made-up users, written in every format that has an importer.

Nobody wrote these texts. What a format cannot hold is left out when it is written, and
:attr:`Format.holds` says what comes back.
"""

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MODELS = ("small-1", "large-2")
SECRET = "sekrit"  # in every text, so that a test sees where texts go


class Turn(NamedTuple):
    """A request as it was sent: also one that failed, and one that was sent again."""

    session: str
    user: str
    turn: int
    at: datetime
    model: str
    text: str
    answer: str | None
    latency: float
    cost: float
    failed: bool = False
    again: bool = False  # by a program, after a failure
    feedback: float | None = None
    accepted: bool | None = None
    repeated: bool = False


class Format(NamedTuple):
    """How turns are written in a format.

    Attributes:
        write: turns, in order, to records.
        holds: columns of REQUESTS that come back as they were; of the others, those in ``FACTS``
            are null.
        digests: columns with digests that it has, of messages and answers.
        attempts: whether requests that failed, or were answered once more, stand beside each other.
        schema: of Parquet, where the format is known in it.
        expected: what comes back instead, of a column that the format holds in its own way.
    """

    write: Callable[[Sequence[Turn]], list[dict[str, Any]]]
    holds: tuple[str, ...]
    digests: tuple[str, ...]
    attempts: bool = False
    schema: pa.Schema | None = None
    expected: Callable[[Sequence[Turn]], list[dict[str, Any]]] = lambda turns: [
        row(turn) for turn in turns
    ]


def simulate(seed: int, sessions: int = 6) -> list[Turn]:
    """Sessions of a few turns: verbatim repeats, failures that are sent again, second answers."""
    rng = random.Random(seed)
    turns: list[Turn] = []
    for number in range(sessions):
        user = str(rng.randrange(3))
        at = NOON + timedelta(days=number)
        text = ""
        for place in range(rng.randint(1, 4)):
            repeated = place > 0 and rng.random() < 0.3
            text = (
                text + " " if repeated else f'{SECRET} {number}.{place}\n«Warum?» "{rng.random()}"'
            )
            fails = rng.random() < 0.3
            attempts = rng.choice([1, 1, 2]) + fails
            for attempt in range(attempts):
                at += timedelta(seconds=rng.randint(5, 300))
                failed = fails and attempt == 0
                turns.append(
                    Turn(
                        session=f"{user}/task-{number}",
                        user=user,
                        turn=place,
                        at=at,
                        model=rng.choice(MODELS),
                        text=text,
                        answer=None if failed else SECRET * rng.randint(1, 9),
                        latency=rng.randint(1, 40) / 4,
                        cost=0.0 if failed else rng.randint(1, 64) / 64,
                        failed=failed,
                        again=fails and attempt == 1,
                        feedback=None if failed else rng.choice([None, -1.0, 1.0]),
                        accepted=None if failed else rng.choice([None, True, False]),
                        repeated=repeated,
                    )
                )
    return turns


def settled(turns: Sequence[Turn]) -> list[Turn]:
    """One request a turn, the last, and one LLM a session: all that a conversation shows."""
    kept: list[Turn] = []
    for _, session in groupby(turns, lambda turn: turn.session):
        last = [list(attempts)[-1] for _, attempts in groupby(session, lambda turn: turn.turn)]
        kept += [turn._replace(model=last[0].model, again=False) for turn in last]
    return kept


def row(turn: Turn) -> dict[str, Any]:
    """What a format that holds everything would give back, in REQUESTS."""
    return {
        "session": turn.session,
        "user": turn.user,
        "start": turn.at,
        "end": turn.at + timedelta(seconds=turn.latency),
        "place": turn.turn,
        "llm": turn.model,
        "attempts": int(turn.again),
        "failed": turn.failed,
        "feedback": turn.feedback,
        "accepted": turn.accepted,
        "latency": turn.latency,
        "cost": turn.cost,
        "language": "German",
        "response_chars": None if turn.answer is None else len(turn.answer),
        "turn": turn.turn,
        "text": turn.text,
        "after": 0,
        "tools": False,
    }


def write(path: Path, name: str, turns: Sequence[Turn]) -> Path:
    """Writes turns in a format, as JSON, JSON Lines or Parquet by the file's suffix."""
    made = FORMATS[name]
    records = made.write(turns)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records, made.schema), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Conversations


def _conversations(turns: Sequence[Turn]) -> list[list[Turn]]:
    return [list(session) for _, session in groupby(turns, lambda turn: turn.session)]


def _stamp(at: datetime) -> str:
    return at.isoformat()


def _wildchat(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    def of(turn: Turn) -> list[dict[str, Any]]:
        shared = {"hashed_ip": turn.user, "language": "German"}
        said = [{"role": "user", "content": turn.text, "timestamp": _stamp(turn.at), **shared}]
        if turn.answer is not None:
            end = _stamp(turn.at + timedelta(seconds=turn.latency))
            said.append({"role": "assistant", "content": turn.answer, "timestamp": end, **shared})
        return said

    return [
        {
            "conversation_hash": session[0].session,
            "model": session[0].model,
            "timestamp": _stamp(session[-1].at),
            "conversation": [message for turn in session for message in of(turn)],
            "language": "German",
            "hashed_ip": session[0].user,
            "toxic": False,
        }
        for session in _conversations(turns)
    ]


def _said(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    said = []
    for turn in turns:
        said.append({"content": turn.text, "role": "user"})
        if turn.answer is not None:
            said.append({"content": turn.answer, "role": "assistant"})
    return said


def _lmsys(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [
        {
            "conversation_id": session[0].session,
            "model": session[0].model,
            "conversation": _said(session),
            "turn": len(session),
            "language": "German",
            "openai_moderation": [{"flagged": False}],
            "redacted": False,
        }
        for session in _conversations(turns)
    ]


def _openai_chat(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    def stamped(session: Sequence[Turn]) -> list[dict[str, Any]]:
        said = _said(session)
        users = [message for message in said if message["role"] == "user"]
        for message, turn in zip(users, session, strict=True):
            message["created"] = int(turn.at.timestamp())
        return [{"role": "system", "content": "Be kind."}, *said]

    return [
        {
            "id": session[0].session,
            "user": session[0].user,
            "model": session[0].model,
            "messages": stamped(session),
        }
        for session in _conversations(turns)
    ]


# Requests, each with all that was said before


def _before(turns: Sequence[Turn]) -> list[list[dict[str, Any]]]:
    """For each request, the conversation that led to it: a failure leaves no answer behind."""
    found = []
    for i, turn in enumerate(turns):
        earlier = [one for one in turns[:i] if one.session == turn.session and one.turn < turn.turn]
        found.append([*_said(settled(earlier)), {"content": turn.text, "role": "user"}])
    return found


def _litellm(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    records = []
    for i, (turn, said) in enumerate(zip(turns, _before(turns), strict=True)):
        end = turn.at + timedelta(seconds=turn.latency)
        made = {"role": "assistant", "content": turn.answer}
        records.append(
            {
                "id": f"chatcmpl-{i}",
                "trace_id": f"request-{turn.session}-{turn.turn}",
                "session_id": turn.session,
                "call_type": "acompletion",
                "stream": False,
                "status": "failure" if turn.failed else "success",
                "error_str": "litellm.Timeout: Connection timed out" if turn.failed else None,
                "model": turn.model,
                "model_group": "chat",
                "messages": [{"role": "system", "content": "Be kind."}, *said],
                "response": None if turn.failed else {"choices": [{"message": made}]},
                "startTime": turn.at.timestamp(),
                "endTime": end.timestamp(),
                "response_time": turn.latency,
                "response_cost": turn.cost,
                "end_user": turn.user,
                "metadata": {"attempted_retries": int(turn.again)},
                "request_tags": [],
            }
        )
    return records


def _langfuse(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for i, (turn, said) in enumerate(zip(turns, _before(turns), strict=True)):
        if not turn.again:
            trace = {"id": f"trace-{i}", "sessionId": turn.session, "userId": turn.user}
            traces.append({**trace, "observations": [], "scores": []})
        end = turn.at + timedelta(seconds=turn.latency)
        traces[-1]["observations"].append(
            {
                "id": f"observation-{i}",
                "traceId": traces[-1]["id"],
                "type": "GENERATION",
                "model": turn.model,
                "input": said,
                "output": turn.answer,
                "startTime": _stamp(turn.at),
                "endTime": _stamp(end),
                "level": "ERROR" if turn.failed else "DEFAULT",
                "statusMessage": "timeout" if turn.failed else None,
                "usageDetails": {"input": 9, "output": 9, "total": 18},
                "costDetails": {"input": 0.0, "total": turn.cost},
            }
        )
        shared = {"observationId": f"observation-{i}", "source": "API", "dataType": "BOOLEAN"}
        if turn.feedback is not None:
            value = int(turn.feedback > 0)
            traces[-1]["scores"].append({"name": "user-feedback", "value": value, **shared})
        if turn.accepted is not None:
            traces[-1]["scores"].append({"name": "copied", "value": int(turn.accepted), **shared})
    return traces


def any_value(value: Any) -> dict[str, Any]:
    """A value as OTLP writes it in JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": key_values(value)}}
    return {"stringValue": value}


def key_values(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP writes them in JSON."""
    return [{"key": key, "value": any_value(value)} for key, value in found.items()]


def _nano(at: datetime) -> str:
    return str((at - EPOCH) // timedelta(microseconds=1) * 1_000)


def _opentelemetry(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    def parts(message: dict[str, Any]) -> dict[str, Any]:
        text = {"type": "text", "content": message["content"]}
        return {"role": message["role"], "parts": [text]}

    records = []
    for i, (turn, said) in enumerate(zip(turns, _before(turns), strict=True)):
        found: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": turn.model,
            "gen_ai.conversation.id": turn.session,
            "user.id": turn.user,
            "gen_ai.input.messages": json.dumps([parts(message) for message in said]),
        }
        if turn.failed:
            found["error.type"] = "timeout"
        else:
            made = parts({"role": "assistant", "content": turn.answer})
            found["gen_ai.output.messages"] = json.dumps([{**made, "finish_reason": "stop"}])
        scores = {"user_feedback": turn.feedback, "copied": turn.accepted}
        events = [
            {
                "name": "gen_ai.evaluation.result",
                "attributes": key_values(
                    {
                        "gen_ai.evaluation.name": name,
                        "gen_ai.evaluation.score.value": float(value),
                    }
                ),
            }
            for name, value in scores.items()
            if value is not None
        ]
        span = {
            "traceId": f"{i:032x}",
            "spanId": f"{i:016x}",
            "name": f"chat {turn.model}",
            "kind": 3,
            "startTimeUnixNano": _nano(turn.at),
            "endTimeUnixNano": _nano(turn.at + timedelta(seconds=turn.latency)),
            "attributes": key_values(found),
            "events": events,
            "status": {"code": 2} if turn.failed else {},
        }
        scope = {"scope": {"name": "instrumentation"}, "spans": [span]}
        records.append({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]})
    return records


# RealHumanEval


def _seconds(turns: Sequence[Turn]) -> list[float]:
    first: dict[str, datetime] = {}
    for turn in turns:
        first.setdefault(turn.user, turn.at)
    return [(turn.at - first[turn.user]).total_seconds() for turn in turns]


def _realhumaneval(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [
        {
            "programmer_id": int(turn.user),
            "task_name": turn.session.split("/")[1],
            "turn": turn.turn,
            "t_s": seconds,
            "gap_s": None,
            "model": turn.model,
            "n_context_msgs": 2 * turn.turn + 1,
            "user_text": turn.text,
            "response_chars": len(turn.answer or ""),
            "copied": turn.accepted,
            "kind": "verbatim_retry" if turn.repeated else "followup",
            "sim_prev": float(turn.repeated),
        }
        for turn, seconds in zip(turns, _seconds(turns), strict=True)
    ]


def _of_realhumaneval(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Times have no date there."""
    return [
        {**row(turn), "start": EPOCH + timedelta(seconds=seconds)}
        for turn, seconds in zip(turns, _seconds(turns), strict=True)
    ]


_MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])
_IN_WILDCHAT = {
    "hashed_ip": pa.string(),
    "language": pa.string(),
    "timestamp": pa.string(),
    "content": pa.string(),
    "role": pa.string(),
}
_BASE = ("session", "turn", "llm", "text", "response_chars", "after", "tools")
_REQUEST = (*_BASE, "user", "start", "end", "failed")
_DIGESTS = ("message", "answer", "before", "opening", "asked", "history")
FACTS = tuple(row(simulate(0)[0]))

FORMATS: dict[str, Format] = {
    "wildchat": Format(
        _wildchat,
        (*_BASE, "place", "user", "start", "end", "language"),
        _DIGESTS,
        schema=pa.schema(
            [
                ("conversation_hash", pa.string()),
                ("model", pa.string()),
                ("timestamp", pa.string()),
                ("conversation", pa.list_(pa.struct(list(_IN_WILDCHAT.items())))),
                ("language", pa.string()),
                ("hashed_ip", pa.string()),
            ]
        ),
    ),
    "lmsys": Format(
        _lmsys,
        (*_BASE, "place", "language"),
        _DIGESTS,
        schema=pa.schema(
            [
                ("conversation_id", pa.string()),
                ("model", pa.string()),
                ("conversation", pa.list_(_MESSAGE)),
                ("turn", pa.int64()),
                ("language", pa.string()),
                ("openai_moderation", pa.list_(pa.struct([("flagged", pa.bool_())]))),
                ("redacted", pa.bool_()),
            ]
        ),
    ),
    "openai_chat": Format(
        _openai_chat,
        (*_BASE, "place", "user", "start"),
        _DIGESTS,
        schema=pa.schema(
            [
                ("id", pa.string()),
                ("user", pa.string()),
                ("model", pa.string()),
                ("messages", pa.list_(pa.struct([*_MESSAGE, ("created", pa.int64())]))),
            ]
        ),
    ),
    "realhumaneval": Format(
        _realhumaneval,
        (*_BASE, "place", "user", "start", "accepted"),
        ("message",),
        schema=pa.schema(
            [
                ("programmer_id", pa.int64()),
                ("task_name", pa.dictionary(pa.int8(), pa.string())),
                ("turn", pa.int16()),
                ("t_s", pa.float64()),
                ("gap_s", pa.float64()),
                ("model", pa.dictionary(pa.int8(), pa.string())),
                ("n_context_msgs", pa.int16()),
                ("user_text", pa.large_string()),
                ("response_chars", pa.int32()),
                ("copied", pa.bool_()),
                ("kind", pa.dictionary(pa.int8(), pa.string())),
                ("sim_prev", pa.float64()),
            ]
        ),
        expected=_of_realhumaneval,
    ),
    "litellm": Format(
        _litellm, (*_REQUEST, "cost", "latency", "attempts"), _DIGESTS, attempts=True
    ),
    "langfuse": Format(
        _langfuse,
        (*_REQUEST, "cost", "latency", "feedback", "accepted"),
        _DIGESTS,
        attempts=True,
    ),
    "opentelemetry": Format(
        _opentelemetry,
        (*_REQUEST, "latency", "feedback", "accepted"),
        _DIGESTS,
        attempts=True,
    ),
}

"""LMSYS-Chat-1M, OpenAI's messages and RealHumanEval: made-up records in the official schemas."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqbayes.errors import InputError
from cqbayes.logs import lmsys, messages, openai_chat, realhumaneval, records
from cqbayes.logs.records import Turns, turns

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATA = os.environ.get("CQBAYES_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
REAL = Path(DATA) / "realhumaneval_retries.parquet"


def _read(tmp_path, importer, *found: Any) -> Turns:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return turns(importer.IMPORTER, path)


def _all(stream: Turns) -> list[dict[str, Any]]:
    rows = [row for batch in stream for row in batch.to_pylist()]
    assert stream.report.set_aside == {}
    return rows


def _rows(tmp_path, importer, *found: Any) -> list[dict[str, Any]]:
    return _all(_read(tmp_path, importer, *found))


def _reason(tmp_path, importer, found: Any) -> str:
    stream = _read(tmp_path, importer, found)
    assert list(stream) == []
    (reason,) = stream.report.set_aside
    return reason


def _user(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **rest}


def _assistant(content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


NULL = dict.fromkeys(("latency", "cost", "failed", "regenerated", "feedback", "accepted"))

# LMSYS-Chat-1M

SCORES = pa.struct([("harassment", pa.float64()), ("self-harm/intent", pa.float64())])
FLAGS = pa.struct([("harassment", pa.bool_()), ("self-harm/intent", pa.bool_())])
MODERATION = pa.struct(
    [("categories", FLAGS), ("category_scores", SCORES), ("flagged", pa.bool_())]
)
LMSYS = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("model", pa.string()),
        ("conversation", pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))),
        ("turn", pa.int64()),
        ("language", pa.string()),
        ("openai_moderation", pa.list_(MODERATION)),
        ("redacted", pa.bool_()),
    ]
)


def _lmsys(*said: Any, **rest: Any) -> dict[str, Any]:
    record = {
        "conversation_id": "c1",
        "model": "vicuna-13b",
        "conversation": list(said),
        "turn": 2,
        "language": "English",
        "openai_moderation": [{"flagged": False}],
        "redacted": True,
    }
    return record | rest


def test_a_conversation_of_lmsys(tmp_path):
    record = _lmsys(
        _user("Hi, NAME_1"), _assistant("Hello!"), _user(" Hi,  NAME_1"), _assistant("")
    )
    path = tmp_path / "train-00000-of-00006.parquet"
    pq.write_table(pa.Table.from_pylist([record], LMSYS), path)
    shared = {"session_id": "c1", "user_id": None, "timestamp": None, "model": "vicuna-13b"}
    shared |= {"language": "English", **NULL}
    expected = [
        {**shared, "turn": 0, "text": "Hi, NAME_1", "response_chars": 6, "repeated": False},
        {**shared, "turn": 1, "text": " Hi,  NAME_1", "response_chars": 0, "repeated": True},
    ]
    assert _all(lmsys.turns(path)) == _rows(tmp_path, lmsys, record) == expected


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_lmsys(_user("x"), conversation_id=None), lmsys.NO_ID),
        (_lmsys(_user("x"), model=""), lmsys.NO_MODEL),
        (_lmsys(_user("x"), language=7), lmsys.NO_LANGUAGE),
        (_lmsys(), messages.NO_MESSAGES),
        (_lmsys(_assistant("x")), messages.NO_USER),
        (_lmsys(_user("x"), "y"), messages.NO_MESSAGES),
        (_lmsys(*[_user("x")] * 10_001), records.LONG_RECORD),
    ],
)
def test_what_is_set_aside_of_lmsys(tmp_path, record, reason):
    assert _reason(tmp_path, lmsys, record) == reason


def test_parquet_without_messages_is_refused(tmp_path):
    table = pa.table({"conversation_id": ["a"], "model": ["b"], "conversation": ["c"]})
    pq.write_table(table, path := tmp_path / "a.parquet")
    with pytest.raises(InputError, match="expected a list of structs in conversation, got string"):
        lmsys.turns(path)
    inner = pa.list_(pa.struct([("role", pa.string())]))
    schema = pa.schema(
        [*[field for field in LMSYS if field.name != "conversation"], ("conversation", inner)]
    )
    pq.write_table(pa.Table.from_pylist([], schema), path)
    with pytest.raises(InputError, match=r"structs in conversation: expected .*; no content"):
        lmsys.turns(path)


# OpenAI's messages


def test_messages_in_all_shapes(tmp_path):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "input_text", "text": "Be brief."},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]
    record = {
        "id": "chat-1",
        "user": "ann",
        "model": "gpt-4o",
        "created": SECONDS,
        "metadata": {"topic": "x"},
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": "Be quick."},
            _user(parts, timestamp="2025-06-01T11:00:00Z"),
            _assistant(None, tool_calls=[{"id": "1", "type": "function"}]),
            {"role": "tool", "tool_call_id": "1", "content": "a cat"},
            _assistant([{"type": "output_text", "text": "A cat."}]),
            _user("Sure?"),
            _assistant(None, refusal="No."),
            _user("sure"),
        ],
    }
    rows = _rows(tmp_path, openai_chat, record)
    assert [row["text"] for row in rows] == ["What is this?\nBe brief.", "Sure?", "sure"]
    assert [row["response_chars"] for row in rows] == [6, 3, None]
    assert [row["timestamp"] for row in rows] == [NOON - timedelta(hours=1), None, NOON]
    assert {(row["session_id"], row["user_id"], row["model"]) for row in rows} == {
        ("chat-1", "ann", "gpt-4o")
    }
    assert {key: rows[0][key] for key in NULL} == NULL


def test_nothing_but_messages(tmp_path):
    """As for fine-tuning: sessions are told apart by all that the user wrote."""
    found = [
        {"messages": [_user("Hi"), _assistant("Hello!"), _user("Why?")]},
        {"messages": [_user("Hi"), _assistant("Hello!"), _user("How?")]},
        {"messages": [_user("Hi"), _assistant("Hello!"), _user("How?")], "user": "bob"},
    ]
    rows = _rows(tmp_path, openai_chat, *found)
    assert [row["turn"] for row in rows] == [0, 1] * 3
    assert len({row["session_id"] for row in rows}) == 3
    assert {row["model"] for row in rows} == {"unknown"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metadata": {"session_id": "s"}, "id": "a"}, {"session_id": "s"}),
        ({"metadata": {"conversation_id": 12}}, {"session_id": "12"}),
        ({"metadata": {"user_id": "ann"}}, {"user_id": "ann"}),
        ({"metadata": "x", "id": "a"}, {"session_id": "a", "user_id": None}),
        ({"timestamp": "2025-06-01 14:00:00+02:00"}, {"timestamp": NOON}),
        ({"created": SECONDS + 0.5}, {"timestamp": NOON + timedelta(seconds=0.5)}),
        ({"messages": [_user("x"), _assistant("y", model="gpt-4o")]}, {"model": "unknown"}),
        ({"messages": [_user("x", model="gpt-4o")], "model": "other"}, {"model": "gpt-4o"}),
    ],
)
def test_parts_of_a_chat(tmp_path, change, expected):
    (row,) = _rows(tmp_path, openai_chat, {"messages": [_user("x")], **change})
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_messages_in_parquet(tmp_path, unit):
    time = pa.timestamp(unit, tz="UTC")
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part)), ("timestamp", time)])
    schema = pa.schema([("messages", pa.list_(message)), ("created", time), ("extra", pa.string())])
    said = [_user([{"type": "text", "text": "Why?"}], timestamp=NOON), _user([], timestamp=None)]
    record = {"messages": said, "created": NOON + timedelta(hours=1)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([record], schema), path)
    rows = _all(openai_chat.turns(path))
    assert [row["text"] for row in rows] == ["Why?", ""]
    assert [row["timestamp"] for row in rows] == [NOON, NOON + timedelta(hours=1)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "x"}, messages.NO_MESSAGES),
        ({"messages": [{"content": "x"}]}, messages.NO_MESSAGES),
        ({"messages": [_user([{"type": "text"}])]}, messages.NO_MESSAGES),
        ({"messages": [_user([7])]}, messages.NO_MESSAGES),
        ({"messages": [_user({"text": "x"})]}, messages.NO_MESSAGES),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": [_user("x")], "id": {}}, messages.NO_NAME),
        ({"messages": [_user("x")], "id": True}, messages.NO_NAME),
        ({"messages": [_user("x")], "created": "noon"}, records.NO_TIMESTAMP),
    ],
)
def test_what_is_set_aside_of_chats(tmp_path, record, reason):
    assert _reason(tmp_path, openai_chat, record) == reason


# RealHumanEval

REQUEST = {
    "programmer_id": 17,
    "task_name": "sum_product",
    "turn": 1,
    "t_s": 61.5,
    "gap_s": 20.25,
    "model": "GPT-4o (chat)",
    "n_context_msgs": 3,
    "user_text": "it does not run",
    "response_chars": 240,
    "copied": True,
    "kind": "complaint",
    "sim_prev": 1.0,
}


def test_a_request_of_realhumaneval(tmp_path):
    (row,) = _rows(tmp_path, realhumaneval, REQUEST)
    assert row == {
        **NULL,
        "session_id": "17/sum_product",
        "turn": 1,
        "user_id": "17",
        "timestamp": EPOCH + timedelta(seconds=61.5),
        "model": "GPT-4o (chat)",
        "text": "it does not run",
        "response_chars": 240,
        "language": None,
        "accepted": True,
        "repeated": False,
    }


def test_what_may_be_absent(tmp_path):
    needed = {key: REQUEST[key] for key in realhumaneval.NEEDED}
    rows = _rows(tmp_path, realhumaneval, needed, REQUEST | {"kind": "verbatim_retry"})
    assert (rows[0]["timestamp"], rows[0]["accepted"], rows[0]["repeated"]) == (None, None, False)
    assert rows[1]["repeated"]
    first = _rows(tmp_path, realhumaneval, REQUEST | {"kind": "verbatim_retry", "turn": 0})
    assert not first[0]["repeated"], "there is none before"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"programmer_id": None}, realhumaneval.NO_PROGRAMMER),
        ({"programmer_id": 1.5}, messages.NO_NAME),
        ({"task_name": None}, realhumaneval.NO_TASK),
        ({"turn": None}, realhumaneval.NO_TURN),
        ({"turn": 2**31}, messages.NO_NUMBER),
        ({"turn": -1}, messages.NO_NUMBER),
        ({"response_chars": 2**63}, messages.NO_NUMBER),
        ({"model": ""}, realhumaneval.NO_MODEL),
        ({"user_text": None}, realhumaneval.NO_TEXT),
        ({"copied": 1}, realhumaneval.NO_BOOL),
        ({"kind": 1}, realhumaneval.NO_KIND),
        ({"t_s": "soon"}, messages.NO_NUMBER),
        ({"t_s": 1e300}, records.NO_TIMESTAMP),
    ],
)
def test_what_is_set_aside_of_realhumaneval(tmp_path, change, reason):
    assert _reason(tmp_path, realhumaneval, REQUEST | change) == reason


@pytest.mark.skipif(
    not REAL.is_file(), reason="shared/data/realhumaneval_retries.parquet is not there"
)
def test_the_file_of_the_study():
    """As its own columns say it, which are not read for it."""
    stream = realhumaneval.turns(REAL)
    rows = _all(stream)
    raw = pq.read_table(REAL).to_pylist()
    assert stream.report.read == stream.report.kept == len(rows) == len(raw) == 1053
    assert len({row["user_id"] for row in rows}) == 107
    assert len({row["session_id"] for row in rows}) == 386
    gaps = []
    for before, row, source in zip([None, *rows], rows, raw, strict=False):
        follows = before is not None and before["session_id"] == row["session_id"]
        assert follows == (row["turn"] > 0)
        said = " ".join(before["text"].split()) if follows else None
        assert row["repeated"] == (said == " ".join(row["text"].split()))
        if follows:
            seconds = (row["timestamp"] - before["timestamp"]).total_seconds()
            gaps.append(abs(seconds - source["gap_s"]))
    assert max(gaps) < 2e-6
    assert sum(row["accepted"] for row in rows) == sum(row["copied"] for row in raw)

"""OpenAI's messages: made-up conversations in the official form."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from made_up_records import all_rows, assistant, reason_of, rows_of, user

from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats import messages, openai_chat
from cqbayes.logs.records import read_turns

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATA = os.environ.get("CQBAYES_DATA") or ROOT.parent / "shared" / "data"
REAL = Path(DATA) / "realhumaneval_retries.parquet"


NULL = dict.fromkeys(("latency", "cost", "failed", "regenerated", "feedback", "accepted"))


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
            user(parts, timestamp="2025-06-01T11:00:00Z"),
            assistant(None, tool_calls=[{"id": "1", "type": "function"}]),
            {"role": "tool", "tool_call_id": "1", "content": "a cat"},
            assistant([{"type": "output_text", "text": "A cat."}]),
            user("Sure?"),
            assistant(None, refusal="No."),
            user("sure"),
        ],
    }
    rows = rows_of(tmp_path, openai_chat, record)
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
        {"messages": [user("Hi"), assistant("Hello!"), user("Why?")]},
        {"messages": [user("Hi"), assistant("Hello!"), user("How?")]},
        {"messages": [user("Hi"), assistant("Hello!"), user("How?")], "user": "bob"},
    ]
    rows = rows_of(tmp_path, openai_chat, *found)
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
        ({"messages": [user("x"), assistant("y", model="gpt-4o")]}, {"model": "unknown"}),
        ({"messages": [user("x", model="gpt-4o")], "model": "other"}, {"model": "gpt-4o"}),
    ],
)
def test_parts_of_a_chat(tmp_path, change, expected):
    (row,) = rows_of(tmp_path, openai_chat, {"messages": [user("x")], **change})
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_messages_in_parquet(tmp_path, unit):
    time = pa.timestamp(unit, tz="UTC")
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part)), ("timestamp", time)])
    schema = pa.schema([("messages", pa.list_(message)), ("created", time), ("extra", pa.string())])
    said = [user([{"type": "text", "text": "Why?"}], timestamp=NOON), user([], timestamp=None)]
    record = {"messages": said, "created": NOON + timedelta(hours=1)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([record], schema), path)
    rows = all_rows(read_turns(openai_chat.IMPORTER, path))
    assert [row["text"] for row in rows] == ["Why?", ""]
    assert [row["timestamp"] for row in rows] == [NOON, NOON + timedelta(hours=1)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "x"}, messages.NO_MESSAGES),
        ({"messages": [{"content": "x"}]}, messages.NO_MESSAGES),
        ({"messages": [user([{"type": "text"}])]}, messages.NO_MESSAGES),
        ({"messages": [user([7])]}, messages.NO_MESSAGES),
        ({"messages": [user({"text": "x"})]}, messages.NO_MESSAGES),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": [user("x")], "id": {}}, messages.NO_NAME),
        ({"messages": [user("x")], "id": True}, messages.NO_NAME),
        ({"messages": [user("x")], "created": "noon"}, log_format.NO_TIMESTAMP),
    ],
)
def test_what_is_set_aside_of_chats(tmp_path, record, reason):
    assert reason_of(tmp_path, openai_chat, record) == reason

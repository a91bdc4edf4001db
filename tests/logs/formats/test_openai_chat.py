"""OpenAI's messages: made-up conversations in the official form."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_records import all_rows, assistant, reason_of, rows_of, user

from cqbayes.logs.formats import fields, messages, openai_chat
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.records import read_requests

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())


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
            assistant([{"type": "output_text", "text": "A cat."}], created=SECONDS - 3_000),
            user("Sure?"),
            assistant(None, refusal="No."),
            user("sure"),
        ],
    }
    rows = rows_of(tmp_path, openai_chat, record)
    assert [row["text"] for row in rows] == ["What is this?\nBe brief.", "Sure?", "sure"]
    assert [row["place"] for row in rows] == [0, 1, 2]
    assert [row["response_chars"] for row in rows] == [6, 3, None]
    assert [row["start"] for row in rows] == [NOON - timedelta(hours=1), None, NOON]
    assert [row["end"] for row in rows] == [NOON - timedelta(minutes=50), None, None]
    assert {(row["session"], row["user"], row["llm"]) for row in rows} == {
        ("chat-1", "ann", "gpt-4o")
    }
    as_text = {**record, "messages": json.dumps(record["messages"])}
    assert rows_of(tmp_path, openai_chat, as_text) == rows


def _picture(url: str, *words: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": one} for one in words]
    return user([*parts, {"type": "image_url", "image_url": {"url": url}}])


@pytest.mark.parametrize("words", [(), ("What is this?",)])
def test_messages_with_pictures_are_the_same_only_with_the_same_picture(tmp_path, words):
    said = [_picture(f"https://example.com/{name}.png", *words) for name in "aba"]
    said = [one for message in said for one in (message, assistant("A cat."))]
    first, other, again = rows_of(tmp_path, openai_chat, {"messages": said})
    assert first["message"] == again["message"] != other["message"]
    assert {row["text"] for row in (first, other, again)} == {words[0] if words else None}


def test_nothing_but_messages(tmp_path):
    """As for fine-tuning: a line is a conversation, and only the same line again is the same."""
    hi = [user("Hi"), assistant("Hello!")]
    found = [
        {"messages": [*hi, user("Why?")]},
        {"messages": [*hi, user("How?")]},
        {"messages": [*hi, user("How?")], "user": "bob"},
        {"messages": hi},
        {"messages": [user("Hi"), assistant("Hey!")]},
        {"messages": hi, "model": "gpt-4o"},
        {"messages": hi, "created": SECONDS},
        {"messages": [{"role": "system", "content": "Be kind."}, *hi]},
    ]
    rows = rows_of(tmp_path, openai_chat, *found)
    assert len({row["session"] for row in rows}) == len(found)
    assert {row["llm"] for row in rows} == {"unknown", "gpt-4o"}
    again = rows_of(tmp_path, openai_chat, found[0], {"extra": 1, **found[0]})
    assert len({row["session"] for row in again}) == 1


def test_requests_of_one_conversation_share_what_finds_them(tmp_path):
    """Each repeats the messages before it: the same turn has the same place and digests."""
    said = [user("Why?"), assistant("So."), user("Why?"), assistant("Just so."), user("Who?")]
    found = [{"id": "c", "messages": said[:n]} for n in (1, 3, 5)]
    rows = rows_of(tmp_path, openai_chat, *found)
    assert len(rows) == 6
    same = {(row["session"], row["place"], row["asked"], row["message"]) for row in rows}
    assert len(same) == 3
    assert len({row["asked"] for row in rows}) == 3
    assert {(row["place"], row["history"]) for row in rows[1:3]} == {
        (row["place"], row["history"]) for row in rows[3:5]
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"metadata": {"session_id": "s"}, "id": "a"}, {"session": "s"}),
        ({"metadata": '{"thread_id": "s"}', "id": "a"}, {"session": "s"}),
        ({"metadata": {"conversation_id": 12}}, {"session": "12"}),
        ({"conversation_id": "s", "id": "a"}, {"session": "s"}),
        ({"threadId": "s", "id": "a"}, {"session": "s"}),
        ({"metadata": {"user_id": "ann"}}, {"user": "ann"}),
        ({"metadata": '{"user_id": "ann"}', "user": ""}, {"user": "ann"}),
        ({"userId": "ann", "metadata": {"user": "bob"}}, {"user": "ann"}),
        ({"metadata": "x", "id": "a"}, {"session": "a", "user": None}),
        ({"timestamp": "2025-06-01 14:00:00+02:00"}, {"start": NOON, "end": None}),
        ({"created_at": SECONDS + 0.5}, {"start": NOON + timedelta(seconds=0.5)}),
        ({"messages": [user("x"), assistant("y", created=SECONDS)]}, {"end": NOON, "start": None}),
        (
            {"messages": [user("x"), assistant("y", created=SECONDS)], "created": SECONDS + 9},
            {"end": NOON, "start": None},
        ),
        ({"messages": [user("x"), assistant("y", model="gpt-4o")]}, {"llm": "gpt-4o"}),
        ({"messages": [user("x", model="gpt-4o")], "model": "other"}, {"llm": "gpt-4o"}),
    ],
)
def test_parts_of_a_chat(tmp_path, change, expected):
    (row,) = rows_of(tmp_path, openai_chat, {"messages": [user("x")], **change})
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_messages_in_parquet(tmp_path, unit):
    time = pa.timestamp(unit, tz="UTC")
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    metadata = pa.struct([("user_id", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part)), ("timestamp", time)])
    schema = pa.schema(
        [
            ("messages", pa.list_(message)),
            ("created", time),
            ("extra", pa.string()),
            ("metadata", metadata),
        ]
    )
    said = [user([{"type": "text", "text": "Why?"}], timestamp=NOON), user([], timestamp=None)]
    record = {"messages": said, "created": NOON + timedelta(hours=1), "metadata": {"user_id": "u"}}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([record], schema), path)
    rows = all_rows(read_requests(openai_chat.IMPORTER, path))
    assert [row["text"] for row in rows] == ["Why?", None]
    assert [row["start"] for row in rows] == [NOON, NOON + timedelta(hours=1)]
    assert {row["user"] for row in rows} == {"u"}


def test_texts_of_json_in_parquet(tmp_path):
    record = {"messages": json.dumps([user("Why?"), assistant("So.")]), "metadata": '{"user": "u"}'}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    (row,) = all_rows(read_requests(openai_chat.IMPORTER, tmp_path / "a.parquet"))
    assert (row["text"], row["response_chars"], row["user"]) == ("Why?", 3, "u")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "x"}, messages.NO_CONTENT),
        ({"messages": [{"content": "x"}]}, messages.UNKNOWN_JSON),
        ({"messages": [user([{"type": "text"}])]}, messages.NO_MESSAGES),
        ({"messages": [user([7])]}, messages.NO_MESSAGES),
        ({"messages": '[{"role": "user", "content": "x'}, messages.NO_JSON),
        ({"messages": [user("")]}, messages.NO_CONTENT),
        ({"messages": [{"role": "system", "content": "x"}]}, messages.NO_USER),
        ({"messages": [user("x")], "id": {}}, fields.NO_NAME),
        ({"messages": [user("x")], "id": True}, fields.NO_NAME),
        ({"messages": [user("x")], "created": "noon"}, log_format.NO_TIMESTAMP),
    ],
)
def test_what_is_set_aside_of_chats(tmp_path, record, reason):
    assert reason_of(tmp_path, openai_chat, record) == reason

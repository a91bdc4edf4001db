"""LMSYS-Chat-1M: made-up records in the official schema."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_records import all_rows, assistant, reason_of, rows_of, user

from cqbayes.errors import InputError
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats import lmsys, messages
from cqbayes.logs.records import read_requests

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
    record = _lmsys(user("Hi, NAME_1"), assistant("Hello!"), user(" Hi,  NAME_1"), assistant(""))
    path = tmp_path / "train-00000-of-00006.parquet"
    pq.write_table(pa.Table.from_pylist([record], LMSYS), path)
    rows = all_rows(read_requests(lmsys.IMPORTER, path))
    as_text = {**record, "conversation": json.dumps(record["conversation"])}
    assert rows == rows_of(tmp_path, lmsys, record) == rows_of(tmp_path, lmsys, as_text)
    shared = {"session": "c1", "user": None, "start": None, "end": None, "llm": "vicuna-13b"}
    shared |= {"language": "English", "message": rows[0]["message"], "after": 0, "tools": False}
    expected = [
        {**shared, "place": 0, "text": "Hi, NAME_1", "response_chars": 6, "before": None},
        {
            **shared,
            "place": 1,
            "text": " Hi,  NAME_1",
            "response_chars": 0,
            "before": rows[0]["message"],
        },
    ]
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (_lmsys(user("x"), conversation_id=None), lmsys.NO_ID),
        (_lmsys(user("x"), model=""), lmsys.NO_MODEL),
        (_lmsys(user("x"), language=7), lmsys.NO_LANGUAGE),
        (_lmsys(), messages.NO_CONTENT),
        (_lmsys(user("x"), conversation="x"), messages.NO_MESSAGES),
        (_lmsys(user("x"), conversation=user("x")), messages.NO_MESSAGES),
        (_lmsys(assistant("x")), messages.NO_USER),
        (_lmsys(user("x"), "y"), messages.NO_MESSAGES),
        (_lmsys(*[user("x")] * 10_001), log_format.LONG_RECORD),
    ],
)
def test_what_is_set_aside_of_lmsys(tmp_path, record, reason):
    assert reason_of(tmp_path, lmsys, record) == reason


def test_parquet_without_messages_is_refused(tmp_path):
    table = pa.table({"conversation_id": ["a"], "model": ["b"], "conversation": [3]})
    pq.write_table(table, path := tmp_path / "a.parquet")
    with pytest.raises(InputError, match="expected a list of structs in conversation, got int64"):
        read_requests(lmsys.IMPORTER, path)
    inner = pa.list_(pa.struct([("role", pa.string())]))
    schema = pa.schema(
        [*[field for field in LMSYS if field.name != "conversation"], ("conversation", inner)]
    )
    pq.write_table(pa.Table.from_pylist([], schema), path)
    with pytest.raises(InputError, match=r"structs in conversation: expected .*; no content"):
        read_requests(lmsys.IMPORTER, path)

"""RealHumanEval: made-up requests in the official schema, and the real ones."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from made_up_records import all_rows, reason_of, rows_of

from cqbayes.logs.formats import fields, realhumaneval
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.records import read_requests

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATA = os.environ.get("CQBAYES_DATA") or ROOT.parent / "shared" / "data"
REAL = Path(DATA) / "realhumaneval_retries.parquet"


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
    (row,) = rows_of(tmp_path, realhumaneval, REQUEST)
    assert row.pop("message")
    assert {key: value for key, value in row.items() if value not in (None, [])} == {
        "kind": "request",
        "session": "17/sum_product",
        "user": "17",
        "start": EPOCH + timedelta(seconds=61.5),
        "place": 1,
        "turn": 1,
        "llm": "GPT-4o (chat)",
        "text": "it does not run",
        "response_chars": 240,
        "accepted": True,
        "after": 0,
        "tools": False,
    }


def test_what_may_be_absent(tmp_path):
    needed = {key: REQUEST[key] for key in realhumaneval.NEEDED}
    (row,) = rows_of(tmp_path, realhumaneval, needed)
    assert {row[key] for key in ("start", "accepted", "response_chars")} == {None}


def test_texts_are_read_as_they_are(tmp_path):
    """Code and JSON are what a programmer pastes; a text without words is none."""
    said = ('{"messages": []}', "user: x\nassistant: y", "[1, 2]", " \n", "x", " x ")
    rows = rows_of(tmp_path, realhumaneval, *({**REQUEST, "user_text": one} for one in said))
    assert [row["text"] for row in rows] == [*said[:3], None, "x", " x "]
    assert rows[3]["message"] is None
    assert rows[4]["message"] == rows[5]["message"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"programmer_id": None}, realhumaneval.NO_PROGRAMMER),
        ({"programmer_id": 1.5}, fields.NO_NAME),
        ({"task_name": None}, realhumaneval.NO_TASK),
        ({"turn": None}, realhumaneval.NO_TURN),
        ({"turn": 2**31}, fields.NO_NUMBER),
        ({"turn": -1}, fields.NO_NUMBER),
        ({"response_chars": 2**63}, fields.NO_NUMBER),
        ({"model": ""}, realhumaneval.NO_MODEL),
        ({"user_text": None}, realhumaneval.NO_TEXT),
        ({"copied": 1}, realhumaneval.NO_BOOL),
        ({"t_s": "soon"}, fields.NO_NUMBER),
        ({"t_s": 1e300}, log_format.NO_TIMESTAMP),
    ],
)
def test_what_is_set_aside_of_realhumaneval(tmp_path, change, reason):
    assert reason_of(tmp_path, realhumaneval, REQUEST | change) == reason


@pytest.mark.skipif(
    not REAL.is_file(), reason="shared/data/realhumaneval_retries.parquet is not there"
)
def test_the_file_of_the_study():
    """As its own columns say it, which are not read for it."""
    stream = read_requests(realhumaneval.IMPORTER, REAL)
    rows = all_rows(stream)
    raw = pq.read_table(REAL).to_pylist()
    assert stream.report.read == stream.report.kept == len(rows) == len(raw) == 1053
    assert len({row["user"] for row in rows}) == 107
    assert len({row["session"] for row in rows}) == 386
    gaps = []
    for before, row, source in zip([None, *rows], rows, raw, strict=False):
        follows = before is not None and before["session"] == row["session"]
        assert follows == (row["place"] > 0)
        repeats = follows and before["message"] == row["message"]
        assert repeats == (source["kind"] == "verbatim_retry")
        if follows:
            seconds = (row["start"] - before["start"]).total_seconds()
            gaps.append(abs(seconds - source["gap_s"]))
    assert max(gaps) < 2e-6
    assert sum(row["accepted"] for row in rows) == sum(row["copied"] for row in raw)

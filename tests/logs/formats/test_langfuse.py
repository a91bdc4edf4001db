"""Langfuse: made-up traces and generations in the official shapes."""

import json
from typing import Any

import pytest
from made_up_records import OF_TURN, TOOL_STEP, reason_of, rows_of, said

from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats import langfuse, messages
from cqbayes.logs.records import read_turns


def _generation(**rest: Any) -> dict[str, Any]:
    generation = {
        "id": "o1",
        "traceId": "t1",
        "type": "GENERATION",
        "name": "answer",
        "startTime": "2025-06-01T12:00:00.000Z",
        "endTime": "2025-06-01T12:00:02.500Z",
        "completionStartTime": None,
        "model": "gpt-4o",
        "modelParameters": {"temperature": 1},
        "input": [{"role": "system", "content": "Be kind."}, *said("Why?", "So.", "Why? ")],
        "output": {"role": "assistant", "content": "Because."},
        "metadata": {},
        "level": "DEFAULT",
        "statusMessage": None,
        "parentObservationId": None,
        "usageDetails": {"input": 40, "output": 20, "total": 60},
        "costDetails": {"input": 0.001, "output": 0.00225, "total": 0.00325},
        "calculatedTotalCost": 0.00325,
        "latency": 2.5,
    }
    return generation | rest


def _trace(*observations: Any, scores: Any = (), **rest: Any) -> dict[str, Any]:
    trace = {
        "id": "t1",
        "timestamp": "2025-06-01T12:00:00.000Z",
        "name": "chat",
        "input": None,
        "output": None,
        "sessionId": "s",
        "userId": "ann",
        "tags": [],
        "htmlPath": "/project/p/traces/t1",
        "latency": 2.5,
        "totalCost": 0.00325,
        "observations": list(observations),
        "scores": list(scores),
    }
    return trace | rest


def _score(name: str, value: Any, **rest: Any) -> dict[str, Any]:
    score = {
        "id": "c1",
        "traceId": "t1",
        "name": name,
        "value": value,
        "dataType": "BOOLEAN",
        "source": "API",
        "observationId": None,
        "timestamp": "2025-06-01T12:01:00.000Z",
        "comment": "Not for anybody else to read",
    }
    return score | rest


IN_STORAGE = {
    "id": "o1",
    "trace_id": "t1",
    "type": "GENERATION",
    "start_time": "2025-06-01 12:00:00.000000",
    "end_time": "2025-06-01 12:00:02.500000",
    "provided_model_name": "gpt-4o",
    "input": json.dumps(_generation()["input"]),
    "output": json.dumps(_generation()["output"]),
    "level": "DEFAULT",
    "cost_details": {"total": 0.00325},
    "user_id": "ann",
    "session_id": "s",
}
VERSION_2 = {
    **_generation(input=IN_STORAGE["input"], output=IN_STORAGE["output"]),
    "model": None,
    "providedModelName": "gpt-4o",
    "costDetails": {},
    "totalCost": 0.00325,
    "userId": "ann",
    "sessionId": "s",
}


@pytest.mark.parametrize(
    "found",
    [
        _trace(_generation()),
        _trace({"id": "o0", "type": "SPAN", "input": "x"}, _generation()),
        {"data": [_trace(_generation())], "meta": {"page": 1, "limit": 50}},
        {**_generation(), "userId": "ann", "sessionId": "s"},
        VERSION_2,
        IN_STORAGE,
    ],
)
def test_a_generation(tmp_path, found):
    assert rows_of(tmp_path, langfuse, found) == [OF_TURN]


def test_pages_are_unpacked_in_json_too(tmp_path):
    path = tmp_path / "page.json"
    page = {"data": [_trace(_generation()), 7, _trace(_generation())], "meta": {}}
    path.write_text(json.dumps(page, indent=1))
    stream = read_turns(langfuse.IMPORTER, path)
    assert sum(len(batch) for batch in stream) == 2
    assert stream.report[:3] == (3, 2, {log_format.NOT_JSON: 1})


def test_the_application_sends_again_in_a_trace(tmp_path):
    """After a failure it is the application; after an answer nobody knows."""
    later = [f"2025-06-01T12:0{minute}:00.000Z" for minute in range(4)]
    failed = {"level": "ERROR", "statusMessage": "429", "output": None}
    found = _trace(
        _generation(id="o3", startTime=later[2]),
        _generation(id="o1", startTime=later[0], **failed),
        _generation(id="o2", startTime=later[1], **failed),
        _generation(id="o4", startTime=later[3]),
    )
    rows = rows_of(tmp_path, langfuse, found)
    assert [row["failed"] for row in rows] == [True, True, False, False]
    assert [row["regenerated"] for row in rows] == [None, False, False, None]
    assert [row["response_chars"] for row in rows] == [None, None, 8, 8]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (_score("user-feedback", 1), (None, 1)),
        (_score("user-feedback", 0), (None, -1)),
        (_score("User Feedback", -1, dataType="NUMERIC"), (None, -1)),
        (_score("feedback", 1, observationId="o1"), (1, None)),
        (_score("feedback", 1, observationId="elsewhere"), (None, None)),
        # The value of a category is 0 where nobody has given it another.
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="up"), (None, 1)),
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="sideways"), (None, None)),
        (_score("user-feedback", 4, dataType="NUMERIC"), (None, None)),
        (_score("user-feedback", 1, source="EVAL"), (None, None)),
        (_score("user-feedback", 1, source="ANNOTATION"), (None, None)),
        (_score("faithfulness", 1), (None, None)),
        (_score("user-feedback", None), (None, None)),
        (7, (None, None)),
    ],
)
def test_scores(tmp_path, score, expected):
    second = _generation(id="o2", startTime="2025-06-01T12:05:00.000Z", input=said("Hi"))
    rows = rows_of(tmp_path, langfuse, _trace(_generation(), second, scores=[score]))
    assert tuple(row["feedback"] for row in rows) == expected


def test_taken_answers(tmp_path):
    found = [_trace(_generation(), scores=[_score("copied", value)]) for value in (1, 0)]
    assert [row["accepted"] for row in rows_of(tmp_path, langfuse, *found)] == [True, False]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input": "Why?"}, {"text": "Why?", "turn": 0}),
        ({"input": {"messages": said("Why?")}}, {"text": "Why?"}),
        ({"input": '{"pasted": "by a user"}'}, {"text": '{"pasted": "by a user"}'}),
        ({"input": "[" * 100_000}, {"text": "[" * 100_000}),
        ({"output": "So."}, {"response_chars": 3}),
        ({"output": None}, {"response_chars": None}),
        ({"endTime": None}, {"latency": 2.5}),
        (
            {"costDetails": {}, "calculatedTotalCost": None, "usage": {"totalCost": 0.5}},
            {"cost": 0.5},
        ),
        ({"costDetails": {}, "calculatedTotalCost": None}, {"cost": None}),
    ],
)
def test_parts_of_a_generation(tmp_path, change, expected):
    (row,) = rows_of(tmp_path, langfuse, _trace(_generation(**change)))
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (_trace("o1", "o2"), langfuse.IDS_ONLY),
        (_trace(7), langfuse.NO_RECORD),
        (_score("user-feedback", 1), langfuse.LONE_SCORE),
        ({"id": "s", "projectId": "p"}, langfuse.NO_RECORD),
        (_trace(_generation(model=None)), langfuse.NO_MODEL),
        (_trace(_generation(input=None)), messages.NO_MESSAGES),
        (_trace(_generation(startTime="noon")), log_format.NO_TIMESTAMP),
        (_trace(*[{"type": "SPAN"}] * 10_001), log_format.LONG_RECORD),
    ],
)
def test_what_is_set_aside_of_langfuse(tmp_path, found, reason):
    assert reason_of(tmp_path, langfuse, found) == reason


def test_observations_that_are_no_turn(tmp_path):
    assert rows_of(tmp_path, langfuse, _generation(type="SPAN"), _generation(input=TOOL_STEP)) == []
    assert rows_of(tmp_path, langfuse, _trace()) == []

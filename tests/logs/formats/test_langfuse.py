"""Langfuse: made-up traces, observations and scores in the official shapes."""

import json
from typing import Any

import pytest
from made_up_records import OF_REQUEST, SAID, START, TOOL_STEP, read, reason_of, rows_of, said

from cqbayes.logs.formats import fields, langfuse, messages
from cqbayes.logs.formats import importer as log_format
from cqbayes.logs.formats.digests import digest
from cqbayes.logs.formats.importer import Request
from cqbayes.logs.records import read_requests


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
        "input": SAID,
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


OF_USER = {"userId": "ann", "sessionId": "s"}


def _trace(*observations: Any, scores: Any = (), **rest: Any) -> dict[str, Any]:
    trace = {
        "id": "t1",
        "timestamp": "2025-06-01T12:00:00.000Z",
        "name": "chat",
        "input": None,
        "output": None,
        **OF_USER,
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
        "timestamp": "2025-06-01T12:00:00.000Z",
        "comment": "Not for anybody else to read",
    }
    return score | rest


IN_STORAGE = {
    "id": "o1",
    "trace_id": "t1",
    "type": "GENERATION",
    "name": "answer",
    "start_time": "2025-06-01 12:00:00.000000",
    "end_time": "2025-06-01 12:00:02.500000",
    "provided_model_name": "gpt-4o",
    "input": json.dumps(SAID),
    "output": json.dumps(_generation()["output"]),
    "level": "DEFAULT",
    "cost_details": {"total": 0.00325},
    "user_id": "ann",
    "session_id": "s",
    "tags": [],
    "trace_name": "chat",
}
VERSION_2 = {
    **_generation(input=IN_STORAGE["input"], output=IN_STORAGE["output"]),
    "model": None,
    "providedModelName": "gpt-4o",
    "costDetails": {},
    "totalCost": 0.00325,
    "traceName": "chat",
    **OF_USER,
}
OF_GENERATION = {**OF_REQUEST, "id": "o1", "trace": "t1", "marks": ["answer", "chat"]}
OF_LONE_TRACE = {
    **Request(kind="span", trace="t1", session="s", user="ann", start=START)._asdict(),
    "marks": ["chat"],
}


@pytest.mark.parametrize(
    "found",
    [
        IN_STORAGE,
        {**IN_STORAGE, "type": "generation"},
        VERSION_2,
        {"data": [VERSION_2], "meta": {"page": 1}},
    ],
)
def test_a_generation(tmp_path, found):
    assert rows_of(tmp_path, langfuse, found) == [OF_GENERATION]


DOWNLOADED = {
    "trace": {key: one for key, one in _trace().items() if key != "observations"},
    "observations": [_generation()],
}


@pytest.mark.parametrize(
    "found",
    [
        _trace(_generation()),
        _trace(_generation(sessionId="", userId=None)),
        DOWNLOADED,
        {"data": [_trace(_generation())], "meta": {"page": 1, "limit": 50}},
        {"id": "s", "createdAt": "x", "traces": [_trace(_generation(), sessionId=None)]},
    ],
)
def test_a_trace_and_what_is_in_it(tmp_path, found):
    """What the trace alone says, its observations say too."""
    assert rows_of(tmp_path, langfuse, found) == [OF_LONE_TRACE, OF_GENERATION]


def test_spans_around_a_generation(tmp_path):
    outer = {"id": "a", "type": "AGENT", "startTime": "2025-06-01T12:00:00Z", "name": "run"}
    inner = _generation(parentObservationId="a")
    rows = rows_of(tmp_path, langfuse, _trace(outer, inner))
    assert [(row["kind"], row["id"], row["parent"], row["call"]) for row in rows] == [
        ("span", None, None, None),
        ("span", "a", None, "AGENT"),
        ("request", "o1", "a", None),
    ]
    assert {(row["trace"], row["session"], row["user"]) for row in rows} == {("t1", "s", "ann")}
    assert rows[1]["message"] is None


@pytest.mark.parametrize(
    ("asked", "said_by_user"),
    [
        ("Why?", "Why?"),
        (json.dumps({"messages": said("Hi", "Hello!", "Why?")}), "Why?"),
        ({"question": "Why?"}, None),
        (None, None),
    ],
)
def test_a_trace_that_states_the_users_words(tmp_path, asked, said_by_user):
    row, _ = rows_of(tmp_path, langfuse, _trace(_generation(), input=asked))
    assert row["kind"] == "span"
    assert row["message"] == (said_by_user and digest(said_by_user))


def test_pages_are_unpacked_in_json_too(tmp_path):
    path = tmp_path / "page.json"
    page = {"data": [_trace(_generation()), 7, _trace(_generation())], "meta": {}}
    path.write_text(json.dumps(page, indent=1))
    stream = read_requests(langfuse.IMPORTER, path)
    assert sum(len(batch) for batch in stream) == 4
    assert stream.report[:3] == (5, 4, {log_format.NOT_JSON: 1})


def test_one_bad_part_costs_that_part(tmp_path):
    bad = [_generation(input=None), _generation(model=None), 7]
    stream = read(tmp_path, langfuse, _trace(bad[0], _generation(), *bad[1:]))
    rows = [row for batch in stream for row in batch.to_pylist()]
    assert rows == [OF_LONE_TRACE, OF_GENERATION]
    assert stream.report[:3] == (
        5,
        2,
        {messages.NO_CONTENT: 1, langfuse.NO_MODEL: 1, log_format.NOT_JSON: 1},
    )


def test_a_trace_with_identifiers_of_observations_says_whose_they_are(tmp_path):
    assert rows_of(tmp_path, langfuse, _trace("o1", "o2")) == [OF_LONE_TRACE]
    without = {key: one for key, one in _trace().items() if key != "observations"}
    assert rows_of(tmp_path, langfuse, without) == [OF_LONE_TRACE]


# Opinions


@pytest.mark.parametrize(
    ("score", "feedback"),
    [
        (_score("user-feedback", 1), 1),
        (_score("user-feedback", 0), -1),
        (_score("User Feedback", -1, dataType="NUMERIC"), -1),
        # The value of a category is 0 where nobody has given it another.
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="up"), 1),
        (_score("thumbs", 0, dataType="CATEGORICAL", stringValue="sideways"), None),
        (_score("user-feedback", 4, dataType="NUMERIC"), None),
        (_score("user-feedback", 1, source="EVAL"), None),
        (_score("user-feedback", 1, source="ANNOTATION"), None),
        (_score("faithfulness", 1), None),
        (_score("user-feedback", None), None),
    ],
)
def test_scores(tmp_path, score, feedback):
    """Of the trace, of an observation, of one that is not here, and alone."""
    _, of_trace, request = rows_of(tmp_path, langfuse, _trace(_generation(), scores=[score]))
    assert (of_trace["kind"], of_trace["trace"], of_trace["id"]) == ("score", "t1", None)
    assert (of_trace["feedback"], request["feedback"]) == (feedback, None)
    named = {**score, "observationId": "o1"}
    _, request = rows_of(tmp_path, langfuse, _trace(_generation(), scores=[named]))
    assert request == {**OF_GENERATION, "feedback": feedback}
    (lone,) = rows_of(tmp_path, langfuse, named)
    alone = Request(kind="score", id="o1", trace="t1", start=START, feedback=feedback)
    assert lone == {**alone._asdict(), "marks": []}
    elsewhere = {**score, "observationId": "o9"}
    _, of_other, request = rows_of(tmp_path, langfuse, _trace(_generation(), scores=[elsewhere]))
    assert (of_other["id"], of_other["feedback"], request["feedback"]) == ("o9", feedback, None)


def test_a_score_of_a_session(tmp_path):
    score = _score("user-feedback", 1, traceId=None, sessionId="s")
    (row,) = rows_of(tmp_path, langfuse, score)
    assert (row["session"], row["trace"], row["feedback"]) == ("s", None, 1)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user-feedback": [0], "accuracy": [0.4]}, (-1, None)),
        ({"user-feedback": [0, 0]}, (-1, None)),
        ({"user-feedback": [0, 1]}, (None, None)),
        ({"User feedback": "[1]"}, (1, None)),
        ({"thumbs": ["down"], "copied": ["True"]}, (-1, True)),
        ({"user-feedback": 0}, (-1, None)),
        ({"scores": {"user-feedback": [0]}}, (-1, None)),
        ({"user-feedback": None, "accuracy": [1]}, (None, None)),
        ({"user-feedback": []}, (None, None)),
    ],
)
def test_scores_in_columns(tmp_path, columns, expected):
    """As tables are exported from the application."""
    (row,) = rows_of(tmp_path, langfuse, {**VERSION_2, **columns})
    assert (row["feedback"], row["accepted"]) == expected
    rows = rows_of(tmp_path, langfuse, {**_trace(), **columns, "observations": None})
    found = [(row["feedback"], row["accepted"]) for row in rows if row["kind"] == "score"]
    assert found == ([] if expected == (None, None) else [expected])


def test_taken_answers(tmp_path):
    scores = [_score("copied", value, observationId="o1") for value in (1, 0)]
    rows = [rows_of(tmp_path, langfuse, _trace(_generation(), scores=[one]))[1] for one in scores]
    assert [row["accepted"] for row in rows] == [True, False]


# Parts of a generation


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input": "Why?"}, {"text": "Why?", "turn": 0}),
        ({"input": {"messages": said("Why?"), "tools": []}}, {"text": "Why?"}),
        ({"input": '{"prompt": "Why?"}'}, {"text": "Why?"}),
        ({"input": TOOL_STEP}, {"after": 2, "tools": True}),
        ({"input": [TOOL_STEP[-1]]}, {"message": None, "after": 1, "tools": True}),
        ({"output": "So."}, {"response_chars": 3, "answer": digest("So.")}),
        ({"output": '"So."'}, {"response_chars": 3, "answer": digest("So.")}),
        ({"output": None}, {"response_chars": None}),
        ({"level": "ERROR"}, {"failed": True, "response_chars": None, "answer": None}),
        ({"level": None}, {"failed": None, "response_chars": 8}),
        ({"endTime": None}, {"latency": 2.5, "end": None}),
        (
            {"costDetails": {}, "calculatedTotalCost": None, "usage": {"totalCost": 0.5}},
            {"cost": 0.5},
        ),
        ({"costDetails": {}, "calculatedTotalCost": None}, {"cost": None}),
        ({"costDetails": {"total": 0}}, {"cost": 0.0}),
        (
            {"model": "text-embedding-3", "input": "Why?"},
            {"call": "embedding", "message": None, "turn": None},
        ),
    ],
)
def test_parts_of_a_generation(tmp_path, change, expected):
    _, row = rows_of(tmp_path, langfuse, _trace(_generation(**change)))
    assert {key: row[key] for key in expected} == expected


@pytest.mark.parametrize(
    "metadata",
    [
        {"session_id": "s", "user_id": "ann"},
        json.dumps({"sessionId": "s", "userId": "ann"}),
        {"langfuse_session_id": "s", "langfuse_user_id": "ann"},
        {"attributes": {"session.id": "s", "user.id": "ann"}},
        {"attributes.session.id": "s", "attributes.user.id": "ann"},
        {"requester_metadata": {"chat_id": "s", "user_id": "ann"}},
        {"thread_id": "s", "session_id": {"a": 1}, "user_id": "ann"},
    ],
)
def test_identity_in_metadata(tmp_path, metadata):
    (row,) = rows_of(tmp_path, langfuse, _generation(metadata=metadata))
    assert (row["session"], row["user"]) == ("s", "ann")
    unknown = {"sessionId": None, "userId": None}
    found = _trace(_generation(), metadata=metadata, **unknown)
    rows = rows_of(tmp_path, langfuse, found)
    assert {(row["session"], row["user"]) for row in rows} == {("s", "ann")}


def test_who_owns_the_key(tmp_path):
    found = _generation(metadata={"user_api_key_user_id": "owner"})
    assert [row["owner"] for row in rows_of(tmp_path, langfuse, found)] == ["owner"]


def test_what_a_request_is_for(tmp_path):
    one = _generation(promptName="title-prompt", metadata={"task": "title_generation"})
    (_, row) = rows_of(tmp_path, langfuse, _trace(one, name="web", tags=["beta", "web"]))
    assert row["marks"] == ["answer", "web", "title-prompt", "beta", "title_generation"]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"id": "s", "projectId": "p"}, langfuse.NO_RECORD),
        ({"name": "x"}, langfuse.NO_RECORD),
        (_generation(model=None), langfuse.NO_MODEL),
        (_generation(input=None), messages.NO_CONTENT),
        (_generation(input='{"question": "Why?"}'), messages.UNKNOWN_JSON),
        (_generation(startTime="noon"), log_format.NO_TIMESTAMP),
        (_score("user-feedback", 1, timestamp="noon"), log_format.NO_TIMESTAMP),
        (_generation(id=["o1"]), fields.NO_NAME),
    ],
)
def test_what_is_set_aside_of_langfuse(tmp_path, found, reason):
    assert reason_of(tmp_path, langfuse, found) == reason

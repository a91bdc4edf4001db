"""Turns into services, by an oracle that reads one session at a time, and by hand."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs.retrials.chains import TurnCounts, in_order, services_of_turns
from cqbayes.logs.retrials.detector import Detector, Logistic
from cqbayes.logs.retrials.detector_files import load_detector
from cqbayes.logs.retrials.pairs import FEATURES, features
from cqbayes.logs.schema import SERVICES, TURNS

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
COMPLAINS = FEATURES.index("complaint")


def _by_complaint() -> Detector:
    """Nine of ten complaints are retrials, and one of ten of all else: nothing is uncertain."""
    num = len(FEATURES)
    mean = np.zeros(num + 1)
    mean[0], mean[1 + COMPLAINS] = -np.log(9), 2 * np.log(9)
    nothing = np.zeros((num + 1, num + 1))
    return Detector(Logistic(FEATURES, np.zeros(num), np.ones(num), mean, nothing, 0.5))


DETECTOR = _by_complaint()


def _turn(turn: int, text: str = "Why?", session: str = "a", **known) -> dict:
    return {
        "session_id": session,
        "turn": turn,
        "model": f"llm{turn % 3}",
        "text": text,
        "timestamp": NOON + timedelta(minutes=turn),
        "repeated": False,
        **known,
    }


def _made(*turns: dict, **how) -> tuple[list[dict], TurnCounts]:
    stream = services_of_turns(pa.Table.from_pylist(list(turns), TURNS), DETECTOR, **how)
    rows = [row for batch in stream for row in batch.to_pylist()]
    return rows, stream.report


def _seen(*turns: dict, **how) -> list[tuple]:
    """Query, attempt, what was taken, and the probability of a retrial of each service."""
    rows, _ = _made(*turns, **how)
    chance = [row["retry_probability"] for row in rows]
    return [
        (row["query_id"], row["attempt"], row["chosen"], None if p is None else round(p, 6))
        for row, p in zip(rows, chance, strict=True)
    ]


# What came of a turn, sign by sign


def test_inferred_chains_have_probabilities():
    turns = [_turn(0), _turn(1, "wrong"), _turn(2, "still wrong"), _turn(3, "And why red?")]
    assert _seen(*turns) == [
        ("a/0", 1, None, 0.9),
        ("a/0", 2, None, 0.9),
        ("a/0", 3, "llm2", 0.1),
        ("a/3", 1, "llm0", None),
    ]
    counts = {"turns": 4, "services": 4, "inferred": 3, "assumed": 1, "retried": 2, "queries": 2}
    assert _made(*turns)[1] == TurnCounts(**counts)
    assert [row[1] for row in _seen(*turns, threshold=0.95)] == [1, 1, 1, 1]


def test_a_service_is_one_turn():
    turn = _turn(0, user_id="u", latency=1.5, cost=0.1, language="English", response_chars=3)
    (row,), _ = _made(turn)
    same = {name: turn[name] for name in ("session_id", "user_id", "timestamp", "text")}
    assert row == {
        **dict.fromkeys(SERVICES.names),
        **same,
        "query_id": "a/0",
        "attempt": 1,
        "offered": ["llm0"],
        "chosen": "llm0",
        "silent": False,
        "latency": 1.5,
        "cost": 0.1,
    }


def test_each_attempt_keeps_its_own_text():
    rows, _ = _made(_turn(0, "Why?"), _turn(1, "wrong, why?"))
    assert [row["text"] for row in rows] == ["Why?", "wrong, why?"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # The next turn complains: a retrial to the detector, but for what the user showed.
        ({}, {}, (None, 2)),
        ({"accepted": True}, {}, ("llm0", 1)),
        ({"accepted": False}, {}, (None, 2)),
        ({"feedback": 1.0}, {}, ("llm0", 1)),
        ({"feedback": 0.0}, {}, (None, 2)),
        ({"feedback": -1.0, "accepted": True}, {}, (None, 2)),
        ({"accepted": True}, {"repeated": True}, ("llm0", 1)),
        ({"accepted": True}, {"regenerated": True}, (None, 2)),
        ({"feedback": 1.0}, {"regenerated": True}, ("llm0", 1)),
        ({"feedback": -1.0}, {"regenerated": True}, (None, 2)),
        # The next turn does not: a new query, but for what the user showed.
        ({}, {"text": "And?"}, ("llm0", 1)),
        ({}, {"text": "And?", "repeated": True}, (None, 2)),
        ({}, {"text": "And?", "regenerated": True}, (None, 2)),
        ({"feedback": -1.0}, {"text": "And?"}, (None, 1)),
        ({"feedback": -1.0}, {"text": "And?", "repeated": True}, (None, 2)),
    ],
)
def test_what_the_user_showed_comes_first(first, second, expected):
    one, two = _turn(0, **first), _turn(1, **{"text": "wrong", **second})
    rows, report = _made(one, two)
    assert (rows[0]["chosen"], rows[1]["attempt"]) == expected
    shown = not (first in ({}, {"accepted": False}, {"feedback": 0.0}) and len(second) < 2)
    assert (rows[0]["retry_probability"] is None) == shown
    assert report.explicit == shown


def test_the_last_turn_of_a_session():
    turns = [_turn(0), _turn(1, "wrong"), _turn(0, session="b", feedback=-1.0)]
    assert [row[2] for row in _seen(*turns)] == [None, "llm1", None]
    rows, report = _made(*turns, last="silent")
    assert [(row["chosen"], row["silent"]) for row in rows] == [
        (None, False),
        (None, True),
        (None, False),
    ]
    assert (report.assumed, report.explicit, report.retried) == (1, 1, 2)
    rows, report = _made(*turns, last="drop")
    assert [row["query_id"] for row in rows] == ["a/0", "b/0"]
    assert (report.turns, report.services, report.dropped, report.assumed) == (3, 2, 1, 0)


def test_a_turn_that_comes_too_late_is_no_retrial():
    early, late = _turn(0), _turn(90, "wrong")
    assert _seen(early, late) == [("a/0", 1, None, 0.9), ("a/0", 2, "llm0", None)]
    assert _seen(early, late, idle=3_600.0) == [
        ("a/0", 1, "llm0", None),
        ("a/90", 1, "llm0", None),
    ]
    assert _seen(early, {**late, "repeated": True}, idle=3_600.0)[0] == ("a/0", 1, "llm0", None)


# Transport


def test_a_request_sent_again_after_an_error_is_no_retrial():
    turns = [_turn(0, failed=True), _turn(1, repeated=True), _turn(2, "And?")]
    rows, report = _made(*turns)
    assert [(row["query_id"], row["attempt"], row["chosen"]) for row in rows] == [
        ("a/1", 1, "llm1"),
        ("a/2", 1, "llm2"),
    ]
    assert (report.failed, report.services, report.retried) == (1, 2, 0)


@pytest.mark.parametrize(
    ("failed", "after", "attempt"),
    [
        ({"text": "And?"}, {"text": "And?", "repeated": True}, 1),  # sent again by a program
        ({"repeated": True}, {"repeated": True}, 2),  # by the user first, and then by a program
        ({"text": "And?", "regenerated": True}, {"text": "And?", "repeated": True}, 2),
        ({"text": "And?"}, {"text": "wrong"}, 2),
    ],
)
def test_what_failed_between_two_answers(failed, after, attempt):
    rows, report = _made(_turn(0), _turn(1, **failed, failed=True), _turn(2, **after))
    assert [row["attempt"] for row in rows] == [1, attempt]
    assert (rows[0]["chosen"] is None) == (attempt == 2)
    assert report.failed == 1


def test_asking_for_another_answer_that_never_comes():
    rows, report = _made(_turn(0), _turn(1, regenerated=True, failed=True))
    assert [(row["chosen"], row["silent"]) for row in rows] == [(None, False)]
    assert (report.explicit, report.retried) == (1, 1)


def test_turns_out_of_order_are_left_out():
    turns = [_turn(0), _turn(5), _turn(1, "wrong"), _turn(5, "wrong"), _turn(6, "wrong")]
    turns += [_turn(0, session="b")]
    rows, report = _made(*turns)
    assert [row["query_id"] for row in rows] == ["a/0", "a/5", "a/5", "b/0"]
    assert (report.turns, report.services, report.disordered) == (6, 4, 2)


# All at once: another implementation, session by session

TEXTS = ["Why?", "wrong", "still not", "And?", "thanks", ""]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "turn": st.integers(0, 3),  # how far above the one before: 0 is out of order
            "new": st.integers(0, 3),  # 0 begins a session
            "text": st.sampled_from(TEXTS) | st.none(),
            "failed": st.sampled_from([None, False, False, True]),
            "regenerated": st.sampled_from([None, False, False, True]),
            "repeated": st.sampled_from([False, False, True]),
            "accepted": st.sampled_from([None, None, False, True]),
            "feedback": st.sampled_from([None, None, None, -1.0, 1.0, 0.0]),
            "gap": st.sampled_from([None, 1, 100, 10_000]),
        }
    ),
    max_size=25,
)
IDLE = 5_000.0


def _log(rows: list[dict]) -> list[dict]:
    log, session, turn, at = [], 0, -1, NOON
    for row in rows:
        if row["new"] == 0:
            session, turn = session + 1, -1
        turn = turn + row["turn"]
        at += timedelta(seconds=row["gap"] or 0)
        known = {n: row[n] for n in ("failed", "regenerated", "repeated", "accepted", "feedback")}
        log.append(_turn(max(turn, 0), row["text"], f"s{session}", **known))
        log[-1]["timestamp"] = None if row["gap"] is None else at
    return log


def _chance(one: dict, two: dict) -> float:
    first, second = (pa.RecordBatch.from_pylist([row], TURNS) for row in (one, two))
    return float(DETECTOR.probability(features(first, second))[0])


def _by_hand(log: list[dict], last: str) -> list[tuple]:
    sessions = defaultdict(list)
    for row in log:
        if all(row["turn"] > other["turn"] for other in sessions[row["session_id"]]):
            sessions[row["session_id"]].append(row)
    made = []
    for rows in sessions.values():
        query, attempt = None, 0
        answered = [i for i, row in enumerate(rows) if not row["failed"]]
        for place, i in enumerate(answered):
            row = rows[i]
            query, attempt = (query, attempt + 1) if query else (f"s/{row['turn']}", 1)
            query = query.replace("s/", f"{row['session_id']}/")
            following = answered[place + 1] if place + 1 < len(answered) else None
            between = rows[i + 1 : len(rows) if following is None else following + 1]
            another = any(r["regenerated"] for r in between)
            same = following is not None and all(r["repeated"] for r in between)
            soon = following is not None
            if soon and row["timestamp"] and rows[following]["timestamp"]:
                soon = (rows[following]["timestamp"] - row["timestamp"]).total_seconds() <= IDLE
            feedback, chance = row["feedback"] or 0, None
            again = False
            if feedback <= 0 and another:
                outcome, again = "retry", following is not None
            elif feedback > 0 or (row["accepted"] and feedback == 0):
                outcome = "taken"
            elif same and soon:
                outcome, again = "retry", True
            elif soon:
                chance = _chance(row, rows[following])
                again = chance >= 0.5
                outcome = "retry" if again else "taken"
            else:
                outcome = {"taken": "taken", "silent": "silent", "drop": "drop"}[last]
            if feedback < 0:
                outcome, chance = "retry", None
            if outcome != "drop":
                taken = row["model"] if outcome == "taken" else None
                made.append((query, attempt, taken, outcome == "silent", chance))
            query = query if again else None
    return made


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, size=st.integers(1, 6), last=st.sampled_from(["taken", "silent", "drop"]))
def test_services_are_those_of_another_implementation(rows, size, last):
    """Whatever the batches; and counts add up, attempts follow one another, and one is taken."""
    log = _log(rows)
    batches = pa.Table.from_pylist(log, TURNS).to_batches(max_chunksize=size)
    stream = services_of_turns(batches, DETECTOR, last=last, idle=IDLE)
    found = pa.Table.from_batches(stream, SERVICES).to_pylist()
    keys = ("query_id", "attempt", "chosen", "silent", "retry_probability")
    expected = _by_hand(log, last)
    assert [tuple(row[key] for key in keys[:4]) for row in found] == [row[:4] for row in expected]
    chances = [
        (row["retry_probability"], other[4]) for row, other in zip(found, expected, strict=True)
    ]
    assert all(p == q if q is None else p == pytest.approx(q) for p, q in chances)
    report = stream.report
    assert report.turns == len(log) == sum(report[i] for i in (1, 2, 3, 4))
    assert report.services == len(found) == report.explicit + report.inferred + report.assumed
    assert report.failed + report.disordered >= sum(bool(row["failed"]) for row in log)
    queries = defaultdict(list)
    for row in found:
        queries[row["query_id"]].append(row)
    assert report.queries == len(queries)
    for attempts in queries.values():
        assert [row["attempt"] for row in attempts] == list(range(1, len(attempts) + 1))
        assert all(row["chosen"] is None for row in attempts[:-1])


def test_long_batches_are_cut(monkeypatch):
    log = [_turn(i, "wrong") for i in range(20)]
    whole = _made(*log)
    monkeypatch.setattr("cqbayes.logs.retrials.chains.MOST_ROWS", 3)
    assert _made(*log) == whole
    assert whole[1].retried == 19


def test_turns_that_fail_without_end_take_no_room(monkeypatch):
    from cqbayes.logs.retrials import chains

    sizes = []
    joined = chains._joined

    def watched(first, second):
        sizes.append(0 if first is None else first.num_rows)
        return joined(first, second)

    monkeypatch.setattr(chains, "_joined", watched)
    log = [_turn(0)] + [
        _turn(i, failed=True, repeated=i % 2 == 0, regenerated=i == 17) for i in range(1, 60)
    ]
    batches = pa.Table.from_pylist(log, TURNS).to_batches(max_chunksize=7)
    (made,) = services_of_turns(batches, DETECTOR)
    assert made["chosen"].to_pylist() == [None]
    assert max(sizes) <= 3


# What is given and what is refused


def test_the_shipped_detector_and_in_order():
    log = [_turn(1, "That is wrong, try again"), _turn(0, "Name a prime"), _turn(0, session="0")]
    table = in_order(pa.Table.from_pylist(log, TURNS))
    assert table["turn"].to_pylist() == [0, 0, 1]
    rows = pa.Table.from_batches(services_of_turns(table), SERVICES)
    (chance,) = [p for p in rows["retry_probability"].to_pylist() if p is not None]
    pair = [pa.RecordBatch.from_pylist([log[i]], TURNS) for i in (1, 0)]
    assert chance == pytest.approx(load_detector().probability(features(*pair))[0])
    assert rows["attempt"].to_pylist() == [1, 1, 2]


def test_embeddings_take_part(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from cqbayes.embeddings.encoder import Encoder

    monkeypatch.setenv("CQBAYES_CACHE", str(tmp_path))
    by_first = Encoder("first letter", lambda texts: np.array([[t[0] == "W", 1.0] for t in texts]))
    num = len(FEATURES) + 1
    mean = np.zeros(num + 1)
    mean[-1] = 5.0
    law = Logistic(
        (*FEATURES, "meaning"), np.full(num, 0.9), np.ones(num), mean, np.zeros((num + 1,) * 2), 0.5
    )
    turns = pa.Table.from_pylist([_turn(0, "Why?"), _turn(1, "What?"), _turn(2, "No")], TURNS)
    stream = services_of_turns(turns, DETECTOR._replace(embedded=law), encoder=by_first)
    chance = pa.Table.from_batches(stream)["retry_probability"].to_pylist()
    cosine = [1, np.sqrt(0.5)]
    assert chance[:2] == pytest.approx([1 / (1 + np.exp(-5 * (c - 0.9))) for c in cosine])
    with pytest.raises(InputError, match="encoder: expected a detector that was trained with"):
        services_of_turns(turns, DETECTOR, encoder=by_first)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"threshold": 1.0}, "threshold: expected a probability between 0 and 1, got 1.0"),
        ({"threshold": float("nan")}, "threshold: expected"),
        ({"last": "gone"}, "last: expected taken, silent or drop, got 'gone'"),
        ({"idle": 0.0}, "idle: expected a positive number"),
    ],
)
def test_settings_that_cannot_be(how, message):
    with pytest.raises(InputError, match=message):
        services_of_turns([], DETECTOR, **how)


def test_tables_that_are_no_turns():
    table = pa.Table.from_pylist([_turn(0, "secret")], TURNS)
    with pytest.raises(InputError, match=r"turns: expected columns .*; no model"):
        list(services_of_turns(table.drop_columns(["model"]), DETECTOR))
    other = table.set_column(1, "turn", pa.array(["first"]))
    with pytest.raises(InputError, match="turns: expected columns of the types of"):
        list(services_of_turns(other, DETECTOR))
    assert list(services_of_turns([], DETECTOR)) == []
    assert list(services_of_turns(table[:0], DETECTOR)) == []


def test_requests_at_one_place_are_told_apart():
    """As logs of requests have them: the same number in the session again."""

    def at(minutes: int | None, turn: int, text: str = "Why?", **known) -> dict:
        when = (
            None
            if minutes is None
            else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        )
        return _turn(turn, text, **{"timestamp": when, "model": "m", **known})

    def outcomes(*turns: dict) -> list[tuple]:
        table = in_order(pa.Table.from_pylist(list(turns), TURNS))
        rows = pa.Table.from_batches(
            services_of_turns(table, _by_complaint()), SERVICES
        ).to_pylist()
        return [(row["query_id"], row["attempt"], row["chosen"]) for row in rows]

    # Generated again after an answer: not taken. The turn after it is numbered on.
    again = [at(0, 0), at(1, 0), at(9, 1, "Something else")]
    assert outcomes(*again) == [("a/0", 1, None), ("a/0", 2, "m"), ("a/2", 1, "m")]
    # Sent again after a failure, or by a program: no retrial.
    assert outcomes(at(0, 0, failed=True), at(1, 0)) == [("a/1", 1, "m")]
    sent = at(1, 1, "More", failed=True), at(2, 1, "More")
    assert outcomes(at(0, 0), *sent) == [("a/0", 1, "m"), ("a/2", 1, "m")]
    other = at(1, 1, "More"), at(2, 1, "More", failed=True), at(3, 1, "More", regenerated=False)
    assert outcomes(at(0, 0), *other)[:1] == [("a/0", 1, "m")]
    # Edited: one more turn, for the detector.
    assert outcomes(at(0, 0), at(1, 0, "How?")) == [("a/0", 1, "m"), ("a/1", 1, "m")]
    # The same at the same time, or without times: a duplicate.
    assert outcomes(at(0, 0), at(0, 0)) == [("a/0", 1, "m")]
    assert outcomes(at(None, 0), at(None, 0)) == [("a/0", 1, "m")]
    # Back at an earlier place: in the order of time, with numbers that grow.
    back = [at(0, 0), at(2, 1, "Two"), at(4, 2, "Three"), at(9, 1, "Two, edited")]
    table = in_order(pa.Table.from_pylist(back[::-1], TURNS))
    assert table["text"].to_pylist() == ["Why?", "Two", "Three", "Two, edited"]
    assert table["turn"].to_pylist() == [0, 1, 2, 3]
    # Without a time, in the order of numbers.
    untimed = [at(None, 1, "Two"), at(5, 0)]
    assert in_order(pa.Table.from_pylist(untimed, TURNS))["turn"].to_pylist() == [0, 1]
    # Another session's place is another place.
    assert len(outcomes(at(0, 0), at(1, 0, session="b"))) == 2

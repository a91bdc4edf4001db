"""Turns into services: by hand, and by another implementation that goes row by row."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.errors import InputError
from cqbayes.logs.retrials import chains
from cqbayes.logs.retrials.chains import Said, TurnCounts, services_of_turns
from cqbayes.logs.retrials.detector import BUCKETS, Detector, load_detector
from cqbayes.logs.schema import SERVICES, TURNS

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
pc: Any = pyarrow.compute  # whose functions are made when it is imported
HOUR = 3_600.0


class _ByComplaint(Detector):
    """Nine of ten complaints are retrials, and one of ten of all else."""

    def score(self, first, second):
        complains = pc.match_substring_regex(second, r"\b(wrong|still|again|fix)\b")
        return np.where(np.asarray(complains, bool), np.log(9), -np.log(9))


DETECTOR = _ByComplaint(0.0, 0.0, np.zeros(BUCKETS), prevalence=0.5)


def _turn(turn: int, text: str | None = "Why?", session: str = "a", **known) -> dict:
    """The turn of a minute: turn 90 comes an hour and a half after turn 0."""
    return {
        "session_id": session,
        "turn": turn,
        "guessed": False,
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
    """Query, attempt, and outcome of each service: its LLM, ``retry`` or ``silent``."""
    return [
        (row["query_id"], row["attempt"], row["chosen"] or ("silent" if row["silent"] else "retry"))
        for row in _made(*turns, **how)[0]
    ]


# The outcome of an answer, sign by sign


def test_inferred_chains_have_probabilities():
    turns = [_turn(0), _turn(1, "wrong"), _turn(2, "still wrong"), _turn(3, "And why red?")]
    assert _seen(*turns) == [
        ("a/0", 1, "retry"),
        ("a/0", 2, "retry"),
        ("a/0", 3, "llm2"),
        ("a/3", 1, "silent"),
    ]
    rows, report = _made(*turns)
    chances = [row["retry_probability"] for row in rows]
    assert chances[:3] == pytest.approx([0.9, 0.9, 0.1])
    assert chances[3] is None
    counts = {"turns": 4, "services": 4, "inferred": 3, "last": 1, "retried": 2, "queries": 2}
    assert report == TurnCounts(**counts)
    assert [row[1] for row in _seen(*turns, threshold=chances[0])] == [1, 2, 3, 1]
    assert [row[1] for row in _seen(*turns, threshold=0.95)] == [1, 1, 1, 1]


def test_scores_after_answers_that_users_judged_are_counted():
    sessions = {
        "good": [_turn(0, feedback=1.0), _turn(1, "wrong")],
        "bad": [_turn(0, feedback=-1.0), _turn(1, "thanks"), _turn(2, "still wrong")],
        "copied": [_turn(0, accepted=True), _turn(1, "And why red?")],
        "good again": [_turn(0, feedback=1.0), _turn(1, "And where?")],
        "copied, bad": [_turn(0, accepted=True, feedback=-1.0), _turn(1, "wrong")],
        # What follows says nothing of these, or in no words, or not of this answer.
        "button": [_turn(0), _turn(1, "wrong", regenerated=True)],
        "good, button": [_turn(0, feedback=1.0), _turn(1, "wrong", regenerated=True)],
        "copied, repeat": [_turn(0, accepted=True), _turn(1, repeated=True)],
        "bad, repeat": [_turn(0, feedback=-1.0), _turn(1, repeated=True)],
        "picture": [_turn(0, feedback=-1.0), _turn(1, None)],
        "failed": [_turn(0, feedback=-1.0), _turn(1, "wrong", failed=True)],
        "late": [_turn(0, feedback=-1.0), _turn(90, "wrong")],
        "last": [_turn(0, feedback=-1.0)],
    }
    turns = [{**turn, "session_id": name} for name, rows in sessions.items() for turn in rows]
    guessed = [_turn(0, session="g", feedback=1.0), _turn(1, "wrong", session="g")]
    turns += [{**turn, "guessed": True} for turn in guessed]  # who says that it is one user's
    table = pa.Table.from_pylist(turns, TURNS)
    stream = services_of_turns(table, DETECTOR, idle=HOUR)
    list(stream)
    assert stream.known.after.tolist() == [[2, 0, 0, 1], [1, 0, 0, 1]]
    spoke = stream.known.shown_class
    assert len(spoke) == stream.report.services
    assert np.bincount(spoke + 1)[1:].tolist() == stream.known.after.sum(axis=0).tolist()
    assert (stream.report.said_bad, stream.report.asked_again) == (7, 2)
    alone = services_of_turns(table, DETECTOR, idle=HOUR, next_turn="taken")
    list(alone)
    assert alone.known.after.sum() == 0


def test_labels_are_of_the_services_of_their_pairs():
    turns = [_turn(0), _turn(1, "wrong"), _turn(2, "fix it"), _turn(3, "And?"), _turn(4, "Bye")]
    turns[2]["model"] = None  # no service
    table = pa.Table.from_pylist(turns, TURNS)
    rule = chains.Rule(DETECTOR)
    (pairs,) = chains.inferred_pairs(table.to_batches(), rule)
    asked = list(zip(pairs.first.to_pylist(), pairs.second.to_pylist(), strict=True))
    assert asked == [("Why?", "wrong"), ("wrong", "fix it"), ("And?", "Bye")]
    assert pairs.probability == pytest.approx([0.9, 0.9, 0.1])
    said = {1: Said(True, 2), 2: Said(False, 0)}
    labels = {pairs.pair[i]: one for i, one in said.items()} | {"of another log": Said(True, 0)}
    stream = services_of_turns(table, DETECTOR, labels=labels)
    rows = [row for batch in stream for row in batch.to_pylist()]
    assert [row["text"] for row in rows] == ["Why?", "wrong", "And?", "Bye"]
    assert stream.known.labelled.tolist() == [-1, 1, 0, -1]
    assert stream.known.drawn_class.tolist() == [-1, 2, 0, -1]
    moved = pa.Table.from_pylist([{**turn, "session_id": "b"} for turn in turns], TURNS)
    (others,) = chains.inferred_pairs(moved.to_batches(), rule)
    assert not set(others.pair) & set(pairs.pair), "of another session"


def test_a_service_is_one_turn():
    turn = _turn(0, user_id="u", latency=1.5, cost=0.1, language="English", response_chars=3)
    (row,), _ = _made(turn, last="taken")
    same = ("session_id", "user_id", "timestamp", "text", "latency", "cost")
    assert row == {
        **dict.fromkeys(SERVICES.names),
        **{name: turn[name] for name in same},
        "query_id": "a/0",
        "attempt": 1,
        "offered": ["llm0"],
        "chosen": "llm0",
        "silent": False,
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
    assert (report.explicit, report.inferred) == (shown, not shown)


def test_an_answer_of_unknown_outcome():
    turns = [_turn(0), _turn(1, "wrong"), _turn(0, session="b", feedback=-1.0)]
    silent = [("a/0", 1, "retry"), ("a/0", 2, "silent"), ("b/0", 1, "retry")]
    assert _seen(*turns) == _seen(*turns, last="silent") == silent
    assert _seen(*turns, last="taken")[1] == ("a/0", 2, "llm1")
    assert _seen(*turns, last="drop") == [("a/0", 1, "retry"), ("b/0", 1, "retry")]
    report = _made(*turns, last="drop")[1]
    assert (report.turns, report.services, report.dropped, report.last) == (3, 2, 1, 0)
    assert report.explicit == report.inferred == 1


@pytest.mark.parametrize("sign", [{}, {"regenerated": True}, {"repeated": True}])
@pytest.mark.parametrize("failed", [False, True])
def test_a_turn_after_a_pause_is_no_reaction(sign, failed):
    """Asked again 59 and 90 minutes later; and a new start after that in any case."""
    early, late = (_turn(t, "wrong", **sign, failed=failed) for t in (59, 90))
    again, shown = not failed or bool(sign), bool(sign)
    rows, report = _made(_turn(0), early, idle=HOUR)
    assert rows[0]["silent"] == (not again)
    assert (report.explicit, report.retried) == (shown, again)
    rows, report = _made(_turn(0), late, idle=HOUR)
    assert [(row["attempt"], row["silent"]) for row in rows] == [(1, True)] * (2 - failed)
    assert (report.last, report.retried) == (2 - failed, 0)
    untimed = {**late, "timestamp": None}
    assert _made(_turn(0), untimed, idle=HOUR)[1].retried == again


def test_a_pause_counts_from_the_answer():
    """Not from what failed between: the user of an hour ago may be gone."""
    turns = [_turn(0), _turn(40, failed=True, regenerated=True), _turn(80)]
    assert _seen(*turns, idle=HOUR) == [("a/0", 1, "retry"), ("a/80", 1, "silent")]
    turns = [_turn(0), _turn(90, failed=True), _turn(91, "wrong", timestamp=None)]
    assert _seen(*turns, idle=HOUR) == [("a/0", 1, "retry"), ("a/0", 2, "silent")]


def test_a_next_turn_can_say_that_the_user_went_on():
    turns = [_turn(0), _turn(1, "wrong"), _turn(2, None), _turn(3), _turn(4, repeated=True)]
    rows, report = _made(*turns, next_turn="taken")
    assert [row["chosen"] for row in rows] == ["llm0", "llm1", "llm2", None, None]
    assert [row["attempt"] for row in rows] == [1, 1, 1, 1, 2]
    assert {row["retry_probability"] for row in rows} == {None}
    assert (report.went_on, report.explicit, report.last, report.inferred) == (3, 1, 1, 0)
    bad = _made(_turn(0, feedback=-1.0), _turn(1), next_turn="taken")
    assert bad[0][0]["chosen"] is None
    assert (bad[1].explicit, bad[1].went_on) == (1, 0)


@pytest.mark.parametrize("nothing", [None, "", " \n"])
@pytest.mark.parametrize("which", [0, 1])
def test_without_words_nothing_is_compared(nothing, which):
    """Two pictures, say: the detector would judge by the time between them."""
    turns = [_turn(0, "wrong"), _turn(1, "wrong")]
    turns[which]["text"] = nothing
    rows, report = _made(*turns)
    assert [(row["query_id"], row["attempt"], row["silent"]) for row in rows] == [("a/1", 1, True)]
    assert (report.unseen, report.last, report.inferred) == (1, 1, 0)
    assert _made(*turns, last="drop")[1].dropped == 1
    turns[1]["repeated"] = True
    assert _seen(*turns) == [("a/0", 1, "retry"), ("a/0", 2, "silent")]


# Errors of the way there, and answers that nobody can be named for


def test_a_request_sent_again_after_an_error_is_no_retrial():
    turns = [_turn(0, failed=True), _turn(1, repeated=True), _turn(2, "And?")]
    rows, report = _made(*turns)
    assert [(row["query_id"], row["attempt"], row["chosen"]) for row in rows] == [
        ("a/1", 1, "llm1"),
        ("a/2", 1, None),
    ]
    assert (report.failed, report.services, report.retried) == (1, 2, 0)


@pytest.mark.parametrize(
    ("failed", "after", "attempt"),
    [
        ({"text": "And?"}, {"text": "And?", "repeated": True}, 1),  # sent again by a program
        ({"repeated": True}, {"repeated": True}, 2),  # by the user first, and then by a program
        ({"text": "And?", "regenerated": True}, {"text": "And?"}, 2),
        ({"text": "And?"}, {"text": "wrong"}, 2),
    ],
)
def test_what_failed_between_two_answers(failed, after, attempt):
    rows, report = _made(_turn(0), _turn(1, **failed, failed=True), _turn(2, **after))
    assert [row["attempt"] for row in rows] == [1, attempt]
    assert (rows[0]["chosen"] is None) == (attempt == 2)
    assert report.failed == 1


@pytest.mark.parametrize("sign", [{"regenerated": True}, {"repeated": True}])
def test_who_asks_again_and_gets_nothing(sign: dict):
    """The answer before was not taken; and the next session begins anew."""
    unanswered = [_turn(0), _turn(1, failed=True, **sign)]
    others = [_turn(0, session="b"), _turn(1, "And?", session="b"), _turn(0, session="c")]
    expected = [
        ("a/0", 1, "retry"),
        ("b/0", 1, "llm0"),
        ("b/1", 1, "silent"),
        ("c/0", 1, "silent"),
    ]
    assert _seen(*unanswered, *others) == expected
    assert _made(*unanswered, *others)[1].explicit == 1
    # Nor does a session that begins with a sign react to the one before.
    others = [_turn(0, session=session, **sign) for session in "bc"]
    assert [row[1:] for row in _seen(_turn(0), *others)] == [(1, "silent")] * 3


def test_an_answer_of_an_unknown_llm_is_an_attempt_and_no_service():
    turns = [_turn(0), _turn(1, "wrong", model=None), _turn(2, "wrong"), _turn(3, "And?")]
    rows, report = _made(*turns)
    # It is not known whose answer "wrong" of turn 2 is about, so nothing is said of llm0 by it.
    assert [(row["query_id"], row["attempt"], row["chosen"]) for row in rows] == [
        ("a/0", 1, None),
        ("a/0", 3, "llm2"),
        ("a/3", 1, None),
    ]
    assert (report.unattributed, report.services, report.retried, report.queries) == (1, 3, 1, 2)
    turns[1]["text"] = "And?"
    assert _seen(*turns)[:2] == [("a/0", 1, "llm0"), ("a/1", 2, "llm2")]
    # What failed has no model either, and is no attempt.
    failed = _made(*turns[:1], {**turns[1], "failed": True})[1]
    assert (failed.failed, failed.unattributed) == (1, 0)


def test_turns_out_of_order_are_left_out():
    turns = [_turn(0), _turn(5), _turn(1, "wrong"), _turn(5, "wrong"), _turn(6, "wrong")]
    turns += [_turn(0, session="b")]
    rows, report = _made(*turns)
    assert [row["query_id"] for row in rows] == ["a/0", "a/5", "a/5", "b/0"]
    assert (report.turns, report.services, report.disordered) == (6, 4, 2)


def test_what_hangs_on_guessed_sessions_is_counted():
    turns = [_turn(t, "wrong", s, guessed=s == "b") for s in "ab" for t in range(3)]
    turns += [_turn(0, session="c", guessed=True, feedback=-1.0)]
    report = _made(*turns)[1]
    assert (report.retried, report.guessed, report.guessed_retrials) == (5, 4, 2)
    assert _made(*turns, last="drop")[1].guessed == 3


# All at once: another implementation, row by row

ROW = st.fixed_dictionaries(
    {
        "new": st.sampled_from([False, False, False, True]),  # whether a session begins
        "turn": st.sampled_from([1, 1, 1, 2, 0]),  # above the one before: 0 is out of order
        "text": st.sampled_from(["Why?", "wrong", "still not", "And?", "", " \n", None]),
        "model": st.sampled_from(["x", "y", None]),
        "failed": st.sampled_from([None, False, True]),
        "regenerated": st.sampled_from([None, False, False, True]),
        "repeated": st.sampled_from([False, False, True]),
        "accepted": st.sampled_from([None, None, False, True]),
        "feedback": st.sampled_from([None, None, None, -1.0, 1.0, 0.0]),
        "gap": st.sampled_from([None, 1, 1_800, 3_600, 3_601]),
    }
)
# Long logs too: most that is drawn is short, and has no three sessions.
ROWS = st.lists(ROW, max_size=5) | st.lists(ROW, min_size=15, max_size=25)


def _log(rows: list[dict]) -> list[dict]:
    log, session, turn, at = [], 0, -1, NOON
    for row in rows:
        if row["new"]:
            session, turn = session + 1, -1
        turn += row["turn"]
        at += timedelta(seconds=row["gap"] or 0)
        known = {name: row[name] for name in row if name not in ("turn", "new", "text", "gap")}
        log.append(_turn(turn, row["text"], f"s{session}", guessed=session % 2 == 1, **known))
        log[-1]["timestamp"] = None if row["gap"] is None else at
    return log


def _sessions(log: list[dict], most: int) -> list[list[dict]]:
    found: list[list[dict]] = []
    for row in log:
        goes_on = bool(found) and found[-1][0]["session_id"] == row["session_id"]
        if goes_on and len(found[-1]) < most:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _by_hand(log: list[dict], most: int, last: str, next_turn: str) -> tuple[list[tuple], dict]:
    count = dict.fromkeys(TurnCounts._fields, 0)
    made: list[tuple] = []
    sessions = _sessions(log, most)
    count["cut"] = len(sessions) - len({row["session_id"] for row in log})
    for session in sessions:
        answers: list[tuple[dict, list[dict]]] = []  # each with its reactions
        highest = None
        for row in session:
            count["turns"] += 1
            if highest is not None and row["turn"] <= highest:
                count["disordered"] += 1
                continue
            highest = row["turn"]
            if answers:
                times = answers[-1][0]["timestamp"], row["timestamp"]
                if None in times or (times[1] - times[0]).total_seconds() <= HOUR:
                    answers[-1][1].append(row)
            if row["failed"]:
                count["failed"] += 1
            else:
                answers.append((row, []))
        query, attempt = "", 0
        for row, reactions in answers:
            attempt += 1
            if attempt == 1:
                query = f"{row['session_id']}/{row['turn']}"
            kind, taken, again, chance = _outcome(row, reactions, next_turn)
            unknown = kind == "last"
            if row["model"] is None:
                count["unattributed"] += 1
            elif kind == "unseen":
                count["unseen"] += 1
            elif unknown and last == "drop":
                count["dropped"] += 1
            else:
                count["services"] += 1
                count[kind] += 1
                count["retried"] += not (unknown or taken)
                count["queries"] += attempt == 1
                pressed = any(other["regenerated"] for other in reactions)
                same = bool(reactions) and all(other["repeated"] for other in reactions)
                accepted = row["accepted"] and not row["feedback"]
                liked = (row["feedback"] or 0) > 0
                count["asked_again"] += not liked and (pressed or (same and not accepted))
                count["said_bad"] += (row["feedback"] or 0) < 0
                count["guessed"] += row["guessed"]
                count["guessed_retrials"] += row["guessed"] and again
                chosen = row["model"] if taken or (unknown and last == "taken") else None
                made.append((query, attempt, chosen, unknown and last == "silent", chance))
            reacts = any(not other["failed"] for other in reactions)
            attempt = attempt if again and reacts else 0
    return made, count


def _outcome(
    row: dict, reactions: list[dict], next_turn: str
) -> tuple[str, bool, bool, float | None]:
    """Its kind, whether the answer was taken, whether the user asked again, how probably."""
    following = [other for other in reactions if not other["failed"]]
    feedback = row["feedback"] or 0
    kind, taken, again, chance = "explicit", False, False, None
    if feedback > 0:
        taken = True
    elif any(other["regenerated"] for other in reactions):
        again = True
    elif row["accepted"] and not feedback:
        taken = True
    elif reactions and all(other["repeated"] for other in reactions):
        again = True
    elif following and next_turn == "taken":
        kind, taken = "went_on", True
    elif following and all((one["text"] or "").strip() for one in (row, following[0])):
        chance = 0.9 if re.search("wrong|still", following[0]["text"]) else 0.1
        kind, taken, again = "inferred", chance < 0.5, chance > 0.5
    else:
        kind = "unseen" if following else "last"
    return ("explicit", False, again, None) if feedback < 0 else (kind, taken, again, chance)


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    cuts=st.lists(st.integers(0, 25), max_size=5),
    most=st.sampled_from([2, 5, 100]),
    last=st.sampled_from(["taken", "silent", "drop"]),
    next_turn=st.sampled_from(["infer", "infer", "taken"]),
)
def test_services_are_those_of_another_implementation(rows, cuts, most, last, next_turn):
    """Whatever the batches; and every turn is counted once."""
    log = _log(rows)
    whole = pa.RecordBatch.from_pylist(log, TURNS)
    places = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    batches = [whole[a:b] for a, b in pairwise(places)]
    with mock.patch.object(chains, "MOST_ROWS", most):
        stream = services_of_turns(batches, DETECTOR, last=last, next_turn=next_turn, idle=HOUR)
        found = pa.Table.from_batches(stream, SERVICES).to_pylist()
    expected, count = _by_hand(log, most, last, next_turn)
    report = stream.report
    assert report._asdict() == count
    keys = ("query_id", "attempt", "chosen", "silent")
    assert [tuple(row[key] for key in keys) for row in found] == [row[:4] for row in expected]
    for row, (*_, chance) in zip(found, expected, strict=True):
        assert row["retry_probability"] == (None if chance is None else pytest.approx(chance))
    assert report.turns == len(log) == sum(report[1:7])
    kinds = report.explicit + report.inferred + report.went_on + report.last
    assert report.services == len(found) == kinds


def test_memory_is_bounded_by_a_batch_and_a_session(monkeypatch):
    monkeypatch.setattr(chains, "MOST_ROWS", 5)
    log = [_turn(i, "wrong") for i in range(43)] + [_turn(i, "wrong", "b") for i in range(4)]
    read = 0

    def batches():
        nonlocal read
        for row in log:
            read += 1
            yield pa.RecordBatch.from_pylist([row], TURNS)

    stream = services_of_turns(batches(), DETECTOR)
    sizes, ahead = [], []
    for batch in stream:
        sizes.append(batch.num_rows)
        ahead.append(read - sum(sizes))
    assert sizes == [5] * 8 + [3, 4]
    assert ahead == [1] * 9 + [0]
    # Eight cuts: who asks again after one is a new query.
    assert (stream.report.cut, stream.report.queries, stream.report.last) == (8, 10, 10)


# What is given and what is refused


def test_the_shipped_detector():
    log = [_turn(0, session="0"), _turn(0, "Name a prime"), _turn(1, "That is wrong, try again")]
    rows = pa.Table.from_batches(services_of_turns(pa.Table.from_pylist(log, TURNS)), SERVICES)
    (chance,) = [p for p in rows["retry_probability"].to_pylist() if p is not None]
    detector = load_detector()
    score = detector.score(*(pa.array([turn["text"]]) for turn in log[1:]))
    assert chance == pytest.approx(detector.probability(score)[0])
    assert rows["attempt"].to_pylist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"threshold": 1.0}, "threshold: expected a probability between 0 and 1, got 1.0"),
        ({"threshold": float("nan")}, "threshold: expected"),
        ({"last": "gone"}, "last: expected silent, taken or drop, got 'gone'"),
        ({"next_turn": "ask"}, "next_turn: expected infer or taken, got 'ask'"),
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
    for wrong in (["first"], [None]):
        other = table.set_column(1, "turn", pa.array(wrong))
        with pytest.raises(InputError, match="turns: expected columns of the types of"):
            list(services_of_turns(other, DETECTOR))
    assert list(services_of_turns([], DETECTOR)) == []
    assert list(services_of_turns(table[:0], DETECTOR)) == []

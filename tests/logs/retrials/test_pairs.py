"""Pairs of requests: closeness by rapidfuzz text by text, and pairs by a loop over rows."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from cqbayes.errors import InputError
from cqbayes.logs.retrials.pairs import (
    CLOSE,
    MOST_CHARS,
    closeness,
    consecutive,
    flags,
    opening,
)


def _by_hand(one: str | None, two: str | None) -> float:
    if one is None or two is None:
        return 0.0
    one, two = (re.sub(r"\s+", " ", text[:MOST_CHARS].lower()).strip(" ") for text in (one, two))
    best = max(fuzz.ratio(one, two), fuzz.token_sort_ratio(one, two)) / 100
    return min(max((best - CLOSE) / (1 - CLOSE), 0.0), 1.0)


PAIRS = [
    ("sort a list", "sort a list"),
    ("Sort  a LIST", "\tsort a\nlist "),
    ("sort a list", "a list sort"),
    ("sort a list", "sort the list"),
    ("sort a list", "sort a list of words in place"),
    ("sort a list", "wrong"),
    ("abcd", "abxd"),
    ("sort", None),
    (None, "sort"),
    (None, None),
    ("", ""),
    ("x", ""),
    ("Größe ändern", "größe ÄNDERN"),
    ("日本語の文", "日本語の本"),
    ("x" * MOST_CHARS + "a" * 900, "x" * MOST_CHARS + "b" * 900),
]


def _close(pairs) -> np.ndarray:
    return closeness(*(pa.array([pair[k] for pair in pairs], pa.string()) for k in (0, 1)))


def test_closeness_is_that_of_rapidfuzz():
    found = _close(PAIRS)
    assert found == pytest.approx([_by_hand(*pair) for pair in PAIRS], abs=1e-6)
    assert found[:3].tolist() == [1, 1, 1]
    # The longest common subsequence of abcd and abxd is abd: 2 * 3 of 8 letters.
    assert found[6] == pytest.approx(0.05 / 0.3, abs=1e-6)
    assert found[7:10].tolist() == [0, 0, 0]
    assert found[-1] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.none() | st.text("aBc d\n.é", max_size=20)] * 2), max_size=5))
def test_closeness_of_any_texts(pairs):
    found = _close(pairs)
    assert found == pytest.approx([_by_hand(*pair) for pair in pairs], abs=1e-6)
    assert ((found >= 0) & (found <= 1)).all()
    assert found == pytest.approx(_close([(b, a) for a, b in pairs]), abs=1e-6)


def test_closeness_of_slices_is_that_of_their_texts():
    first, second = (pa.array([pair[k] for pair in PAIRS]) for k in (0, 1))
    assert closeness(first[4:9], second[4:9]).tolist() == closeness(first, second)[4:9].tolist()
    assert closeness(first[:0], second[:0]).shape == (0,)


def test_a_missing_extra(monkeypatch):
    monkeypatch.setattr("cqbayes.logs.retrials.pairs.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"expected the extra logs; pip install 'cqbayes\[logs\]'"):
        _close(PAIRS)


def _table(rows) -> pa.Table:
    session, failed = ([row[k] for row in rows] for k in (0, 1))
    return pa.table(
        {
            "session_id": pa.array(session, pa.string()),
            "text": pa.array(["x"] * len(rows), pa.string()),
            "failed": pa.array(failed, pa.bool_()),
        }
    )


def _by_loop(rows) -> tuple[list, list]:
    """Consecutive pairs, and rows that open a session."""
    same, opens, last = [], [], None
    for place, (session, failed) in enumerate(rows):
        if failed:
            continue
        if last is not None and rows[last][0] == session:
            same.append((last, place))
        else:
            opens.append(place)
        last = place
    return same, opens


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.lists(st.sampled_from([None, False, True]), max_size=5))
    )
)
def test_pairs_are_those_of_a_loop(sessions):
    rows = [(f"{k}/{name}", failed) for k, (name, turns) in enumerate(sessions) for failed in turns]
    table = _table(rows)
    found, (pairs, opens) = consecutive(table), _by_loop(rows)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == pairs
    assert opening(table).tolist() == opens


def test_pairs_pass_over_what_failed():
    rows = [("a", None), ("a", True), ("a", False), ("b", True), ("b", False), ("c", True)]
    found = consecutive(_table(rows))
    assert (found.first.tolist(), found.second.tolist()) == ([0], [2])
    assert opening(_table(rows)).tolist() == [0, 4]


def test_pairs_of_chunks_and_of_a_missing_column():
    rows = [("a", None), ("a", None), ("b", None), ("b", None)]
    chunked = pa.concat_tables([_table(rows[:1]), _table(rows[1:3]), _table(rows[3:])])
    assert consecutive(chunked).second.tolist() == [1, 3]
    with pytest.raises(InputError, match=r"turns: expected columns .*; no text"):
        consecutive(chunked.drop_columns(["text"]))


def test_null_is_no_flag():
    assert flags(pa.array([True, None, False])).tolist() == [True, False, False]
    assert flags(pa.nulls(2)).tolist() == [False, False]

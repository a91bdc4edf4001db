"""Requests that follow look the same after all LLMs, or users also ask again in other words."""

import random

import numpy as np
import pyarrow as pa
import pytest

from cqbayes.logs import signs
from cqbayes.logs.schema import TURNS
from cqbayes.logs.signs import compare_followers, explicit_retrials

SUBJECTS = ("egg", "river", "table", "list", "poem", "bridge", "tax", "violin")
VERBS = ("boil", "cross", "book", "sort", "write", "build", "pay", "play")
COMPLAINTS = ("no, that is wrong", "this does not work, try again", "I meant something else")


def turns(sessions: int, complaints: dict[str, float], seed: int = 0, by_subject: bool = False):
    """Sessions of three requests; after an LLM a share of those that follow are complaints."""
    rng = random.Random(seed)
    rows = []
    for session in range(sessions):
        before = None
        for turn in range(3):
            subject = rng.choice(SUBJECTS)
            text = f"how do I {rng.choice(VERBS)} the {subject}"
            if before is not None and rng.random() < complaints[before]:
                text = rng.choice(COMPLAINTS)
            before = rng.choice(sorted(complaints))
            if by_subject:
                before = sorted(complaints)[SUBJECTS.index(subject) % len(complaints)]
            rows.append(
                {
                    "session_id": str(session), "turn": turn, "guessed": False, "model": before,
                    "text": text, "repeated": False, "regenerated": None,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, TURNS)


@pytest.mark.parametrize(("more", "alike"), [(0.1, True), (0.35, False), (0.6, False)])
def test_more_retrials_after_one_llm_than_after_another_are_seen(more, alike):
    found = compare_followers(turns(400, {"a": 0.1, "b": more}))
    assert found.are_alike == alike
    assert found.number == 800
    # The surplus of complaints is all that can be told: what else is said is at random.
    assert found.area == pytest.approx(0.5 + (more - 0.1) / 2, abs=4 * found.error)


def test_alike_requests_are_seldom_told_apart_by_chance():
    found = [compare_followers(turns(60, {"a": 0.2, "b": 0.2}, seed)) for seed in range(20)]
    assert sum(one.are_alike for one in found) >= 19
    assert np.std([(one.area - 0.5) / one.error for one in found]) < 2


def test_routing_by_subject_is_no_sign():
    table = turns(400, {"a": 0.0, "b": 0.0}, by_subject=True)
    found = compare_followers(table)
    assert found.before > 0.9, "the request before tells the LLM"
    assert found.are_alike


def test_explicit_retrials_are_no_followers():
    table = turns(40, {"a": 0.0, "b": 0.0})
    again = pa.array([i % 3 == 2 for i in range(table.num_rows)])
    place = table.schema.get_field_index("repeated")
    table = table.set_column(place, TURNS.field("repeated"), again)
    assert explicit_retrials(table) == 40
    assert compare_followers(table).number == 40


def test_with_few_texts_or_one_llm_nothing_can_be_seen():
    assert np.isnan(compare_followers(turns(signs.LEAST_FOLLOWERS // 3, {"a": 0, "b": 1})).area)
    assert np.isnan(compare_followers(turns(100, {"a": 0.5})).area)
    table = turns(100, {"a": 0, "b": 1})
    place = table.schema.get_field_index("text")
    without = pa.nulls(table.num_rows, pa.string())
    assert np.isnan(compare_followers(table.set_column(place, TURNS.field("text"), without)).area)

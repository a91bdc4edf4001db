"""Logs of simulated users, written as gateways write them, are right after all, or said not to be.

The simulator and its writers are those of ``analyses/log_recovery.py``; its laws come first.
"""

import json
import sys
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pytest
from conftest import ROOT

from cqbayes.logs.formats.importer import load_importer
from cqbayes.logs.turns import read_turns

sys.path.append(str(ROOT / "analyses"))
from simulated_users.formats import write_log
from simulated_users.judgement import judge
from simulated_users.users import CAME_BACK, LEAVE, NEW, OTHER, REGENERATE, SAME, simulate_users
from simulated_users.wordings import invented
from simulated_users.worlds import (
    CONVERSATIONS,
    GATEWAYS,
    HIDING,
    HOLDS,
    SHAPES,
    Faults,
    World,
    world_of,
)

WORDS = invented(0)
BOTH = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def within(count: int, total: int, probability: float) -> bool:
    """Whether a count is within four standard errors of what it should be."""
    sd = np.sqrt(total * probability * (1 - probability))
    return abs(count - total * probability) < 4 * sd


# The law of the users, in closed form.


@pytest.fixture(scope="module")
def plain():
    world = World("litellm", "payload", sessions=3_000, acceptance=(0.8, 0.5), leaves=0.3)
    return world, simulate_users(world, 0, WORDS)


def test_answers_are_taken_as_often_as_the_world_says(plain):
    world, simulated = plain
    for llm, p in enumerate(world.acceptance):
        own = [one.taken for one in simulated.asked if one.llm == llm]
        assert within(sum(own), len(own), p)
    np.testing.assert_allclose(simulated.truth, world.acceptance)


def test_what_follows_an_answer_is_the_documented_law(plain):
    """P(nothing | not taken) = leaves, P(nothing | taken) = 1 - goes_on."""
    world, simulated = plain
    ends = Counter((session[-1].taken, session[-1].llm) for session in simulated.sessions)
    for llm, p in enumerate(world.acceptance):
        num = sum(one.llm == llm for one in simulated.asked)
        assert within(ends[True, llm], num, p * (1 - world.goes_on))
        # The most patient leave after a hundred answers; nobody here gets there.
        assert within(ends[False, llm], num, (1 - p) * world.leaves)


def test_sessions_that_nobody_leaves_have_geometrically_many_queries():
    world = World("litellm", "payload", sessions=3_000, queries=2.5)
    simulated = simulate_users(world, 1, WORDS)
    counts = Counter(len({one.query for one in session}) for session in simulated.sessions)
    for num in (1, 2, 3, 4):
        assert within(counts[num], 3_000, 0.4 * 0.6 ** (num - 1))


def test_the_truth_is_of_queries_and_not_of_answers():
    """Hard queries are asked again: over answers, acceptance is lower."""
    world = World("litellm", "payload", acceptance=(0.5, 0.5), difficulty_sd=2.0)
    simulated = simulate_users(world, 2, WORDS)
    first = [one.taken for one in simulated.asked if one.attempt == 1]
    assert within(sum(first), len(first), float(simulated.truth.mean()))
    assert np.mean([one.taken for one in simulated.asked]) < np.mean(first) - 0.1


def test_sessions_of_a_user_do_not_overlap_and_who_comes_back_asks_the_same():
    world = World("litellm", "payload", sessions=500, leaves=0.4, returns=0.5)
    asked = simulate_users(world, 3, WORDS).asked
    for one, other in pairwise(asked):
        if one.user == other.user:
            assert one.end < other.start
            assert (one.query == other.query) == (other.how != NEW)
            assert other.attempt == (1 if other.how == NEW else one.attempt + 1)
            assert (one.session == other.session) == (one.then not in ("ends", LEAVE))
            assert other.how != CAME_BACK or one.then == LEAVE
    assert sum(one.how == CAME_BACK for one in asked) > 50


def test_words_repeat_only_where_users_repeat_them():
    again = (0.3, 0.3, 0.4)
    world = World("litellm", "payload", again=again, sessions=500, leaves=0.2)
    for session in simulate_users(world, 4, WORDS).sessions:
        for one, other in pairwise(session):
            assert (one.text == other.text) == (other.how in (REGENERATE, SAME))
            assert one.then == (other.how if other.how != NEW else "goes on")
    kinds = Counter(one.how for one in simulate_users(world, 4, WORDS).asked if one.attempt > 1)
    assert within(kinds[OTHER], kinds.total(), 0.4)


# What is written.


@pytest.mark.parametrize(("name", "shape"), BOTH)
def test_every_shape_is_written_the_same_for_the_same_seed(name, shape, tmp_path):
    faults = Faults(**dict.fromkeys(HOLDS[name], 0.3))
    world = World(name, shape, sessions=20, faults=faults, leaves=0.2, shuffled=True)
    simulated = simulate_users(world, 5, WORDS)
    one, other = (write_log(tmp_path / part, world, simulated, 6) for part in "ab")
    assert one.suffix == (".parquet" if shape == "parquet" else ".jsonl")
    assert one.read_bytes() == other.read_bytes()


def records(world, simulated, folder) -> list:
    path = write_log(folder / "log", world, simulated, 6)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_request_is_a_record_and_regenerated_in_its_own_place(tmp_path):
    """Regenerating leaves no message behind; the same words again are another message."""
    world = World("litellm", "payload", again=(0.5, 0.5, 0.0), sessions=50)
    simulated = simulate_users(world, 6, WORDS)
    rows = {row["startTime"]: row for row in records(world, simulated, tmp_path)}
    ordered = [rows[at] for at in sorted(rows)]
    asked = sorted(simulated.asked, key=lambda one: one.start)
    assert [row["model"] for row in ordered] == [world.llms[one.llm] for one in asked]
    said = [sum(m["role"] == "user" for m in row["messages"]) for row in ordered]
    turns = {one.start: number for one, number in zip(asked, said, strict=True)}
    for session in simulated.sessions:
        for one, other in pairwise(session):
            assert turns[other.start] - turns[one.start] == (0 if other.how == REGENERATE else 1)


def test_worlds_take_formats_shapes_and_behaviours_in_turn():
    worlds = [world_of(number, 0) for number in range(200)]
    formats = Counter(world.format for world in worlds)
    assert min(formats.values()) >= 25
    assert {(w.format, w.shape) for w in worlds} == {
        (name, shape) for name, shapes in SHAPES.items() for shape in shapes
    }
    clean = [world for world in worlds if not world.troubled]
    assert 50 <= len(clean) <= 110
    for world in worlds:
        assert set(world.troubled) <= set(HOLDS[world.format])
        assert not (world.format in CONVERSATIONS and world.again[0])


# What is read.


def as_read(turns) -> Counter:
    """Sessions: of each answer in turn, its LLM, and whether it was asked for again for sure."""
    sessions: dict[str, list] = {}
    again = False
    for row in turns.sort_by([("session_id", "ascending"), ("turn", "ascending")]).to_pylist():
        known = sessions.setdefault(row["session_id"], [])
        # Who asked again and got an error is answered later.
        again = bool(row["regenerated"]) or row["repeated"] or (again and bool(known))
        if not row["failed"]:
            known.append((row["model"], again))
            again = False
    return Counter(map(tuple, sessions.values()))


def as_asked(world, simulated) -> Counter:
    return Counter(
        tuple((world.llms[one.llm], one.how in (REGENERATE, SAME)) for one in session)
        for session in simulated.sessions
    )


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize(("name", "shape"), BOTH)
def test_with_all_other_faults_what_is_read_is_what_users_did(name, shape, flag, tmp_path):
    """Each answer once, in its session and its order, asked for again where its user did."""
    again = (0.4, 0.3, 0.3) if name in GATEWAYS else (0.0, 0.5, 0.5)
    faults = Faults(**{one: 0.3 for one in HOLDS[name] if one not in HIDING})
    world = World(
        name,
        shape,
        again=again,
        sessions=60,
        acceptance=(0.6, 0.5),
        leaves=0.2,
        returns=0.3,
        sticky=flag,
        stateless=flag and name in GATEWAYS,
        rooted=flag,
        quoted=flag,
        marked=flag,
        shuffled=True,
        faults=faults,
    )
    simulated = simulate_users(world, 7, WORDS)
    path = write_log(tmp_path / "log", world, simulated, 7)
    found = read_turns(load_importer(name), path)
    assert not found.report.set_aside
    assert as_read(found.turns) == as_asked(world, simulated)


@pytest.mark.parametrize(("name", "shape"), BOTH)
def test_whatever_is_hidden_no_retrial_is_made_up(name, shape, tmp_path):
    """Without some sessions, users and times, and with races: fewer retrials, never more."""
    again = (0.4, 0.3, 0.3) if name in GATEWAYS else (0.0, 0.5, 0.5)
    faults = Faults(**dict.fromkeys(HOLDS[name], 0.3))
    world = World(
        name, shape, again=again, sessions=60, acceptance=(0.6, 0.5), shuffled=True, faults=faults
    )
    simulated = simulate_users(world, 8, WORDS)
    path = write_log(tmp_path / "log", world, simulated, 8)
    turns = read_turns(load_importer(name), path).turns
    true = sum(one.how in (REGENERATE, SAME) for one in simulated.asked)
    assert sum(again for session in as_read(turns).elements() for _, again in session) <= true
    answered = turns.filter(pc.invert(pc.fill_null(turns["failed"], False)))
    assert answered.num_rows <= len(simulated.asked)


# What is fitted.

REGENERATED, SAID_AGAIN, REPHRASED = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
MIXED = (0.5, 0.2, 0.3)


class Small(NamedTuple):
    """A small world, and whether its fit must be ok, must not be, or may be either."""

    format: str
    shape: str
    settings: dict[str, Any]
    ok: bool | None = None


SMALL = {
    "regenerate": Small("litellm", "payload", {"again": REGENERATED, "leaves": 0.2}, ok=True),
    "spend logs, twice": Small(
        "litellm",
        "spend log",
        {
            "again": SAID_AGAIN,
            "quoted": True,
            "faults": Faults(doubles=0.2, logged_twice=0.3, checks=0.1),
        },
        ok=True,
    ),
    "sessions not stated": Small(
        "litellm", "payload", {"again": REGENERATED, "faults": Faults(no_session=1.0)}, ok=False
    ),
    "nested, titles, thumbs": Small(
        "langfuse",
        "trace",
        {"again": MIXED, "thumbs": (0.2, 0.2), "faults": Faults(helpers=0.5, nested=0.5)},
    ),
    "observations": Small(
        "langfuse",
        "observation",
        {
            "again": REGENERATED,
            "thumbs": (0.1, 0.3),
            "leaves": 0.4,
            "marked": False,
            "faults": Faults(helpers=0.5, embeddings=0.3, doubles=0.2),
        },
        ok=True,
    ),
    "download, other words": Small("langfuse", "download", {"again": REPHRASED}, ok=False),
    "session on the root": Small(
        "opentelemetry",
        "gen_ai",
        {"again": REGENERATED, "rooted": True, "faults": Faults(steps=0.3, resent=0.1)},
        ok=True,
    ),
    "raced, outages": Small(
        "opentelemetry",
        "openinference",
        {"again": SAID_AGAIN, "faults": Faults(raced=0.3, outages=0.1)},
    ),
    "no times": Small(
        "opentelemetry", "openllmetry", {"again": REGENERATED, "faults": Faults(no_time=0.1)}
    ),
    "messages in a string": Small(
        "openai_chat",
        "messages in a string",
        {"again": SAID_AGAIN, "faults": Faults(doubles=0.2, steps=0.2)},
        ok=True,
    ),
    "conversations": Small("wildchat", "parquet", {"again": SAID_AGAIN}, ok=True),
    "conversations, other words": Small("lmsys", "jsonl", {"again": REPHRASED}, ok=False),
    "programmers": Small("realhumaneval", "jsonl", {"again": SAID_AGAIN, "copies": 0.5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_log_is_believed_as_far_as_it_deserves(name):
    small = SMALL[name]
    world = World(small.format, small.shape, sessions=400, **small.settings)
    judged = judge(world, 0, WORDS, engine="laplace")
    assert not (judged.ok and judged.wrong)
    assert not judged.said
    if small.ok is False:
        assert judged.doubts
    if small.ok:
        assert not [name for name in judged.doubts if not name.startswith("engine")]
        assert judged.error < 0.08

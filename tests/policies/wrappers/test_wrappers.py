"""Aging, the longest wait and escalation: what they show a rule, and do to a queue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.environments.environment import Action, Observation
from cqbayes.environments.load import capacity
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies.linucb import linucb
from cqbayes.policies.oracle import oracle
from cqbayes.policies.policy import best_pair, stateless
from cqbayes.policies.random import random
from cqbayes.policies.vary import vary
from cqbayes.policies.wrappers.aging import aging
from cqbayes.policies.wrappers.escalate import escalate
from cqbayes.policies.wrappers.explore import constant, explore
from cqbayes.policies.wrappers.fifo import fifo
from cqbayes.policies.wrappers.max_wait import max_wait
from cqbayes.simulation.loop import simulate

KEY, NUM_LLMS, DIM = jax.random.key(0), 4, 3


WAIT = np.array([3, 9, 1, 7, 4])


def _by_first_dimension(key, state, room: Observation) -> Action:
    """A rule whose log-odds of a query are the first dimension of its context."""
    utility = jnp.stack([room.context[:, 0], room.context[:, 0] - 1], axis=1)
    return best_pair(utility, room, 1)


RULE = stateless(_by_first_dimension)


def _room(**columns) -> Observation:
    return seen(np.array([[0.5, 0], [0.1, 0], [0.4, 0], [-2.0, 0], [0.0, 0]]), wait=WAIT, **columns)


def test_aging_adds_the_rate_times_the_wait():
    for rate, expected in [(0.0, 0), (0.01, 0), (0.1, 1), (0.5, 1)]:
        scores = np.array([0.5, 0.1, 0.4, -2.0, 0.0]) + rate * WAIT
        assert np.argmax(scores) == expected
        assert aging(RULE, rate).select(KEY, (), _room()).query == expected


def test_aging_adds_to_a_priority_that_is_there():
    priority = np.array([0.0, 0.0, 0.0, 5.0, 0.0])
    assert aging(RULE, 0.1).select(KEY, (), _room(priority=priority)).query == 3
    twice = aging(aging(RULE, 0.05), 0.05)
    assert twice.select(KEY, (), _room()).query == 1
    assert aging(RULE, 0.05).select(KEY, (), _room()).query == 0


@pytest.mark.parametrize(("limit", "query"), [(9, 0), (8, 1), (0, 1)])
def test_max_wait_serves_the_oldest_once_it_is_late(limit, query):
    assert max_wait(RULE, limit).select(KEY, (), _room()).query == query


def test_max_wait_counts_only_those_that_can_be_served():
    servable = np.array([True, False, True, True, True])
    policy = max_wait(RULE, 5)
    assert policy.select(KEY, (), _room(servable=servable)).query == 3
    assert max_wait(RULE, 7).select(KEY, (), _room(servable=servable)).query == 0
    # The oldest two do not wait: their places are free.
    assert max_wait(RULE, 5).select(KEY, (), _room(queue_length=1)).query == 0


def test_max_wait_shows_the_rule_the_oldest_alone_in_a_room_of_the_same_shape():
    shown = []

    def watch(key, state, room: Observation) -> Action:
        shown.append(room)
        return _by_first_dimension(key, state, room)

    max_wait(stateless(watch), 5).select(KEY, (), _room(attempts=np.arange(5)))
    (room,) = shown
    assert room.context.shape == (5, 2)
    assert room.waiting.tolist() == [True, False, False, False, False]
    assert (float(room.context[0, 0]), int(room.wait[0]), int(room.attempts[0])) == (
        np.float32(0.1),
        9,
        1,
    )


def test_max_wait_keeps_exploration_to_the_late_query():
    policy = max_wait(explore(RULE, constant(1.0), 2, 1), 5)
    keys = jax.random.split(KEY, 50)
    done = jax.vmap(policy.select, in_axes=(0, None, None))(keys, (), _room())
    assert (done.query == 1).all()
    assert set(np.argmax(done.offered, axis=1).tolist()) == {0, 1}


def test_max_wait_of_zero_is_first_in_first_out():
    population = synthetic(jax.random.key(1), NUM_LLMS, DIM)
    env = retrial_queue(population, 0.4)
    one, other = (
        simulate(KEY, policy, env, 200, num_seeds=2).metrics
        for policy in (max_wait(oracle(population), 0), fifo(oracle(population)))
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_max_wait_bounds_ages_in_a_stable_queue():
    """Without it the best query comes first, and the worst waits many times as long."""
    population = synthetic(jax.random.key(1), NUM_LLMS, DIM)
    env = retrial_queue(population, capacity(population) - 0.1)
    limit = 30
    plain, bounded, aged = (
        simulate(KEY, policy, env, 3_000, num_seeds=8).metrics.oldest.max()
        for policy in (
            oracle(population),
            max_wait(oracle(population), limit),
            aging(oracle(population), 0.05),
        )
    )
    assert plain > 5 * limit
    assert bounded < limit + 15
    assert aged < plain / 3


def test_escalation_is_by_attempts_of_the_query_that_is_picked():
    strongest = np.array([False, True])
    for attempts, offered in [([1, 9, 9, 9, 9], 0), ([2, 0, 0, 0, 0], 1), ([3, 0, 0, 0, 0], 1)]:
        action = escalate(RULE, 2, strongest).select(KEY, (), _room(attempts=np.array(attempts)))
        assert action.query == 0
        assert np.flatnonzero(action.offered).tolist() == [offered]


def test_escalation_answers_all_later_attempts():
    population = synthetic(jax.random.key(1), NUM_LLMS, DIM)
    env = retrial_queue(population, 0.3)
    strongest = np.arange(NUM_LLMS) == 2
    policy = escalate(linucb(NUM_LLMS, DIM), 2, strongest)
    trace = simulate(KEY, policy, env, 400, num_seeds=2, record=True)
    assert trace.rows is not None
    rows = jax.tree.map(np.asarray, trace.rows)
    late = (rows.weight > 0) & (rows.attempt > 2)
    assert late.sum() > 20
    assert (rows.offered[late] == strongest).all()
    early = (rows.weight > 0) & (rows.attempt <= 2)
    assert (rows.offered[early] != strongest).any(axis=1).mean() > 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vary(random(3), 0, 3), "vary: expected attempts of at least 1, got 0"),
        (lambda: vary(random(3), 2, 3, 4), "slate size: expected 1 to 3 .*got 4"),
        (lambda: aging(random(3), -0.1), "aging: expected a rate of at least 0 .*got -0.1"),
        (lambda: max_wait(random(3), -1), "max_wait: expected a limit of at least 0 .*got -1"),
        (
            lambda: escalate(random(3), 0, np.ones(3, bool)),
            "escalate: .*attempts of at least 1.*got 0",
        ),
        (lambda: escalate(random(3), 2, np.zeros(3, bool)), "escalate: .*one LLM.*got none"),
    ],
)
def test_settings_that_make_no_sense(make, message):
    with pytest.raises(InputError, match=message):
        make()

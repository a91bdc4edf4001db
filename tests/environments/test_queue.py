"""The retrial queue: against the closed form, against a queue written apart, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from reference import alike, geo_geo_1

from cqbayes.environments.environment import Action
from cqbayes.environments.load import capacity
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import linear, synthetic
from cqbayes.errors import InputError
from cqbayes.policies.oracle import oracle
from cqbayes.policies.policy import stateless
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.fifo import fifo
from cqbayes.simulation.loop import simulate


@pytest.mark.parametrize(("arrival", "service"), [(0.3, 0.5), (0.5, 0.6), (0.1, 0.9)])
def test_geo_geo_1(key, arrival, service):
    """Mean and whole stationary distribution, within 4 standard errors over independent seeds."""
    env = retrial_queue(alike(service), arrival)
    trace = simulate(key, random(1), env, rounds=6_000, num_seeds=256)
    queue = trace.metrics.queue_length[:, 1_000:]  # 1,000 rounds to forget the empty start
    law = geo_geo_1(arrival, service, size=400)
    assert law.sum() == pytest.approx(1, abs=1e-9)
    exact_mean = law @ np.arange(400)
    assert exact_mean == pytest.approx(arrival * (1 - arrival) / (service - arrival), rel=1e-6)
    per_seed = queue.mean(axis=1)
    assert abs(per_seed.mean() - exact_mean) < 4 * per_seed.std(ddof=1) / 16
    checked = 0
    for length in range(30):
        share = (queue == length).mean(axis=1)
        if share.mean() > 1e-3:
            error = share.std(ddof=1) / 16
            assert abs(share.mean() - law[length]) < 4 * error, length
            checked += 1
    assert checked >= 3
    # Little's law, with waits counted by the queue itself: mean wait = mean length / arrivals.
    waits = trace.metrics.wait[:, 1_000:].sum(axis=1) / trace.metrics.departed[:, 1_000:].sum(
        axis=1
    )
    assert abs(waits.mean() - exact_mean / arrival) < 4 * waits.std(ddof=1) / 16 + 1e-3


@pytest.mark.parametrize("scheduler", ["oracle", "random", "fifo"])
def test_conservation_in_every_round(key, scheduler):
    population = synthetic(jax.random.key(5))
    policy = {
        "oracle": oracle(population),
        "random": random(5),
        "fifo": fifo(oracle(population)),
    }[scheduler]
    trace = simulate(key, policy, retrial_queue(population, 0.5), rounds=1_500, num_seeds=8)
    metrics = trace.metrics
    arrived, departed = np.cumsum(metrics.arrived, 1), np.cumsum(metrics.departed, 1)
    np.testing.assert_array_equal(metrics.queue_length[:, 0], 0)
    np.testing.assert_array_equal(metrics.queue_length[:, 1:], (arrived - departed)[:, :-1])
    np.testing.assert_array_equal(metrics.served, metrics.queue_length > 0)
    assert not (metrics.departed & ~metrics.served).any()
    assert (metrics.best_waiting >= metrics.best_for_query).all()
    assert (metrics.best_for_query >= metrics.departure_probability - 1e-6).all()
    assert (metrics.attempts[metrics.departed] >= 1).all()
    assert (metrics.wait[metrics.departed] >= metrics.attempts[metrics.departed]).all()


def test_services_of_departed_and_waiting_queries_add_up(key):
    """Under FIFO every service is an attempt of the query that departs next."""
    population = synthetic(jax.random.key(5))
    env = retrial_queue(population, 0.4)
    metrics = simulate(key, fifo(random(5)), env, rounds=2_000).metrics
    last = np.flatnonzero(metrics.departed[0])[-1]
    assert metrics.attempts[0, : last + 1].sum() == metrics.served[0, : last + 1].sum()
    # First in, first out: departures happen in order of arrival.
    arrival_of_departed = (np.arange(2_000) - metrics.wait[0])[metrics.departed[0]]
    assert (np.diff(arrival_of_departed) > 0).all()


def test_failures_are_those_of_each_waiting_query(key):
    """Counted again from the services alone; queries are told apart by their contexts."""
    population = synthetic(jax.random.key(5))
    trace = simulate(key, random(5, 2), retrial_queue(population, 0.5, 2), 600, record=True)
    rows = jax.tree.map(lambda x: x[0], trace.rows)
    vain: dict[bytes, np.ndarray] = {}
    for t in np.flatnonzero(rows.weight > 0):
        query = rows.context[t].tobytes()
        before = vain.setdefault(query, np.zeros(5, int))
        np.testing.assert_array_equal(rows.failures[t], before)
        if rows.choice[t] == 0:
            vain[query] = before + rows.offered[t]
        else:
            del vain[query]
    assert max(len(vain), (rows.failures.sum(axis=1) > 2).sum()) > 10


def test_against_a_queue_written_apart(key):
    """Random service: compare length, wait and attempts with a plain Python queue's."""
    theta = np.random.default_rng(0).uniform(-2, 2, (3, 2))
    trace = simulate(
        key, random(3), retrial_queue(linear(jnp.asarray(theta)), 0.3), rounds=3_000, num_seeds=64
    )
    rng = np.random.default_rng(1)
    lengths, waits, attempts = [], [], []
    for _ in range(64):
        waiting, seen, gone = [], [], []
        for t in range(1, 3_001):
            seen.append(len(waiting))
            if waiting:
                place = rng.integers(len(waiting))
                x, arrived, tries = waiting[place]
                waiting[place] = (x, arrived, tries + 1)
                if rng.random() < 1 / (1 + np.exp(-theta[rng.integers(3)] @ x)):
                    gone.append((t - arrived, tries + 1))
                    waiting.pop(place)
            if rng.random() < 0.3:
                x = rng.uniform(-1, 1, 2)
                waiting.append((x / max(1.0, np.linalg.norm(x)), t, 0))
        lengths.append(np.mean(seen))
        waits.append(np.mean([wait for wait, _ in gone]))
        attempts.append(np.mean([tries for _, tries in gone]))
    metrics = trace.metrics
    departures = metrics.departed.sum(axis=1)
    for ours, theirs in (
        (metrics.queue_length.mean(axis=1), lengths),
        (metrics.wait.sum(axis=1) / departures, waits),
        (metrics.attempts.sum(axis=1) / departures, attempts),
    ):
        error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 64)
        assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error


def test_policies_that_act_alike_see_bit_equal_worlds(key):
    """The oracle, and one that gets there by another road; also two that do not act alike."""
    population = synthetic(jax.random.key(2))
    env = retrial_queue(population, 0.5)

    def same(inner, key, state, seen):
        action = inner(key, state, seen)
        return Action(action.query + 0, action.offered & True)

    policy = oracle(population)
    a, b, c = (
        simulate(key, p, env, rounds=800, num_seeds=4, record=True)
        for p in (policy, stateless(Partial(same, policy.select)), random(5))
    )
    for x, y in zip(jax.tree.leaves(a[:2]), jax.tree.leaves(b[:2]), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.metrics.arrived, c.metrics.arrived)
    assert not np.array_equal(a.metrics.departed, c.metrics.departed)


def test_common_luck_never_favours_the_worse_assortment(key):
    """One uniform number decides: whatever departs with one LLM departs with two as well."""
    population = synthetic(jax.random.key(2))
    everyone = stateless(lambda key, state, seen: Action(jnp.array(0), jnp.ones(5, bool)))
    one = stateless(lambda key, state, seen: Action(jnp.array(0), jnp.arange(5) == 0))
    env = retrial_queue(population, 1.0, slate_size=5)
    first = [
        simulate(key, p, env, rounds=2, num_seeds=512).metrics.departed[:, 1]
        for p in (one, everyone)
    ]
    assert (first[0] <= first[1]).all()
    assert first[0].sum() < first[1].sum()


def test_a_full_room_grows_and_nothing_is_lost(key):
    population = synthetic(jax.random.key(4))
    env = retrial_queue(population, 0.9)
    small = simulate(key, random(5), env, rounds=150, num_seeds=3, room=8, record=True)
    large = simulate(key, random(5), env, rounds=150, num_seeds=3, room=128, record=True)
    assert small.room >= small.metrics.queue_length.max() > 32
    for a, b in zip(jax.tree.leaves(small[:2]), jax.tree.leaves(large[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_choice_shares_are_the_models(key):
    """Outcomes drawn by the queue against the formula, for one query and two offered LLMs."""
    utility = jnp.array([0.4, -0.6, 2.0])
    population = alike(0.5)._replace(utility=Partial(lambda u, q: u, utility))
    offer = stateless(lambda key, state, seen: Action(jnp.array(0), jnp.array([True, True, False])))
    trace = simulate(
        key, offer, retrial_queue(population, 1.0, 2), rounds=400, num_seeds=100, record=True
    )
    rows = trace.choices()
    choice = np.asarray(rows.choice)[np.asarray(rows.weight) > 0]
    odds = np.exp([0, 0.4, -0.6])
    share = np.bincount(choice, minlength=4) / len(choice)
    expected = np.append(odds / odds.sum(), 0)
    error = np.sqrt(expected * (1 - expected) / len(choice))
    assert (np.abs(share - expected) <= 4 * error).all()


@pytest.mark.long
def test_capacity_is_the_edge_of_stability(key):
    """Just below it the oracle's queue stays short under FIFO, just above it grows without end."""
    population = synthetic(jax.random.key(9))
    limit = float(capacity(population))
    growth = []
    for rate in (limit - 0.05, limit + 0.05):
        env = retrial_queue(population, rate)
        metrics = simulate(key, fifo(oracle(population)), env, rounds=8_000, num_seeds=16).metrics
        late, early = metrics.queue_length[:, -1_000:], metrics.queue_length[:, 3_000:4_000]
        growth.append(late.mean() - early.mean())
    assert growth[0] < 5
    assert growth[1] > 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: retrial_queue(p, 1.5), r"arrival rate: expected .* \[0, 1\], got 1.5"),
        (lambda p: retrial_queue(p, -0.1), r"arrival rate: expected .* \[0, 1\], got -0.1"),
        (lambda p: retrial_queue(p, float("nan")), "arrival rate: expected"),
        (lambda p: retrial_queue(p, 0.5, slate_size=6), "slate size: expected 1 to 5 .* got 6"),
        (lambda p: retrial_queue(p, 0.5, slate_size=0), "slate size: expected 1 to 5 .* got 0"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make(synthetic(jax.random.key(0)))

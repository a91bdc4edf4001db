"""The driver: compilation, randomness, refits, recording."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.inference.infer import load_engine
from cqbayes.inference.online import update
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random
from cqbayes.policies.thompson import thompson
from cqbayes.policies.wrappers.refit import doubling, every, refit
from cqbayes.posterior.online_gaussian import prior
from cqbayes.preference import Sizes
from cqbayes.simulation.loop import MOST_ROUNDS_A_CHUNK, simulate

SIZES = Sizes(5, 5)


@pytest.fixture
def world():
    population = synthetic(jax.random.key(1))
    return population, retrial_queue(population, 0.45)


def _equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_one_compilation_per_shape(world, disjoint_mnl, key):
    """Neither more rounds, other numbers, nor an equal policy made anew is traced again."""
    traced = 0

    def counting(inner, *arguments):
        nonlocal traced
        traced += 1
        return inner(*arguments)

    def counted(c):
        policy = acqb(belief.online(disjoint_mnl(), SIZES), 5, c=c)
        return policy._replace(update=Partial(counting, policy.update))

    _, env = world
    simulate(key, counted(0.5), env, rounds=MOST_ROUNDS_A_CHUNK, num_seeds=2)
    once = traced
    assert once > 0
    simulate(key, counted(0.5), env, rounds=3 * MOST_ROUNDS_A_CHUNK + 1, num_seeds=2)
    other = retrial_queue(synthetic(jax.random.key(2)), 0.4)
    simulate(jax.random.key(3), counted(0.7), other, rounds=MOST_ROUNDS_A_CHUNK, num_seeds=2)
    assert traced == once
    simulate(key, counted(0.5), env, rounds=MOST_ROUNDS_A_CHUNK, num_seeds=3)
    assert traced > once


def test_rounds_that_were_not_asked_for_are_not_run(world, disjoint_mnl, key):
    """The state at the end is that of the last round, however rounds fall into chunks."""
    _, env = world
    policy = acqb(belief.online(disjoint_mnl(), SIZES), 5)
    trace = simulate(key, policy, env, rounds=MOST_ROUNDS_A_CHUNK + 3, record=True)
    expected = update(prior(disjoint_mnl(), SIZES), trace.choices(), slate_size=1)
    np.testing.assert_allclose(
        trace.policy_state.posterior.location[0], expected.location, rtol=1e-3, atol=1e-3
    )


def test_same_key_same_bytes_other_key_other_run(world, disjoint_mnl, key):
    _, env = world
    policy = acqb(belief.online(disjoint_mnl(), SIZES), 5)
    first, again = (simulate(key, policy, env, rounds=300, num_seeds=3) for _ in range(2))
    _equal(first, again)
    other = simulate(jax.random.key(99), policy, env, rounds=300, num_seeds=3)
    assert not np.array_equal(first.metrics.arrived, other.metrics.arrived)


def test_seeds_do_not_depend_on_chunks_or_company(world, key):
    """A run of fewer rounds is a prefix; under vmap each seed is what it is alone."""
    _, env = world
    long = simulate(key, random(5), env, rounds=2 * MOST_ROUNDS_A_CHUNK, num_seeds=3)
    short = simulate(key, random(5), env, rounds=500, num_seeds=3)
    _equal(short.metrics, jax.tree.map(lambda x: x[:, :500], long.metrics))
    assert not np.array_equal(long.metrics.arrived[0], long.metrics.arrived[1])


def test_arrays_per_seed(key):
    populations = eqx.filter_vmap(synthetic)(jax.random.split(key, 3))
    env = eqx.filter_vmap(retrial_queue)(populations, jnp.array([0.0, 0.3, 1.0]))
    policy = eqx.filter_vmap(oracle)(populations)
    trace = simulate(key, policy, env, 200, num_seeds=3, policy_per_seed=True, env_per_seed=True)
    assert trace.metrics.arrived.mean(axis=1).tolist()[0::2] == [0.0, 1.0]
    assert 0.2 < trace.metrics.arrived[1].mean() < 0.4
    # Each seed's oracle has its own truth: it never loses anything.
    np.testing.assert_allclose(
        trace.metrics.best_waiting, trace.metrics.departure_probability, atol=1e-6
    )


def test_recorded_rows_are_the_services(world, disjoint_mnl, key):
    env = retrial_queue(world[0], 0.45, slate_size=2)
    trace = simulate(key, random(5, slate_size=2), env, 400, num_seeds=2, record=True)
    rows = trace.choices()
    assert rows.num_obs == 800
    served = trace.metrics.served.reshape(-1)
    np.testing.assert_array_equal(rows.weight, served)
    np.testing.assert_array_equal(rows.offered, trace.metrics.offered.reshape(-1, 5))
    np.testing.assert_array_equal(np.asarray(rows.choice) > 0, trace.metrics.departed.reshape(-1))
    assert (np.asarray(rows.offered).sum(axis=1)[served] == 2).all()
    with pytest.raises(InputError, match="record=True"):
        simulate(key, random(5), env, 10).choices()


def test_refits_see_all_rows_so_far(world, disjoint_mnl, key):
    """A Laplace refit equals Laplace on the recorded log, and is not touched in between."""
    _, env = world
    engine = load_engine("laplace")
    policy = thompson(belief.refitted(engine.fit, disjoint_mnl(), SIZES))
    trace = simulate(key, policy, env, 300, num_seeds=2, refit_after=[100, 200], record=True)
    for seed in range(2):
        rows = jax.tree.map(lambda x, s=seed: jnp.asarray(x[s, :200]), trace.rows)
        expected, info = engine.fit(jax.random.key(0), disjoint_mnl(), rows)
        assert info.ok
        np.testing.assert_allclose(
            trace.policy_state.posterior.location[seed], expected.location, atol=2e-3
        )
    assert (trace.policy_state.failures == 0).all()


def test_a_log_counts_as_history(world, disjoint_mnl, choices, key):
    """Warm start is update on a log: with it, the very first decisions are already good."""
    _, env = world
    log = simulate(jax.random.key(8), random(5), env, 3_000, record=True).choices()
    for how in (
        lambda log: belief.online(disjoint_mnl(), SIZES, log),
        lambda log: belief.refitted(load_engine("laplace").fit, disjoint_mnl(), SIZES, log),
    ):
        lost = []
        for start in (None, log):
            metrics = simulate(key, thompson(how(start)), env, 200, num_seeds=16).metrics
            lost.append((metrics.best_for_query - metrics.departure_probability).sum(axis=1).mean())
        assert lost[1] < 0.7 * lost[0]


def test_failed_refits_are_counted_and_not_used(world, disjoint_mnl, key):
    _, env = world
    bad = belief.refitted(load_engine("laplace").fit, disjoint_mnl(), SIZES, max_iterations=0)
    trace = simulate(key, thompson(bad), env, 100, num_seeds=2, refit_after=[50])
    assert trace.policy_state.failures.tolist() == [2, 2]
    assert np.isfinite(trace.policy_state.posterior.location).all()


def test_schedules_of_refits():
    assert doubling(100)(100) == []
    assert doubling(100)(801) == [100, 200, 400, 800]
    assert every(100)(300) == [100, 200]
    for schedule in (doubling, every):
        with pytest.raises(InputError, match="at least one round between refits, got 0"):
            schedule(0)


def test_a_policy_brings_its_own_schedule(world, disjoint_mnl, key):
    """The wrapper does what the driver does when it is told when."""
    _, env = world
    learner = thompson(belief.refitted(load_engine("laplace").fit, disjoint_mnl(), SIZES))
    told = simulate(key, learner, env, 300, num_seeds=2, refit_after=[100, 200])
    _equal(told, simulate(key, refit(learner, every(100)), env, 300, num_seeds=2))
    with pytest.raises(InputError, match=r"refit: expected a policy whose posterior is refitted"):
        refit(random(5), every(100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "at least 1 round"),
        ({"rounds": 5, "num_seeds": 0}, "at least 1 round and 1 seed"),
    ],
)
def test_bad_input(world, key, arguments, message):
    with pytest.raises(InputError, match=message):
        simulate(key, random(5), world[1], **arguments)


@pytest.mark.parametrize("policy", [random(1), random(6)])
def test_policies_of_other_sizes_are_refused(world, key, policy):
    with pytest.raises(InputError, match="policy: expected one for 5 LLMs"):
        simulate(key, policy, world[1], 20)


def test_learners_of_other_dimensions_are_refused(world, disjoint_mnl, key):
    policy = acqb(belief.online(disjoint_mnl(), Sizes(5, 3)), 5)
    with pytest.raises(InputError, match="policy: expected one for 5 LLMs and the environment's"):
        simulate(key, policy, world[1], 20)


def test_larger_slates_than_the_environment_allows_are_refused(world, key):
    with pytest.raises(InputError, match=r"policy: expected at most 1 LLMs a service.*got 2"):
        simulate(key, random(5, slate_size=2), world[1], 50)


@pytest.mark.parametrize("schedule", [[20, 10], [0], [50], [10, 10]])
def test_refits_out_of_order(world, disjoint_mnl, key, schedule):
    policy = thompson(belief.refitted(load_engine("laplace").fit, disjoint_mnl(), SIZES))
    with pytest.raises(InputError, match="refit_after: expected ascending rounds"):
        simulate(key, policy, world[1], 50, refit_after=schedule)

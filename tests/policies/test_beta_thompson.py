"""Policies that see no context: counts, draws of betas, and exploration of Q-ThS."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.environments.environment import Action
from cqbayes.policies.beta_thompson import Counts, beta_thompson
from cqbayes.policies.policy import Policy
from cqbayes.policies.q_ths import q_ths

NUM_LLMS, DIM, DRAWS = 4, 3, 20_000


WAIT = np.array([3, 9, 1, 7, 4])  # the query in place 1 is the oldest


ROOM = seen(np.random.default_rng(0).normal(size=(5, DIM)) / 2, wait=WAIT)


def _actions(policy: Policy, state, room=ROOM) -> Action:
    keys = jax.random.split(jax.random.key(3), DRAWS)
    return jax.vmap(policy.select, in_axes=(0, None, None))(keys, state, room)


def _within(found: np.ndarray, expected: np.ndarray, samples: float = 1.0) -> bool:
    error = np.sqrt(samples * expected * (1 - expected) / DRAWS)
    return bool((np.abs(found - expected) <= 4 * error + 1e-9).all())


def test_beta_thompson_counts_what_was_taken_and_what_was_left(choices):
    data, _ = choices(seed=0, num_obs=200, slate_size=2)
    weight = np.random.default_rng(0).choice([0.0, 1.0, 2.0], 200)
    data = eqx.tree_at(lambda d: d.weight, data, jnp.asarray(weight, jnp.float32))
    policy = beta_thompson(NUM_LLMS, 2)
    state = policy.update(jax.random.key(0), policy.init(jax.random.key(0)), data)
    taken, left = np.zeros(NUM_LLMS), np.zeros(NUM_LLMS)
    for offered, choice, w in zip(np.asarray(data.offered), data.choice, weight, strict=True):
        for j in np.flatnonzero(offered):
            (taken if choice - 1 == j else left)[j] += w
    np.testing.assert_array_equal(state.taken, taken)
    np.testing.assert_array_equal(state.left, left)


def test_rows_of_weight_zero_change_nothing(choices):
    data, _ = choices(seed=0, num_obs=5)
    nothing = eqx.tree_at(lambda d: (d.weight, d.context), data, (jnp.zeros(5), data.context / 0))
    policy = beta_thompson(NUM_LLMS)
    state = policy.update(jax.random.key(0), policy.init(jax.random.key(0)), data)
    after = policy.update(jax.random.key(0), state, nothing)
    np.testing.assert_array_equal(state, after)


@pytest.mark.parametrize("slate_size", [1, 2])
@pytest.mark.parametrize("valued", [False, True])
def test_beta_thompson_picks_as_often_as_betas_say(slate_size, valued):
    taken, left = np.array([3.0, 2.0, 0.0, 5.0]), np.array([2.0, 1.0, 0.0, 6.0])
    values = np.array([0.5, 1.0, 0.7, 0.9]) if valued else np.ones(NUM_LLMS)
    policy = beta_thompson(
        NUM_LLMS, slate_size, values=jnp.asarray(values, jnp.float32) if valued else None
    )
    done = _actions(policy, Counts(jnp.asarray(taken), jnp.asarray(left)))
    assert (done.query == 1).all()
    assert (done.offered.sum(axis=1) == slate_size).all()
    drawn = values * np.random.default_rng(0).beta(1 + taken, 1 + left, (DRAWS, NUM_LLMS))
    ranks = np.argsort(np.argsort(-drawn, axis=1), axis=1)
    expected = (ranks < slate_size).mean(axis=0)
    assert _within(np.asarray(done.offered).mean(axis=0), expected, samples=2)


@pytest.mark.parametrize(("t", "factor"), [(2_000, 3.0), (100_000, 3.0), (50, 0.1), (1, 3.0)])
def test_q_ths_explores_at_its_rate_and_only_assortments(t, factor):
    # One LLM is so much better that every other answer is exploration.
    state = Counts(jnp.array([1e6, 0, 0, 0]), jnp.array([0, 1e6, 1e6, 1e6]))
    policy = q_ths(NUM_LLMS, factor=factor)
    room = ROOM._replace(round=jnp.array(t))
    done = _actions(policy, state, room)
    assert (done.query == 1).all()
    rate = min(1.0, factor * NUM_LLMS * np.log(t) ** 2 / t)
    expected = np.full(NUM_LLMS, rate / NUM_LLMS) + (1 - rate) * (np.arange(NUM_LLMS) == 0)
    assert _within(np.asarray(done.offered).mean(axis=0), expected)

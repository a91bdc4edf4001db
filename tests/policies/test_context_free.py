"""Policies that see no context, and the greedy ones: counts, draws and exploration rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.choice.data import Situation
from cqbayes.environments.environment import Action
from cqbayes.errors import InputError
from cqbayes.policies import belief
from cqbayes.policies.beta_thompson import Counts, beta_thompson
from cqbayes.policies.epsilon_greedy import epsilon_greedy
from cqbayes.policies.greedy import greedy
from cqbayes.policies.policy import Policy
from cqbayes.policies.q_ths import q_ths
from cqbayes.preference import Sizes, utilities

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


def _learnt(policy: Policy, choices):
    data, _ = choices(seed=1, num_obs=100, slate_size=2)
    return policy.update(jax.random.key(0), policy.init(jax.random.key(0)), data)


def _best_under_the_mean(state) -> tuple[int, set[int]]:
    posterior = state.posterior
    utility = utilities(posterior.model, posterior.mean(), Situation(ROOM.context))
    odds = np.exp(np.asarray(utility, np.float64))
    two = np.sort(odds, axis=1)[:, -2:].sum(axis=1)
    query = int(np.argmax(two))
    return query, set(np.argsort(odds[query])[-2:].tolist())


def test_greedy_serves_what_is_best_under_the_posterior_mean(choices, disjoint_mnl):
    policy = greedy(belief.online(disjoint_mnl(), Sizes(NUM_LLMS, DIM)), 2)
    state = _learnt(policy, choices)
    query, chosen = _best_under_the_mean(state)
    for seed in range(5):
        action = policy.select(jax.random.key(seed), state, ROOM)
        assert (int(action.query), set(np.flatnonzero(action.offered))) == (query, chosen)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_epsilon_greedy_explores_at_a_constant_rate(choices, disjoint_mnl, epsilon):
    how = belief.online(disjoint_mnl(), Sizes(NUM_LLMS, DIM))
    policy = epsilon_greedy(how, NUM_LLMS, 2, epsilon)
    state = _learnt(policy, choices)
    query, chosen = _best_under_the_mean(state)
    pairs = 5 * 6  # queries, and assortments of two of four LLMs
    for t in (1, 1_000):
        done = _actions(policy, state, ROOM._replace(round=jnp.array(t)))
        best = (done.query == query) & np.asarray(done.offered)[:, list(chosen)].all(axis=1)
        assert _within(1 - best.mean(), np.array(epsilon * (1 - 1 / pairs)))


def test_epsilon_is_a_probability(disjoint_mnl):
    how = belief.online(disjoint_mnl(), Sizes(NUM_LLMS, DIM))
    with pytest.raises(InputError, match=r"epsilon to be a probability in \[0, 1\], got 1\.5"):
        epsilon_greedy(how, NUM_LLMS, epsilon=1.5)

"""Greedy policies: what is best under the posterior mean, and a constant rate of exploration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seen import seen

from cqbayes.choice.data import Situation
from cqbayes.environments.environment import Action
from cqbayes.errors import InputError
from cqbayes.policies import belief
from cqbayes.policies.epsilon_greedy import epsilon_greedy
from cqbayes.policies.greedy import greedy
from cqbayes.policies.policy import Policy
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

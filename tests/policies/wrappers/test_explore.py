"""Forced exploration: its rate, and that what it does is uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cqbayes.environments.environment import Action, Observation
from cqbayes.policies.policy import stateless
from cqbayes.policies.wrappers.explore import explore, inverse_root

NUM_LLMS, QUEUE_LENGTH, DRAWS = 5, 4, 20_000


def _actions(c: float, t: int) -> np.ndarray:
    """Counts ``[place, llm]`` of the actions in round ``t``; the inner policy stays at (0, 0)."""
    first = Action(jnp.array(0), jnp.arange(NUM_LLMS) == 0)
    policy = explore(
        stateless(lambda key, state, seen: first), inverse_root(c), NUM_LLMS, slate_size=1
    )
    empty = jnp.zeros(8, jnp.int32)
    seen = Observation(
        jnp.array(t), jnp.array(QUEUE_LENGTH), jnp.zeros((8, 2)), empty, empty, empty
    )
    keys = jax.random.split(jax.random.key(t), DRAWS)
    done = jax.jit(jax.vmap(lambda key: policy.select(key, (), seen)))(keys)
    assert (done.offered.sum(axis=1) == 1).all()
    counts = np.zeros((8, NUM_LLMS), int)
    np.add.at(counts, (np.asarray(done.query), np.argmax(done.offered, axis=1)), 1)
    return counts


@pytest.mark.parametrize(("c", "t"), [(0.5, 4), (0.5, 100), (2.0, 100), (0.0, 9)])
def test_rate_is_c_over_root_t(c, t):
    eta = min(1.0, c / np.sqrt(t))
    elsewhere = 1 - _actions(c, t)[0, 0] / DRAWS
    expected = eta * (1 - 1 / (NUM_LLMS * QUEUE_LENGTH))
    assert abs(elsewhere - expected) <= 4 * np.sqrt(expected * (1 - expected) / DRAWS)


def test_query_and_assortment_are_uniform():
    counts = _actions(c=1.0, t=1)
    assert counts[QUEUE_LENGTH:].sum() == 0
    assert stats.chisquare(counts[:QUEUE_LENGTH].ravel()).pvalue > 1e-3

"""The best assortment, against enumeration of all of them."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.choice.assortments import best_assortment, value
from cqbayes.choice.mnl import departure_probability


@pytest.mark.parametrize("slate_size", [1, 2, 3, 5])
def test_no_assortment_is_better(slate_size):
    rng = np.random.default_rng(slate_size)
    utility = jnp.asarray(rng.normal(scale=2, size=(50, 5)), jnp.float32)
    offered, score = best_assortment(utility, slate_size)
    assert (offered.sum(axis=1) == slate_size).all()
    achieved = departure_probability(utility, offered)
    np.testing.assert_allclose(achieved, 1 / (1 + np.exp(-score)), rtol=1e-5)
    for size in range(1, slate_size + 1):
        for members in combinations(range(5), size):
            rival = jnp.zeros((50, 5), bool).at[:, list(members)].set(True)
            assert (achieved >= departure_probability(utility, rival) - 1e-6).all()


def test_ties_and_extremes():
    offered, _ = best_assortment(jnp.zeros(3), 2)
    assert offered.tolist() == [True, True, False]
    offered, score = best_assortment(jnp.array([1e4, -1e4, 1e4]), 2)
    assert offered.tolist() == [True, False, True]
    assert np.isfinite(score)


@pytest.mark.parametrize("slate_size", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_no_assortment_earns_more(slate_size, scale):
    """With values, against the expected reward of all assortments of at most that size."""
    rng = np.random.default_rng(slate_size)
    utility = rng.normal(scale=scale, size=(200, 5))
    values = rng.uniform(size=5)
    offered, score = best_assortment(
        jnp.asarray(utility, jnp.float32), slate_size, jnp.asarray(values, jnp.float32)
    )
    sizes = offered.sum(axis=1)
    assert (sizes >= 1).all()
    assert (sizes <= slate_size).all()

    def reward(chosen: np.ndarray) -> np.ndarray:
        top = np.maximum(utility.max(axis=1, keepdims=True), 0)
        odds = np.exp(utility - top) * chosen
        return odds @ values / (np.exp(-top[:, 0]) + odds.sum(axis=1))

    achieved = reward(np.asarray(offered))
    ours = value(jnp.asarray(utility, jnp.float32), offered, jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(ours, achieved, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(score, float))), achieved, atol=1e-5)
    for size in range(1, slate_size + 1):
        for members in combinations(range(5), size):
            rival = np.isin(np.arange(5), members)
            assert (achieved >= reward(rival[None]) - 1e-5).all()


def test_equal_values_are_none():
    utility = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)), jnp.float32)
    plain, score = best_assortment(utility, 2)
    same, reward = best_assortment(utility, 2, jnp.ones(4))
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_allclose(reward, score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value(utility, same), value(utility, same, jnp.ones(4)), rtol=1e-5)


def test_answers_that_are_worth_nothing_or_never_taken():
    offered, score = best_assortment(jnp.array([0.0, 1.0]), 2, jnp.zeros(2))
    assert offered.sum() == 1
    assert np.isfinite(score)
    offered, score = best_assortment(jnp.array([-1e4, 1e4]), 1, jnp.array([1.0, 0.5]))
    assert offered.tolist() == [False, True]
    assert np.isfinite(score)

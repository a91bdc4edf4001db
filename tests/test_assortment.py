"""The best assortment, against enumeration of all of them."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.assortment import best_assortment
from cqbayes.choice import departure_probability


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

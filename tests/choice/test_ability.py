"""Memory against enumeration of what LLMs can, and against users who are simulated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit

from cqbayes.choice.ability import kept_utility, recalled_utility, received

CAN, CANNOT, HARDNESS, PERSISTS = 0.9, 0.15, 1.3, 0.7
ABILITY = np.array([-0.8, 0.4, 1.1])


def probability_of_failures(failures, hardness=HARDNESS):
    """Enumerates which LLMs can, and which abilities stay; integrates adaptively over ``d``."""

    def given(d):
        able, total = expit(ABILITY + d), 0.0
        # What an LLM is to this query: it can, it cannot, or that is drawn anew.
        for case in itertools.product((0, 1, 2), repeat=3):
            chance = 1.0
            for j, one in enumerate(case):
                weight = [PERSISTS * able[j], PERSISTS * (1 - able[j]), 1 - PERSISTS][one]
                taken = [CAN, CANNOT, CANNOT + (CAN - CANNOT) * able[j]][one]
                chance *= weight * (1 - taken) ** failures[j]
            total += chance
        return total

    if hardness == 0:
        return given(0.0)
    return integrate.quad(lambda d: given(d) * stats.norm.pdf(d, 0, hardness), -9, 9)[0]


@pytest.mark.parametrize("failures", [(0, 0, 0), (1, 0, 0), (2, 1, 0), (0, 3, 4)])
@pytest.mark.parametrize("hardness", [0.0, HARDNESS])
def test_recalled_probabilities_are_those_of_enumeration(failures, hardness):
    found = recalled_utility(
        jnp.asarray(ABILITY), jnp.array(failures), CAN, CANNOT, hardness, PERSISTS
    )
    before = probability_of_failures(failures, hardness)
    for j in range(3):
        more = np.array(failures) + (np.arange(3) == j)
        expected = 1 - probability_of_failures(more, hardness) / before
        assert expit(float(found[j])) == pytest.approx(expected, abs=2e-4)


def test_without_persistence_and_hardness_nothing_is_remembered():
    ability = jnp.asarray(ABILITY)
    for failures in ([0, 0, 0], [5, 1, 2]):
        found = recalled_utility(ability, jnp.array(failures), 1 - 1e-6, 1e-6, 0.0, 0.0)
        np.testing.assert_allclose(found, ABILITY, atol=1e-4)


def test_values_and_slopes_are_finite_far_out():
    def total(ability, can, cannot, hardness, persists, failures):
        found = recalled_utility(ability, failures, can, cannot, hardness, persists)
        return jnp.sum(found)

    for far in (1e4, -1e4, 30.0):
        for failures in ([0, 0], [60, 3], [0, 1000]):
            for rates in ((0.9, 0.1, 1.0, 0.9), (0.999, 0.001, 3.0, 1.0), (0.9, 0.1, 0.0, 0.0)):
                value, slope = jax.value_and_grad(total, argnums=(0, 1, 2, 3, 4))(
                    jnp.array([far, -far]), *rates, jnp.array(failures)
                )
                assert np.isfinite(value)
                assert all(np.isfinite(x).all() for x in slope), (far, failures, rates)


def test_slopes_are_right_where_searches_begin():
    """At abilities of exactly zero, against differences."""

    def total(ability):
        found = recalled_utility(ability, jnp.array([1, 0, 2]), CAN, CANNOT, HARDNESS, PERSISTS)
        return found @ jnp.array([1.0, -0.7, 0.3])

    with jax.enable_x64(True):
        for at in (jnp.zeros(3), jnp.asarray(ABILITY)):
            slope = jax.grad(total)(at)
            bend = jax.hessian(total)(at)
            for j, step in enumerate(1e-5 * jnp.eye(3)):
                change = (total(at + step) - total(at - step)) / 2e-5
                assert float(slope[j]) == pytest.approx(float(change), rel=1e-6)
                change = (jax.grad(total)(at + step) - jax.grad(total)(at - step)) / 2e-5
                np.testing.assert_allclose(bend[j], change, rtol=1e-5, atol=1e-8)


def test_kept_utilities_have_the_law_that_is_recalled():
    """Users who keep what was drawn fail as often, and as often again, as the law says."""
    keys = jax.random.split(jax.random.key(3), 40_000)
    kept = jax.vmap(
        lambda key: kept_utility(key, jnp.asarray(ABILITY), CAN, CANNOT, HARDNESS, PERSISTS)
    )(keys)
    vain = 1 - np.asarray(jax.nn.sigmoid(kept), float)
    for failures in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (0, 2, 2)):
        each = np.prod(vain ** np.array(failures), axis=1)
        error = each.std() / np.sqrt(len(each))
        assert abs(each.mean() - probability_of_failures(failures)) < 4 * error


def test_received_goes_from_one_rate_to_the_other():
    at = jnp.array([-1e4, 0.3, 1e4])
    found = jax.nn.sigmoid(received(at, 0.9, 0.2))
    np.testing.assert_allclose(found, [0.2, 0.2 + 0.7 * expit(0.3), 0.9], rtol=1e-5)
    assert np.isfinite(jax.vmap(jax.grad(lambda s: received(s, 0.9, 0.2)))(at)).all()

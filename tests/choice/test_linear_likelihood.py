"""The fast likelihood against automatic differentiation and against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.choice.data import ChoiceData
from cqbayes.choice.linear_likelihood import (
    anchored,
    information,
    linear_log_likelihood,
    linear_rows,
)
from cqbayes.choice.mnl import log_probability
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.preference import layout, load_model, program, sizes_of


def _features(context):
    return jnp.concatenate([jnp.ones_like(context[:1]), context])


def _plain(weights, data: ChoiceData):
    utility = weights[:, 0] + data.context @ weights[:, 1:].T
    return jnp.sum(data.weight * log_probability(utility, data.offered, data.choice))


@pytest.fixture(scope="module")
def data(choices):
    data, _ = choices(seed=1, num_obs=700, num_llms=5, dim=3)
    weight = np.random.default_rng(0).integers(0, 3, 700)  # zeros among them
    return ChoiceData(data.context, data.offered, data.choice, jnp.asarray(weight, jnp.float32))


@pytest.mark.parametrize("lanes", [64, 512, 4096])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_value_gradient_and_information_are_those_of_autodiff(data, lanes, scale, key):
    rows = linear_rows(_features, data, lanes)
    weights = scale * jax.random.normal(key, (5, 4))
    value, slope = jax.jit(jax.value_and_grad(linear_log_likelihood))(weights, rows)
    expected, expected_slope = jax.value_and_grad(_plain)(weights, data)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(linear_log_likelihood(weights, rows), value, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, atol=2e-3)
    curvature = -jax.hessian(_plain)(weights, data)
    np.testing.assert_allclose(information(weights, rows), curvature, atol=2e-3)


def test_many_weights_at_once(data, key):
    rows = linear_rows(_features, data)
    weights = jax.random.normal(key, (6, 5, 4))
    together = jax.vmap(jax.value_and_grad(linear_log_likelihood), (0, None))(weights, rows)
    for i, alone in enumerate(weights):
        value, slope = jax.value_and_grad(linear_log_likelihood)(alone, rows)
        np.testing.assert_allclose(together[0][i], value, rtol=1e-5)
        np.testing.assert_allclose(together[1][i], slope, atol=1e-3)


def test_an_anchor_keeps_differences_exact(choices, key):
    """Against NumPy in double precision; the plain single-precision difference is far off."""
    data, _ = choices(seed=2, num_obs=40_000, num_llms=5, dim=3)
    anchor = jax.random.normal(key, (5, 4))
    rows = anchored(linear_rows(_features, data), anchor)
    weights = anchor + 1e-3 * jax.random.normal(jax.random.key(1), anchor.shape)

    def exact(weights):
        w, x = np.asarray(weights, np.float64), np.asarray(data.context, np.float64)
        utility = w[:, 0] + x @ w[:, 1:].T
        total = 1 + np.sum(np.exp(utility) * np.asarray(data.offered), axis=1)
        taken = np.where(
            data.choice > 0,
            np.take_along_axis(utility, np.maximum(data.choice, 1)[:, None] - 1, 1).T[0],
            0,
        )
        return np.sum(taken - np.log(total))

    gain = linear_log_likelihood(weights, rows)
    truth = exact(weights) - exact(anchor)
    plain = _plain(weights, data) - _plain(anchor, data)
    assert abs(gain - truth) < 1e-4
    assert abs(plain - truth) > 10 * abs(gain - truth)
    assert linear_log_likelihood(anchor, rows) == 0


def test_extreme_utilities_stay_finite(data):
    rows = linear_rows(_features, data)
    for scale in (1e4, -1e4):
        value, slope = jax.value_and_grad(linear_log_likelihood)(jnp.full((5, 4), scale), rows)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_rows_of_weight_zero_are_not_seen(data, key):
    broken = ChoiceData(
        jnp.where(data.weight[:, None] > 0, data.context, jnp.nan),
        data.offered,
        data.choice,
        data.weight,
    )
    weights = jax.random.normal(key, (5, 4))
    for a, b in zip(
        jax.value_and_grad(linear_log_likelihood)(weights, linear_rows(_features, data)),
        jax.value_and_grad(linear_log_likelihood)(weights, linear_rows(_features, broken)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_density_is_the_same_by_every_way(data, key):
    """Hand-written gradient, automatic differentiation, and NumPyro's own program."""
    from numpyro.infer.util import potential_energy

    model = load_model("disjoint_mnl")
    vector = jax.random.normal(key, (layout(model, sizes_of(data)).size,))
    form = layout(model, sizes_of(data))

    def by_numpyro(vector):
        return -potential_energy(program(model), (data,), {}, form.unravel(vector))

    ways = [
        log_posterior(model, data),
        log_posterior(model._replace(linear=None), data),
        by_numpyro,
    ]
    values, slopes = zip(*(jax.value_and_grad(way)(vector) for way in ways), strict=True)
    for value, slope in zip(values[1:], slopes[1:], strict=True):
        np.testing.assert_allclose(value, values[0], rtol=1e-5)
        np.testing.assert_allclose(slope, slopes[0], atol=1e-3)

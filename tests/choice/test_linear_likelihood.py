"""The fast likelihood, of a clean log and through a channel, against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from cqbayes.choice.channels import Seen, channel_rates
from cqbayes.choice.data import SILENCE, ChoiceData
from cqbayes.choice.linear_likelihood import (
    LANES,
    Inner,
    anchored,
    information,
    linear_log_likelihood,
    linear_rows,
)
from cqbayes.choice.mnl import log_probability
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.preference import layout, load_model, program, sizes_of

RATES = channel_rates(retry=(0.6, 0.1, 0.3), taken=(0.1, 0.7, 0.2))


def _features(at):
    return jnp.concatenate([jnp.ones_like(at.context[:1]), at.context])


def _plain(inner, data: ChoiceData):
    utility = inner.weights[:, 0] + data.context @ inner.weights[:, 1:].T
    if inner.rates is None:
        each = log_probability(utility, data.offered, data.choice)
    else:
        each = Seen(utility, data.offered, inner.rates, signs=1).log_prob(data.choice)
    return jnp.sum(data.weight * each)


@pytest.fixture(scope="module")
def clean(choices):
    data, _ = choices(seed=1, num_obs=700, num_llms=5, dim=3)
    weight = np.random.default_rng(0).integers(0, 3, 700)  # zeros among them
    return ChoiceData(data.context, data.offered, data.choice, jnp.asarray(weight, jnp.float32))


@pytest.fixture(scope="module")
def hidden(clean):
    """The same with silence, and with rows that offer nothing."""
    row = jnp.arange(clean.num_obs)
    choice = jnp.where(row % 5 == 0, SILENCE, clean.choice)
    offered = clean.offered & (row % 7 > 0)[:, None]
    choice = jnp.where(row % 7 > 0, choice, 0)
    return ChoiceData(clean.context, offered, choice, clean.weight)


@pytest.fixture(params=[None, RATES], ids=["clean", "channel"])
def case(request, clean, hidden):
    """A log with the rates of its channel, as data and in the layout of the fast likelihood."""
    data = clean if request.param is None else hidden

    def rows(data=data, lanes=LANES):
        return linear_rows(_features, data, lanes, clean=request.param is None)

    return data, request.param, rows


def _close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("lanes", [64, 512, 4096])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_value_gradient_and_information_are_those_of_autodiff(case, lanes, scale, key):
    data, rates, rows = case
    rows = rows(lanes=lanes)
    inner = Inner(scale * jax.random.normal(key, (5, 4)), rates)
    value, slope = jax.jit(jax.value_and_grad(linear_log_likelihood))(inner, rows)
    expected, expected_slope = jax.value_and_grad(_plain)(inner, data)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    np.testing.assert_allclose(linear_log_likelihood(inner, rows), value, rtol=1e-6)
    _close(slope, expected_slope, atol=2e-3, rtol=2e-6)
    flat, unravel = ravel_pytree(inner)
    curvature = -jax.hessian(lambda v: _plain(unravel(v), data))(flat)
    np.testing.assert_allclose(information(inner, rows), curvature, atol=2e-3, rtol=2e-6)


def test_many_weights_at_once(case, key):
    _, rates, rows = case
    weights = jax.random.normal(key, (6, 5, 4))
    many = Inner(weights, None if rates is None else jnp.stack([rates] * 6))
    together = jax.vmap(jax.value_and_grad(linear_log_likelihood), (0, None))(many, rows())
    for i, alone in enumerate(weights):
        value, slope = jax.value_and_grad(linear_log_likelihood)(Inner(alone, rates), rows())
        np.testing.assert_allclose(together[0][i], value, rtol=1e-5)
        np.testing.assert_allclose(together[1].weights[i], slope.weights, atol=1e-3)


def test_an_anchor_is_taken_off_and_a_factor_is_kept(case, key):
    _, rates, rows = case
    inner = Inner(jax.random.normal(key, (5, 4)), rates)
    anchor = Inner(inner.weights + 1, rates)
    gain = jax.jit(jax.value_and_grad(lambda x, r: -3 * linear_log_likelihood(x, r)))
    plain = jax.jit(jax.value_and_grad(linear_log_likelihood))
    value, slope = gain(inner, anchored(rows(), anchor))
    (here, expected), (there, _) = plain(inner, rows()), plain(anchor, rows())
    np.testing.assert_allclose(value, -3 * (here - there), atol=5e-3)
    _close(slope, jax.tree.map(lambda x: -3 * x, expected), atol=2e-3, rtol=2e-6)


@pytest.mark.parametrize("rates", [None, RATES], ids=["clean", "channel"])
def test_an_anchor_keeps_differences_exact(rates, choices, key):
    """Against double precision; the plain single-precision difference is far off."""
    data, _ = choices(seed=2, num_obs=40_000, num_llms=5, dim=3)
    anchor = Inner(jax.random.normal(key, (5, 4)), rates)
    rows = anchored(linear_rows(_features, data, clean=rates is None), anchor)
    moved = Inner(anchor.weights + 1e-3 * jax.random.normal(jax.random.key(1), (5, 4)), rates)
    gain = linear_log_likelihood(moved, rows)
    plain = _plain(moved, data) - _plain(anchor, data)
    with jax.enable_x64(True):
        ends = jax.tree.map(lambda x: x.astype(float), (moved, anchor))
        truth = float(_plain(ends[0], data) - _plain(ends[1], data))
    assert abs(gain - truth) < 1e-4
    assert abs(plain - truth) > 10 * abs(gain - truth)
    assert abs(linear_log_likelihood(anchor, rows)) < (1e-12 if rates is None else 1e-4)


def test_extreme_utilities_stay_finite(case):
    _, rates, rows = case
    for scale in (1e4, -1e4):
        inner = Inner(jnp.full((5, 4), scale), rates)
        found = jax.value_and_grad(linear_log_likelihood)(inner, rows())
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_rows_of_weight_zero_are_not_seen(case, key):
    data, rates, rows = case
    broken = ChoiceData(
        jnp.where(data.weight[:, None] > 0, data.context, jnp.nan),
        data.offered,
        data.choice,
        data.weight,
    )
    inner = Inner(jax.random.normal(key, (5, 4)), rates)
    gain = jax.value_and_grad(linear_log_likelihood)
    _close(gain(inner, rows()), gain(inner, rows(broken)), rtol=0)


def test_density_is_the_same_by_every_way(clean, key):
    """Chunk by chunk, row by row, and by NumPyro's own program."""
    from numpyro.infer.util import potential_energy

    model = load_model("disjoint_mnl")
    vector = jax.random.normal(key, (layout(model, sizes_of(clean)).size,))
    form = layout(model, sizes_of(clean))

    def by_numpyro(vector):
        return -potential_energy(program(model), (clean,), {}, form.unravel(vector))

    ways = [
        log_posterior(model, clean),
        log_posterior(model._replace(linear=None), clean),
        by_numpyro,
    ]
    values, slopes = zip(*(jax.value_and_grad(way)(vector) for way in ways), strict=True)
    for value, slope in zip(values[1:], slopes[1:], strict=True):
        np.testing.assert_allclose(value, values[0], rtol=1e-5)
        np.testing.assert_allclose(slope, slopes[0], atol=1e-3)

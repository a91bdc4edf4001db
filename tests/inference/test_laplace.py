"""Laplace's parts: its curvature, its start from a part of many rows, its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.abandonment import abandonment
from cqbayes.models.attempt_mnl import attempt_mnl
from cqbayes.models.disjoint_mnl import disjoint_mnl
from cqbayes.models.misclassified import misclassified

from cqbayes.choice.data import SILENCE, ChoiceData, choice_data
from cqbayes.errors import InputError
from cqbayes.inference import laplace
from cqbayes.inference.infer import infer
from cqbayes.posterior.info import Status
from cqbayes.posterior.log_densities import has_linear_likelihood, log_posterior
from cqbayes.preference import layout, load_model, model_names, sizes_of

LINEAR = [name for name in model_names() if has_linear_likelihood(load_model(name))]


@pytest.mark.parametrize("name", LINEAR)
def test_curvature_is_the_hessian_by_autodiff(name, choices):
    """Also where weights are not linear in the parameters: hierarchies, factors, horseshoes."""
    model = load_model(name)
    data, _ = choices(seed=0, num_obs=300, full=True)
    vector = 0.3 * jax.random.normal(jax.random.key(1), (layout(model, sizes_of(data)).size,))
    found = laplace.surface(model, data)
    general = log_posterior(model._replace(linear=None), data)
    value, slope = jax.jit(found.value_and_slope)(vector)
    expected, expected_slope = jax.jit(jax.value_and_grad(general))(vector)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(slope, expected_slope, atol=2e-3)
    hessian = -jax.jit(jax.hessian(general))(vector)
    scale = np.abs(hessian).max()
    np.testing.assert_allclose(jax.jit(found.curvature)(vector), hessian, atol=1e-4 * scale)


EVERY_CHANNEL = {
    "users leave": abandonment(goes_on=(2.0, 2.0)),
    "acceptances show": abandonment(goes_on=1.0),
    "no acceptance shows": abandonment(goes_on=0.0),
    "what fit takes": misclassified(abandonment(attempt_mnl(), goes_on=(2.0, 2.0))),
    "the other way round": attempt_mnl(abandonment(misclassified(), goes_on=(2.0, 2.0))),
}


def logged(num_obs: int, silent: str) -> ChoiceData:
    """Services of two LLMs, with silence, rows that offer nothing, and rows of weight zero."""
    rng = np.random.default_rng(5)
    offered = rng.random((num_obs, 3)) < 0.5
    choice = [rng.choice([0, SILENCE, *(1 + np.flatnonzero(row))]) for row in offered]
    choice = np.where(offered.any(axis=1), choice, 0)
    if silent == "no acceptance shows":
        choice = np.where(choice > 0, SILENCE, choice)
    weight, attempt = np.arange(num_obs) % 3, 1 + np.arange(num_obs) % 7
    return choice_data(rng.normal(size=(num_obs, 2)), offered, choice, weight, attempt=attempt)


@pytest.mark.parametrize("name", EVERY_CHANNEL)
def test_channels_have_the_same_density_row_by_row(name):
    """Value, slope and curvature in double precision."""
    model = EVERY_CHANNEL[name]
    assert has_linear_likelihood(model)
    with jax.enable_x64(True):
        data = logged(90, name)
        assert not data.offered.any(axis=1).all()
        size = layout(model, sizes_of(data)).size
        vector = jnp.asarray(np.random.default_rng(1).normal(size=size))
        general = log_posterior(model._replace(linear=None), data)
        found = laplace.surface(model, data)
        by_rows = jax.jit(lambda v: (*jax.value_and_grad(general)(v), -jax.hessian(general)(v)))
        by_chunks = jax.jit(lambda v: (*found.value_and_slope(v), found.curvature(v)))
        for ours, expected in zip(by_chunks(vector), by_rows(vector), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_channels_are_fitted_alike_row_by_row():
    model = EVERY_CHANNEL["what fit takes"]
    with jax.enable_x64(True):
        data = logged(400, "some")
        fits = [
            jax.jit(lambda d, m=m: laplace.fit(jax.random.key(0), m, d))(data)
            for m in (model, model._replace(linear=None))
        ]
    (ours, info), (theirs, expected) = fits
    assert int(info.status) == int(expected.status) == Status.OK
    np.testing.assert_allclose(ours.location, theirs.location, atol=1e-6)
    np.testing.assert_allclose(ours.factor, theirs.factor, atol=1e-6)


@pytest.mark.parametrize("at_once", [5 * 200 * 4, 1_000_000])
def test_columns_of_the_curvature_by_autodiff(at_once, choices, monkeypatch):
    """In batches that do not divide them, and all at once."""
    monkeypatch.setattr(laplace, "AT_ONCE", at_once)
    model = load_model("user_mnl")
    data, _ = choices(seed=0, num_obs=200, full=True)
    vector = 0.3 * jax.random.normal(jax.random.key(1), (layout(model, sizes_of(data)).size,))
    found = jax.jit(laplace.surface(model, data).curvature)(vector)
    expected = -jax.jit(jax.hessian(log_posterior(model, data)))(vector)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_obs", "num_llms", "dim", "num_times"),
    [("drift_mnl", 10_000, 5, 16, 26), ("misclassified", 100_000, 10, 32, 1)],
)
def test_memory_of_the_curvature_does_not_grow_with_parameters(
    name, num_obs, num_llms, dim, num_times
):
    """All columns at once would take 8 and 9 GiB here; the matrix itself takes 20 MB at most."""
    model = load_model(name)
    data = choice_data(
        np.zeros((num_obs, dim)),
        np.ones((num_obs, num_llms), bool),
        np.zeros(num_obs, int),
        time=np.arange(num_obs) % num_times,
    )
    vector = jnp.zeros(layout(model, sizes_of(data)).size)
    run = jax.jit(lambda v, d: laplace.surface(model, d).curvature(v))
    used = run.lower(vector, data).compile().memory_analysis()
    if used is None:
        pytest.skip("the compiler does not say")
    assert used.temp_size_in_bytes < 2**29


def test_a_start_from_a_part_leads_to_the_same_mode(choices, monkeypatch):
    data, _ = choices(seed=1, num_obs=5_000)
    model = disjoint_mnl()
    whole, info = laplace.fit(jax.random.key(0), model, data)
    assert laplace._part(data, 16) is None
    monkeypatch.setattr(laplace, "PART", 500)
    part = laplace._part(data, 16)
    assert part is not None
    assert part.num_obs < data.num_obs / 4
    assert float(part.weight.sum()) == pytest.approx(data.num_obs)
    faster, found = laplace.fit(jax.random.key(0), model, data)
    sd = np.linalg.norm(whole.factor, axis=1)
    assert np.abs((faster.location - whole.location) / sd).max() < 0.01
    np.testing.assert_allclose(
        faster.factor @ faster.factor.T, whole.factor @ whole.factor.T, atol=1e-2 * sd.max() ** 2
    )
    assert int(found.status) == int(info.status) == Status.OK
    assert int(found.stats["curvatures"]) < int(info.stats["curvatures"])


def test_many_rows_end_at_the_mode_to_rounding(choices):
    """A decrement below 1e-3 nats at 200,000 rows in single precision, by double precision."""
    data, _ = choices(seed=2, num_obs=200_000)
    model = disjoint_mnl()
    gaussian, info = jax.jit(lambda d: laplace.fit(jax.random.key(0), model, d))(data)
    assert int(info.status) == Status.OK
    x, offered, choice = (np.asarray(a) for a in (data.context, data.offered, data.choice))
    z = np.concatenate([np.ones((len(x), 1)), x], axis=1).astype(np.float64)
    # Which parameter is which weight [llm, feature].
    order = layout(model, sizes_of(data)).params(jnp.arange(gaussian.location.size, dtype=float))
    place = np.column_stack([order["intercept"], order["theta"]]).astype(int)
    w = np.asarray(gaussian.location, np.float64)[place]
    odds = np.exp(z @ w.T) * offered
    share = odds / (1 + odds.sum(axis=1, keepdims=True))
    taken = np.arange(1, 5) == choice[:, None]
    slope = np.zeros(w.size)
    slope[place] = (taken - share).T @ z - w / np.array([1.5, 1, 1, 1]) ** 2
    root = np.asarray(gaussian.factor, np.float64).T @ slope
    assert root @ root < 1e-3


def test_draws_can_be_chosen(choices):
    data, _ = choices(seed=0, num_obs=500)
    posterior, info = infer(
        jax.random.key(0), disjoint_mnl(), data, engine="laplace", num_draws=700, least_ess=100
    )
    assert info.ok
    assert posterior.draws(jax.random.key(0), 1).shape == (1, 700, 16)
    with pytest.raises(InputError, match="max_iterations, num_draws, least_ess"):
        infer(jax.random.key(0), disjoint_mnl(), data, engine="laplace", nothing=1)

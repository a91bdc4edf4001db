"""The online Gaussian's single update, against quadrature and against its own definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from cqbayes.choice.data import ChoiceData, choice_data
from cqbayes.inference import laplace
from cqbayes.inference.infer import infer
from cqbayes.inference.online import _row_moments, fit, update, update_row
from cqbayes.policies import belief
from cqbayes.posterior.info import Status
from cqbayes.posterior.online_gaussian import OnlineGaussian, prior
from cqbayes.preference import Sizes, layout, sizes_of


def _row(context, offered, choice, weight=1.0) -> ChoiceData:
    return ChoiceData(
        jnp.asarray([context], float),
        jnp.asarray([offered]),
        jnp.asarray([choice]),
        jnp.asarray([weight], float),
    )


@pytest.mark.parametrize("choice", [0, 1])
def test_one_llm_one_feature_against_quadrature(disjoint_mnl, choice):
    """Prior N(0, 1), one Bernoulli row: Laplace at the mode, compared with the mode on a grid."""
    model = disjoint_mnl(prior_sd=1.0, intercept=False)
    after = update(prior(model, Sizes(1, 1)), _row([1.0], [True], choice))
    grid = np.linspace(-6, 6, 200_001)
    log_density = -0.5 * grid**2 + (grid if choice else 0) - np.logaddexp(0, grid)
    mode = grid[np.argmax(log_density)]
    share = 1 / (1 + np.exp(-mode))
    assert after.location[0, 0] == pytest.approx(mode, abs=1e-4)
    assert after.factor[0, 0, 0] ** 2 == pytest.approx(1 / (1 + share * (1 - share)), rel=1e-4)


def test_two_llms_against_dense_newton(disjoint_mnl):
    """The moments along z equal those of a dense Laplace step over both LLMs' weights."""
    model = disjoint_mnl(prior_sd=0.8, intercept_sd=1.2)
    begin = prior(model, Sizes(3, 2))
    x, offered, choice = np.array([0.6, -0.8]), np.array([True, False, True]), 3
    z = np.array([1.0, *x])
    after = update_row(
        begin, jnp.asarray(x), jnp.asarray(offered), jnp.array(choice), jnp.array(1.0)
    )
    design = np.kron(np.eye(3), z[None])  # utilities = design @ weights
    covariance = np.kron(np.eye(3), np.diag([1.2, 0.8, 0.8]) ** 2)
    weights = np.zeros(9)
    for _ in range(50):
        odds = np.exp(design @ weights) * offered
        p = odds / (1 + odds.sum())
        slope = design.T @ ((np.arange(3) == choice - 1) - p) - np.linalg.solve(covariance, weights)
        curvature = design.T @ (np.diag(p) - np.outer(p, p)) @ design + np.linalg.inv(covariance)
        weights = weights + np.linalg.solve(curvature, slope)
    np.testing.assert_allclose(after.location, weights.reshape(3, 3), atol=2e-4)
    variance = np.diag(design @ np.linalg.inv(curvature) @ design.T)
    got = np.sum(np.einsum("jkl,k->jl", after.factor, z) ** 2, axis=1)
    np.testing.assert_allclose(got, variance, rtol=1e-3)


def _bisected(mean, variance, taken) -> float:
    """The mode of one utility under ``Normal(mean, variance)`` and one answer, in float64."""
    low, high = mean - variance, mean + variance
    for _ in range(200):
        middle = (low + high) / 2
        rises = (taken - expit(middle)) * variance > middle - mean
        low, high = (middle, high) if rises else (low, middle)
    return low


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("mean", [-12.0, -3.0, 0.0, 5.0])
@pytest.mark.parametrize("variance", [1e-4, 0.3, 30.0, 1e4, 1e8])
def test_a_far_mode_is_reached(mean, variance, taken):
    """However wide the prior: the mode and the curvature there, against bisection."""
    one = (jnp.array([x]) for x in (mean, variance, True, taken))
    gain, shrunk = jax.jit(_row_moments)(*one, jnp.array(1.0))
    mode = _bisected(mean, variance, taken)
    chance = expit(mode)
    expected = 1 / (chance * (1 - chance) + 1 / variance)
    assert abs(mean + variance * float(gain[0]) - mode) < 1e-3 * np.sqrt(expected)
    assert float(shrunk[0]) == pytest.approx(expected, rel=2e-3)


def test_modes_of_whole_assortments_are_stationary():
    """Means to 20, variances from 1e-4 to 1e6, and weights: the definition holds at every mode."""
    rng = np.random.default_rng(0)
    num, slate = 5_000, 3
    mean = rng.uniform(-20, 20, (num, slate)).astype(np.float32)
    variance = (10 ** rng.uniform(-4, 6, (num, slate))).astype(np.float32)
    weight = (10 ** rng.uniform(-1, 1, num)).astype(np.float32)
    shown = rng.random((num, slate)) < 0.8
    taken = shown & (np.arange(slate) == rng.integers(-1, slate, num)[:, None])
    gain, shrunk = jax.jit(jax.vmap(_row_moments))(mean, variance, shown, taken, weight)
    utility = mean + variance.astype(np.float64) * np.asarray(gain)
    scores = np.where(shown, utility, -np.inf)
    top = np.maximum(scores.max(axis=1, keepdims=True), 0)
    odds = np.exp(scores - top)
    share = odds / (np.exp(-top) + odds.sum(axis=1, keepdims=True))
    w = weight[:, None].astype(np.float64)
    slope = w * (taken - share) - (utility - mean) / variance
    curvature = np.einsum("nj,jk->njk", w * share + 1 / variance, np.eye(slate))
    curvature -= w[..., None] * share[:, :, None] * share[:, None, :]
    off = np.einsum("njk,nk->nj", np.linalg.inv(curvature), np.where(shown, slope, 0))
    sd = np.sqrt(np.diagonal(np.linalg.inv(curvature), axis1=1, axis2=2))
    assert np.abs(off / sd)[shown].max() < 5e-3
    np.testing.assert_allclose(np.sqrt(shrunk)[shown], sd[shown], rtol=2e-2)


def test_worthless_approximations_are_told(disjoint_mnl):
    """Separable data and contexts of 1e6, which single precision can only guess at."""
    rng = np.random.default_rng(5)
    context = rng.normal(size=(64, 2))
    data = choice_data(1e6 * context, np.ones((64, 3), bool), np.where(context[:, 0] > 0, 1, 0))
    posterior, info = infer(jax.random.key(0), disjoint_mnl(), data, engine="online")
    assert isinstance(posterior, OnlineGaussian)
    assert not info.ok, str(info)


def test_khat_judges_all_llms_together(disjoint_mnl, choices):
    """Three LLMs at once tie them together in one pass, and blocks do not know it."""
    for slate_size, growth, verdict in ((1, 1.05, Status.OK), (3, 0, Status.POOR_APPROXIMATION)):
        data, _ = choices(seed=0, num_obs=2_000, slate_size=slate_size)
        _, info = infer(jax.random.key(0), disjoint_mnl(), data, engine="online", growth=growth)
        assert info.verdict == verdict, str(info)
        assert info.ok == (float(info.stats["khat"]) < laplace.khat_limit(2_000))


def test_blocks_give_vectors_in_the_models_own_order(disjoint_mnl, choices):
    """Whatever the order of its sites: what the density of all rows is taken of."""
    data, _ = choices(seed=0, num_obs=300)
    blocks, _ = fit(jax.random.key(0), disjoint_mnl(), data)
    noise = jax.random.normal(jax.random.key(1), (500, 16))
    drawn = jax.vmap(blocks.vector_at)(noise)
    sites = jax.vmap(layout(disjoint_mnl(), sizes_of(data)).constrain)(drawn)
    assert np.abs(sites["intercept"].mean(axis=0) - blocks.location[:, 0]).max() < 0.1
    assert np.abs(sites["theta"].mean(axis=0) - blocks.location[:, 1:]).max() < 0.1


def test_rows_that_are_passed_over_are_counted(disjoint_mnl, choices):
    data, _ = choices(seed=0, num_obs=40)
    context = np.asarray(data.context).copy()
    context[[3, 17]] = 1e25  # whose square overflows
    some = choice_data(context, data.offered, data.choice)
    posterior, info = infer(jax.random.key(0), disjoint_mnl(), some, engine="online", growth=0)
    assert int(info.stats["passed_over"]) == 2
    assert info.verdict == Status.NOT_FINITE
    assert np.isfinite(posterior.location).all()
    _, info = infer(jax.random.key(0), disjoint_mnl(), data, engine="online", growth=0)
    assert int(info.stats["passed_over"]) == 0


def test_rows_without_weight_and_llms_not_offered_change_nothing(disjoint_mnl, choices):
    data, _ = choices(seed=0, num_obs=30)
    after = update(prior(disjoint_mnl(), sizes_of(data)), data)
    same = update(after, _row([np.nan] * 3, [True] * 4, 1, weight=0.0))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    partly = update(after, _row([0.1, 0.2, 0.3], [True, False, False, True], 1))
    np.testing.assert_array_equal(partly.location[1:3], after.location[1:3])
    np.testing.assert_array_equal(partly.factor[1:3], after.factor[1:3])
    assert not np.array_equal(partly.location[0], after.location[0])


def test_extreme_rows_stay_finite(disjoint_mnl):
    posterior = prior(disjoint_mnl(prior_sd=100.0), Sizes(2, 2))
    for choice in (0, 1, 2, 1, 0):
        posterior = update(posterior, _row([30.0, -30.0], [True, True], choice))
    assert np.isfinite(posterior.location).all()
    assert np.isfinite(posterior.factor).all()


def test_draws_have_the_stated_moments(disjoint_mnl, choices):
    data, _ = choices(seed=0, num_obs=200)
    posterior, _ = infer(jax.random.key(0), disjoint_mnl(), data, engine="online")
    sites = posterior.sites(jax.random.key(1), 20_000)
    drawn = jnp.concatenate([sites["intercept"][..., None], sites["theta"]], axis=-1)[0]
    sd = np.sqrt(np.einsum("jkl,jkl->jk", posterior.factor, posterior.factor))
    z = (np.mean(drawn, axis=0) - posterior.location) / (sd / np.sqrt(20_000))
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(np.std(drawn, axis=0), sd, rtol=0.03)


def test_spread_scales_draws_about_the_mean(disjoint_mnl, choices):
    data, _ = choices(seed=0, num_obs=100)
    posterior, _ = fit(jax.random.key(0), disjoint_mnl(), data)
    assert isinstance(posterior, OnlineGaussian)
    key = jax.random.key(3)
    none, one, two = (posterior.draw(key, spread)["theta"] for spread in (0.0, 1.0, 2.0))
    np.testing.assert_array_equal(none, posterior.mean()["theta"])
    np.testing.assert_allclose(two - none, 2 * (one - none), rtol=1e-4, atol=1e-6)


def test_a_belief_can_be_relinearised_while_it_learns(disjoint_mnl, choices):
    """At the driver's refits: what is believed is then the Laplace fit to log and history."""
    model = disjoint_mnl()
    log, _ = choices(seed=0, num_obs=300)
    history, _ = choices(seed=0, num_obs=900)
    sizes = sizes_of(log)
    learner = belief.online(model, sizes, log, relinearise=True)
    state = learner.init(jax.random.key(0))
    state = learner.update(3, jax.random.key(0), state, history)
    assert learner.refit is not None
    mended = learner.refit(jax.random.key(0), state, history)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), log, history)
    exact, _ = laplace.fit(jax.random.key(0), model, both)
    centre = model.linear.weights(layout(model, sizes).params(exact.location))
    np.testing.assert_allclose(mended.posterior.location, centre, atol=2e-3)
    assert np.abs(state.posterior.location - centre).max() > 0.05, "it had drifted"
    assert int(mended.failures) == 0
    assert belief.online(model, sizes, log).refit is None

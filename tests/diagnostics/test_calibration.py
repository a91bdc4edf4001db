"""The harness passes what is exact, catches what is wrong, and agrees with simuk."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from cqbayes.models.attempt_mnl import attempt_mnl
from numpyro.infer import Predictive

import cqbayes
from cqbayes.choice.data import SILENCE
from cqbayes.diagnostics.calibration import (
    calibrate,
    figure,
    of_simuk,
    rank_among,
    ranks,
    simuk_sbc,
    uniformity,
)
from cqbayes.diagnostics.collection import adaptive_collection, fixed_collection, random_design
from cqbayes.errors import InputError
from cqbayes.inference.engine import Engine, run_engine
from cqbayes.inference.laplace import fit as laplace_fit
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.posteriors import Draws
from cqbayes.preference import Sizes, layout

SIZES = Sizes(num_llms=2, dim=1)
GOOD, BAD = 1e-3, 1e-6  # p-values: what is right stays above the one, what is wrong below the other

laplace, hmc = (partial(cqbayes.infer, engine=name) for name in ("laplace", "hmc"))
# Without its importance sampling the Laplace fit is cheap; wrong ones are made of it.
gaussian = partial(run_engine, Engine(laplace_fit))


@pytest.fixture(scope="module")
def model(disjoint_mnl):
    return disjoint_mnl()


@pytest.fixture(scope="module")
def design():
    return random_design(jax.random.key(11), 80, SIZES)


@pytest.fixture(scope="module")
def static(design):
    return fixed_collection(design)


@pytest.fixture(scope="module")
def queue():
    return adaptive_collection(SIZES, rounds=80)


@pytest.fixture(scope="module")
def by_gaussian(model, static):
    """Calibration of a function of the Laplace fit."""

    def run(change, model=model, num_replicates=150):
        def fit(key, model, data):
            return change(*gaussian(key, model, data))

        key = jax.random.key(2)
        return calibrate(key, model, static, fit, num_replicates=num_replicates)

    return run


def _pit_of(draws: np.ndarray, truths: np.ndarray) -> xr.Dataset:
    """Of ``draws [replicate, draw]`` and ``truths [replicate]``."""
    keys = jax.random.split(jax.random.key(3), len(truths))
    each = zip(keys, draws, truths, strict=True)
    pit = np.stack([rank_among(k, d[:, None], t[None])[1] for k, d, t in each])
    return xr.Dataset({"pit": (("replicate", "quantity"), pit)}, coords={"quantity": ["f"]})


# Closed forms: no engine, exact posterior draws.


def test_exact_gaussian_posterior_is_uniform():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=1_000)
    seen = rng.normal(truth, 0.5)  # posterior: Normal(0.8 y, 0.2)
    exact = rng.normal(0.8 * seen[:, None], np.sqrt(0.2), (1_000, 39))
    assert uniformity(_pit_of(exact, truth), trusted=False).p_value > GOOD
    wide = rng.normal(0.8 * seen[:, None], 1.2 * np.sqrt(0.2), (1_000, 39))
    found = uniformity(_pit_of(wide, truth), trusted=False)
    assert found.p_value < BAD
    assert found.table[["any", "bias", "width"]].idxmin(axis=1)["f"] == "width"


def test_exact_discrete_posterior_is_uniform_though_draws_tie():
    rng = np.random.default_rng(1)
    prior = np.array([0.2, 0.5, 0.3])
    chance = np.array([0.1, 0.4, 0.8])  # theta in {0, 1, 2},  y ~ Bernoulli(chance[theta])
    truth = rng.choice(3, size=1_000, p=prior)
    seen = rng.random(1_000) < chance[truth]
    weight = prior * np.where(seen[:, None], chance, 1 - chance)
    ends = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    exact = (rng.random((1_000, 39, 1)) > ends[:, None]).sum(axis=2)
    assert uniformity(_pit_of(exact, truth), trusted=False).p_value > GOOD
    from_prior = rng.choice(3, size=(1_000, 39), p=prior)
    # The prior passes: only quantities that depend on the data can tell.
    assert uniformity(_pit_of(from_prior, truth), trusted=False).p_value > GOOD


def test_ranks_count_draws_below_the_truth_and_break_ties_at_random():
    draws = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    rank, pit = rank_among(jax.random.key(0), draws, np.array([1.5, -1.0]))
    np.testing.assert_array_equal(rank, [2, 0])
    assert 2 / 4 < pit[0] < 3 / 4
    assert 0 < pit[1] < 1 / 4
    tied = [rank_among(k, draws, np.full(2, 5.0)) for k in jax.random.split(jax.random.key(1), 200)]
    counts = np.bincount([rank[1] for rank, _ in tied], minlength=4)
    assert (counts > 25).all()
    np.testing.assert_array_equal([rank[0] for rank, _ in tied], 3)


# Right engines pass.


@pytest.mark.slow
def test_laplace_is_calibrated(model, static):
    calibration = calibrate(jax.random.key(1), model, static, laplace)
    found = uniformity(calibration)
    assert found.p_value > GOOD, found.table
    assert found.used + found.left_out == 100
    assert found.left_out <= 10
    assert (calibration["ranked"] == 99).all()


@pytest.mark.slow
@pytest.mark.long
def test_hmc_is_calibrated(model, static):
    calibration = calibrate(jax.random.key(5), model, static, hmc, num_replicates=60)
    found = uniformity(calibration)
    assert found.p_value > GOOD, found.table
    assert found.left_out <= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        pytest.param("nuts", {"num_warmup": 200, "num_draws": 200}, marks=pytest.mark.long),
        ("svi", {}),
        ("online", {}),
    ],
)
def test_other_engines_are_calibrated(model, static, engine, settings):
    """Few replicates, for gross errors, and all fits: some are short, or poor by their k-hat."""
    fit = partial(cqbayes.infer, engine=engine, **settings)
    calibration = calibrate(jax.random.key(7), model, static, fit, num_replicates=24)
    found = uniformity(calibration, trusted=False)
    assert found.p_value > GOOD, found.table
    assert found.used == 24


@pytest.mark.slow
def test_laplace_is_calibrated_for_shared_parameters():
    model, sizes = cqbayes.load_model("shared_mnl"), SIZES._replace(num_attributes=1)
    logs = fixed_collection(random_design(jax.random.key(12), 80, sizes))
    calibration = calibrate(jax.random.key(8), model, logs, laplace, num_replicates=30)
    found = uniformity(calibration)
    assert found.p_value > GOOD, found.table
    assert found.left_out <= 6


def test_laplace_is_calibrated_on_logs_that_acqb_made(model, queue):
    calibration = calibrate(jax.random.key(6), model, queue, laplace, num_replicates=80)
    found = uniformity(calibration)
    assert found.p_value > GOOD, found.table
    assert found.left_out <= 10


@pytest.mark.long
@pytest.mark.slow
def test_simuk_ranks_as_the_harness_does(model, design):
    """NumPyro's NUTS by simuk and whitened HMC by us, on the same truths and choices."""
    sbc = simuk_sbc(jax.random.key(8), model, design, num_replicates=2, num_warmup=200)
    truths, choices = sbc._get_prior_predictive_samples_numpyro()
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape)), design)
    logs = eqx.tree_at(lambda d: d.choice, rows, choices["choice"])
    sbc.run_simulations()
    theirs = of_simuk(jax.random.key(9), sbc)
    ours = ranks(jax.random.key(10), model, truths, logs, hmc)
    sites = ours["quantity"].values[:-1]
    assert set(theirs["quantity"].values) == set(sites)
    ours, theirs = (found["pit"].sel(quantity=sites).values for found in (ours, theirs))
    # Both ranks are binomial around the true posterior probability of being below the truth.
    middle = (ours + theirs) / 2
    z = (ours - theirs) / np.sqrt(middle * (1 - middle) * 2 / 99 + 1 / 100**2)
    assert np.abs(z).max() < 4
    assert np.sqrt(np.mean(z**2)) < 1.6


# Wrong ones do not.


def _spread(factor):
    def change(posterior, info):
        return eqx.tree_at(lambda p: p.factor, posterior, factor * posterior.factor), info

    return change


def _shifted(posterior, info):
    sd = jnp.sqrt(jnp.sum(posterior.factor**2, axis=1))
    return eqx.tree_at(lambda p: p.location, posterior, posterior.location + sd / 2), info


@pytest.mark.parametrize(
    "change", [_spread(1.5), _spread(1 / 1.5), _shifted], ids=["wide", "narrow", "shifted"]
)
def test_wrong_posteriors_are_caught(by_gaussian, change):
    assert uniformity(by_gaussian(change)).p_value < BAD


def test_wrong_contexts_are_caught(model, static):
    def flipped(key, model, data):
        return gaussian(key, model, eqx.tree_at(lambda d: d.context, data, -data.context))

    found = uniformity(calibrate(jax.random.key(4), model, static, flipped, num_replicates=150))
    assert found.p_value < BAD


def test_the_prior_is_caught_by_the_log_likelihood_alone(model, static):
    def ignorant(key, model, data):
        return gaussian(key, model, eqx.tree_at(lambda d: d.weight, data, 0 * data.weight))

    found = uniformity(calibrate(jax.random.key(4), model, static, ignorant, num_replicates=150))
    assert found.p_value < BAD
    assert found.table["p_value"].drop("log_likelihood").min() > GOOD
    assert found.table["p_value"]["log_likelihood"] < BAD


@pytest.mark.slow
def test_retry_and_silence_mixed_up_are_caught(static):
    def mixed_up(key, model, data):
        swapped = jnp.select([data.choice == 0, data.choice == SILENCE], [SILENCE, 0], data.choice)
        return gaussian(key, model, eqx.tree_at(lambda d: d.choice, data, swapped))

    model = cqbayes.load_model("abandonment")
    key = jax.random.key(4)
    right, wrong = (
        uniformity(calibrate(key, model, static, fit, num_replicates=60))
        for fit in (gaussian, mixed_up)
    )
    assert wrong.table["p_value"]["leave"] < BAD
    assert right.p_value > GOOD


# Bookkeeping.


def _autocorrelated(posterior, info, rho=0.9, num=2_000):
    """Draws of the Gaussian that follow one another slowly."""
    rng = np.random.default_rng(int(1e6 * abs(float(posterior.location[0]))))
    noise = rng.normal(size=(num, posterior.location.size))
    for t in range(1, num):
        noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * noise[t]
    vectors = posterior.location + jnp.asarray(noise, jnp.float32) @ posterior.factor.T
    return Draws(vectors[None], posterior.model, posterior.sizes), info


def test_correlated_draws_are_thinned(by_gaussian):
    calibration = by_gaussian(_autocorrelated)
    assert uniformity(calibration).p_value > GOOD
    # An AR(1) chain's effective sample size is about n (1 - rho) / (1 + rho), here 105.
    assert 60 < float(calibration["ess"].mean()) < 110
    np.testing.assert_array_equal(calibration["ranked"], calibration["ess"] // 4)


def test_truths_are_told_as_the_draws_are():
    """Factors of a low-rank model are turned to where they can be compared."""
    model, sizes = cqbayes.load_model("low_rank_mnl"), Sizes(num_llms=2, dim=2)
    form = layout(model, sizes)
    predictive = Predictive(model.prior, num_samples=99)

    @jax.jit
    def drawn(key):
        return jax.vmap(lambda sites: form.canonical(form.unconstrain(sites)))(
            predictive(key, sizes)
        )

    def prior(key, model, data):
        draws = Draws(drawn(key)[None], model, sizes, effective=jnp.array(400.0))
        return draws, InferenceInfo("prior", jnp.array(0), {})

    static = fixed_collection(random_design(jax.random.key(1), 20, sizes))
    found = uniformity(calibrate(jax.random.key(3), model, static, prior))
    assert found.table["p_value"].drop("log_likelihood").min() > GOOD


def test_failed_fits_are_counted_and_kept_apart(by_gaussian):
    def failing(posterior, info):
        failed = posterior.location[0] > 0
        worthless = jnp.where(posterior.location[1] > 1, jnp.nan, posterior.location)
        status = jnp.where(failed, Status.POOR_MIXING, Status.OK)
        posterior = eqx.tree_at(lambda p: p.location, posterior, worthless)
        return posterior, InferenceInfo("failing", status, {})

    calibration = by_gaussian(failing, num_replicates=40)
    status = calibration["status"].values
    nothing = np.isnan(calibration["pit"].values).all(axis=1)
    assert (np.isnan(calibration["pit"].values).any(axis=1) == nothing).all()
    assert set(status) == {Status.OK, Status.POOR_MIXING, Status.NOT_FINITE}
    assert (status[nothing] != Status.OK).all()
    trusted, all_of_them = uniformity(calibration), uniformity(calibration, trusted=False)
    assert trusted.used == (status == Status.OK).sum()
    assert all_of_them.used == (~nothing).sum()
    for found in (trusted, all_of_them):
        assert found.used + found.left_out == 40
    with pytest.raises(InputError, match="none among 5"):
        uniformity(calibration.isel(replicate=np.flatnonzero(status != Status.OK)[:5]))


def test_quantities_are_named_and_drawn_and_the_key_decides(model, static):
    one, two = (
        calibrate(jax.random.key(2), model, static, gaussian, num_replicates=20) for _ in range(2)
    )
    xr.testing.assert_identical(one, two)
    sites = ["intercept[0]", "intercept[1]", "theta[0, 0]", "theta[1, 0]"]
    assert list(one["quantity"].values) == [*sites, "log_likelihood"]
    assert len(figure(one).axes) >= 5


def test_adaptive_logs_are_the_policys():
    """Services of the queue, with the attributes of the LLMs; idle rounds have weight zero."""
    model = cqbayes.load_model("shared_mnl")
    attributes = jax.random.normal(jax.random.key(0), (2, 3))
    queue = adaptive_collection(SIZES._replace(num_attributes=3), rounds=60, attributes=attributes)
    truths = Predictive(model.prior, num_samples=50)(jax.random.key(0), queue.sizes)
    logs = queue.collect(jax.random.key(1), model, truths)
    assert logs.choice.shape == (50, 60)
    assert (logs.attributes == attributes).all()
    busy = logs.weight > 0
    assert not busy.all()
    offered = logs.offered.sum(axis=-1)
    assert (offered[busy] >= 1).all()
    assert (offered[~busy] == 0).all()
    worse = truths | {"intercept": truths["intercept"] - 5}
    others = queue.collect(jax.random.key(1), model, worse)
    # The same arrivals and luck, but users who hardly take anything.
    assert 3 * (others.choice > 0).sum() < (logs.choice > 0).sum()
    assert others.weight.sum() > logs.weight.sum()


@pytest.mark.long
def test_users_of_the_queue_get_tired_as_their_model_says():
    """Attempts from the second on are worth 6 log-odds less or more: they fail, or succeed."""
    model = cqbayes.load_model("attempt_mnl")
    queue = adaptive_collection(SIZES, rounds=150)
    queue.check(model)
    truths = Predictive(model.prior, num_samples=20)(jax.random.key(0), SIZES)
    taken = []
    for step in (-6.0, 6.0):
        shifted = truths | {"step": jnp.zeros_like(truths["step"]).at[:, 0].set(step)}
        del shifted["shift"]  # which follows from the steps
        logs = queue.collect(jax.random.key(1), model, shifted)
        again = (logs.weight > 0) & (logs.attempt > 1)
        assert again.sum() > 100
        taken.append(float((logs.choice > 0)[again].mean()))
        first = (logs.weight > 0) & (logs.attempt == 1)
        assert 0.3 < float((logs.choice > 0)[first].mean()) < 0.9
    assert taken[0] < 0.1
    assert taken[1] > 0.9


@pytest.mark.parametrize(
    ("name", "says"), [("user_mnl", "depends on user"), ("abandonment", "clean logs")]
)
def test_models_that_the_queue_cannot_show(name, says):
    with pytest.raises(InputError, match=says):
        calibrate(jax.random.key(0), cqbayes.load_model(name), adaptive_collection(SIZES), gaussian)


def test_models_on_top_of_one_that_hides_choices_are_refused_too():
    with pytest.raises(InputError, match="clean logs"):
        adaptive_collection(SIZES).check(attempt_mnl(base=cqbayes.load_model("abandonment")))


def test_designs_that_have_no_distribution(design):
    with pytest.raises(InputError, match="weights of 0 and 1"):
        fixed_collection(eqx.tree_at(lambda d: d.weight, design, design.weight / 2))


def test_designs_without_a_needed_column(static):
    with pytest.raises(InputError, match="column user"):
        calibrate(jax.random.key(0), cqbayes.load_model("user_mnl"), static, gaussian)

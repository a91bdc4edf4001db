"""Users who leave: the density by hand, and a bias where silence is thrown away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.abandonment import abandonment
from recovery import (
    arrays,
    assert_density,
    assert_recovered,
    deviations,
    disjoint_prior,
    draw,
    draws,
    linear_utilities,
    log_likelihood,
    log_shares,
    named_dims,
    normal,
    probability,
    services,
)
from reference import disjoint_draws
from scipy import stats
from scipy.special import expit

from cqbayes.choice.data import SILENCE, choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer, load_engine

NUM_LLMS, DIM, LEAVES = 3, 2, 0.4


def seen(shares, leaves, goes_on):
    """Log-probabilities of a retry, of every LLM and of silence, from those of choices."""
    chance = np.exp(shares)
    silent = leaves * chance[:, 0] + (1 - goes_on) * chance[:, 1:].sum(axis=1)
    columns = [(1 - leaves) * chance[:, :1], goes_on * chance[:, 1:], silent[:, None]]
    with np.errstate(divide="ignore"):
        return np.log(np.concatenate(columns, axis=1))


@pytest.mark.parametrize("goes_on", [1.0, 0.3, (3.0, 2.0)])
def test_density_is_the_one_by_hand(goes_on):
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = disjoint_prior(sites) + probability(stats.beta(2, 5), sites["leaves"])
        shown = goes_on
        if isinstance(goes_on, tuple):
            prior += probability(stats.beta(*goes_on), sites["goes_on"])
            shown = expit(sites["goes_on"])
        shares = log_shares(linear_utilities(sites, context), offered)
        return prior + log_likelihood(seen(shares, expit(sites["leaves"]), shown), choice)

    model = abandonment(leaves=(2.0, 5.0), goes_on=goes_on)
    assert_density(model, by_hand, silent=5)


def test_density_of_an_angle_is_the_one_by_hand():
    """The site is the angle less pi / 6."""

    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        angle = sites["turned"] + np.pi / 6
        prior = disjoint_prior(sites) + normal(angle, 0, 0.6)
        shares = log_shares(linear_utilities(sites, context), offered)
        return prior + log_likelihood(seen(shares, np.sin(angle) ** 2, 0.3), choice)

    assert_density(abandonment(leaves=0.6, goes_on=0.3), by_hand, silent=5)


@jax.jit
def fit_with_angle(data):
    model = abandonment(leaves=0.6, goes_on=(1.0, 1.0))
    return load_engine("laplace").fit(jax.random.key(0), model, data)


@pytest.mark.parametrize("leaves", [0.0, 0.5])
def test_an_angle_is_found_on_either_side(leaves):
    """Also that nobody leaves; searches do not stay where angle and minus angle meet."""
    rng = np.random.default_rng(7)
    context, offered = services(rng, 1_000, 2, 1, 1)
    truth = {"intercept": np.array([1.5, -0.5]), "theta": np.zeros((2, 1))}
    shares = log_shares(linear_utilities(truth, context), offered)
    column = draw(rng, seen(shares, leaves, 0.6))
    data = choice_data(context, offered, np.where(column == 3, SILENCE, column))
    gaussian, info = fit_with_angle(data)
    assert int(info.status) == 0, str(info)
    found = np.asarray(gaussian.sites(jax.random.key(0), 2_000)["leaves"])
    assert np.quantile(found, 0.002) - 0.03 < leaves < np.quantile(found, 0.998)


def test_nobody_leaves_where_nothing_was_offered():
    """Such a row is certain, and says nothing of who leaves."""
    offered = jnp.zeros((1, 3), bool)
    for leaves in (0.1, 0.9):
        for shown in (1.0, 0.2):
            base = {"intercept": jnp.zeros(3), "theta": jnp.zeros((3, 2))}
            params = {"base": base, "leaves": leaves, "goes_on": shown}
            law = abandonment().outcome(params, jnp.zeros((1, 3)), offered)
            np.testing.assert_allclose(jnp.exp(law.log_probs), [[1, 0, 0, 0, 0]], atol=1e-6)


@pytest.fixture(scope="module")
def world():
    """Base parameters from the prior."""
    rng = np.random.default_rng(18)
    truth = {
        "intercept": 1.5 * rng.normal(size=NUM_LLMS),
        "theta": rng.normal(size=(NUM_LLMS, DIM)),
        "leaves": np.asarray(LEAVES),
    }
    context, offered = services(rng, 1_500, NUM_LLMS, DIM, 1)
    shares = log_shares(linear_utilities(truth, context), offered)
    column = draw(rng, seen(shares, LEAVES, 1.0))
    return truth, context, offered, np.where(column > NUM_LLMS, SILENCE, column)


@pytest.mark.slow
def test_recovery_and_the_bias_of_throwing_silence_away(world):
    truth, context, offered, choice = world
    data = choice_data(context, offered, choice)
    posterior, info = infer(jax.random.key(0), abandonment(), data, engine="laplace")
    assert info.ok, str(info)
    assert_recovered(deviations(draws(posterior), truth))
    heard = choice != SILENCE
    kept = choice_data(context[heard], offered[heard], choice[heard])
    weights = disjoint_draws(kept, num_draws=2_000)
    z = deviations({"intercept": weights[..., 0]}, {"intercept": truth["intercept"]})
    print("standardised bias without it:", z.round(1))
    assert np.sqrt(np.mean(z**2)) > 3
    assert z.min() > 0, "who is thought to have taken more than they did"
    assert named_dims(posterior) == {
        "intercept": ("llm",),
        "theta": ("llm", "feature"),
        "leaves": (),
    }


def test_silence_needs_this_model(world, disjoint_mnl):
    _, context, offered, choice = world
    data = choice_data(context, offered, choice)
    with pytest.raises(InputError, match="wrap the model in abandonment"):
        infer(jax.random.key(0), disjoint_mnl(), data, engine="laplace")


@pytest.mark.parametrize("goes_on", [-0.1, 1.5])
def test_what_is_no_probability(goes_on):
    with pytest.raises(InputError, match=f"a probability from 0 to 1 .* got {goes_on}"):
        abandonment(goes_on=goes_on)

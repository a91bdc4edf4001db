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
    probability,
    services,
)
from reference import disjoint_draws
from scipy import stats
from scipy.special import expit

from cqbayes.choice.data import SILENCE, choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM, LEAVE = 3, 2, 0.4


def seen(shares, leave, acknowledged):
    """Log-probabilities of a retry, of every LLM and of silence, from those of choices."""
    chance = np.exp(shares)
    silent = leave * chance[:, 0] + (1 - acknowledged) * chance[:, 1:].sum(axis=1)
    columns = [(1 - leave) * chance[:, :1], acknowledged * chance[:, 1:], silent[:, None]]
    with np.errstate(divide="ignore"):
        return np.log(np.concatenate(columns, axis=1))


@pytest.mark.parametrize("acknowledged", [1.0, 0.3, (3.0, 2.0)])
def test_density_is_the_one_by_hand(acknowledged):
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = disjoint_prior(sites) + probability(stats.beta(2, 5), sites["leave"])
        shown = acknowledged
        if isinstance(acknowledged, tuple):
            prior += probability(stats.beta(*acknowledged), sites["acknowledged"])
            shown = expit(sites["acknowledged"])
        shares = log_shares(linear_utilities(sites, context), offered)
        return prior + log_likelihood(seen(shares, expit(sites["leave"]), shown), choice)

    model = abandonment(leave=(2.0, 5.0), acknowledged=acknowledged)
    assert_density(model, by_hand, silent=5)


def test_nobody_leaves_where_nothing_was_offered():
    """Such a row is certain, and says nothing of who leaves."""
    offered = jnp.zeros((1, 3), bool)
    for leave in (0.1, 0.9):
        for shown in (1.0, 0.2):
            base = {"intercept": jnp.zeros(3), "theta": jnp.zeros((3, 2))}
            params = {"base": base, "leave": leave, "acknowledged": shown}
            law = abandonment().outcome(params, jnp.zeros((1, 3)), offered)
            np.testing.assert_allclose(jnp.exp(law.log_probs), [[1, 0, 0, 0, 0]], atol=1e-6)


@pytest.fixture(scope="module")
def world():
    """Base parameters from the prior."""
    rng = np.random.default_rng(18)
    truth = {
        "intercept": 1.5 * rng.normal(size=NUM_LLMS),
        "theta": rng.normal(size=(NUM_LLMS, DIM)),
        "leave": np.asarray(LEAVE),
    }
    context, offered = services(rng, 1_500, NUM_LLMS, DIM, 1)
    shares = log_shares(linear_utilities(truth, context), offered)
    column = draw(rng, seen(shares, LEAVE, 1.0))
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
        "leave": (),
    }


def test_silence_needs_this_model(world, disjoint_mnl):
    _, context, offered, choice = world
    data = choice_data(context, offered, choice)
    with pytest.raises(InputError, match="wrap the model in abandonment"):
        infer(jax.random.key(0), disjoint_mnl(), data, engine="laplace")


@pytest.mark.parametrize("acknowledged", [-0.1, 1.5])
def test_what_is_no_probability(acknowledged):
    with pytest.raises(InputError, match=f"a probability from 0 to 1 .* got {acknowledged}"):
        abandonment(acknowledged=acknowledged)

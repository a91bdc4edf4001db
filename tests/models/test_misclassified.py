"""Inferred retrials: the density by hand, and the bias of taking them at face value."""

import jax
import numpy as np
import pytest
from cqbayes.models.misclassified import misclassified
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

from cqbayes.choice.data import choice_data
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 3, 2
SENSITIVITY, SPECIFICITY = 0.75, 0.93


def seen(shares, offered, sensitivity, specificity):
    """Log-probabilities of what is inferred, from those of choices."""
    retry, taken = np.exp(shares[:, :1]), np.exp(shares[:, 1:])
    spread = offered / offered.sum(axis=1, keepdims=True)
    columns = [
        sensitivity * retry + (1 - specificity) * taken.sum(axis=1, keepdims=True),
        specificity * taken + (1 - sensitivity) * retry * spread,
    ]
    with np.errstate(divide="ignore"):
        return np.log(np.concatenate(columns, axis=1))


def test_density_is_the_one_by_hand():
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = disjoint_prior(sites) + probability(stats.beta(6, 3), sites["recognised"])
        prior += probability(stats.beta(9, 2), sites["specificity"])
        shares = log_shares(linear_utilities(sites, context), offered)
        recognised, specificity = expit(sites["recognised"]), expit(sites["specificity"])
        sensitivity = 1 - specificity * (1 - recognised)
        return prior + log_likelihood(seen(shares, offered, sensitivity, specificity), choice)

    assert_density(misclassified(recognised=(6.0, 3.0), specificity=(9.0, 2.0)), by_hand)


@pytest.fixture(scope="module")
def world():
    """Base parameters from a prior twice as wide in slopes: easy and hopeless queries."""
    rng = np.random.default_rng(19)
    truth = {
        "intercept": 1.5 * rng.normal(size=NUM_LLMS),
        "theta": 2.0 * rng.normal(size=(NUM_LLMS, DIM)),
        "sensitivity": np.asarray(SENSITIVITY),
        "specificity": np.asarray(SPECIFICITY),
    }
    context, offered = services(rng, 1_200, NUM_LLMS, DIM, 2)
    shares = log_shares(linear_utilities(truth, context), offered)
    choice = draw(rng, seen(shares, offered, SENSITIVITY, SPECIFICITY))
    return truth, choice_data(context, offered, choice)


@pytest.mark.slow
@pytest.mark.long
def test_recovery_and_the_bias_of_taking_inferred_retrials_at_face_value(world, disjoint_mnl):
    truth, data = world
    model = misclassified(disjoint_mnl(prior_sd=2.0))
    posterior, info = infer(jax.random.key(0), model, data, num_warmup=200, num_draws=150)
    print(info)
    assert float(info.stats["rhat"]) < 1.05
    found = draws(posterior)
    print({name: found[name].mean().round(3) for name in ("sensitivity", "specificity")})
    assert_recovered(deviations(found, truth))
    weights = disjoint_draws(data, num_draws=2_000, prior_sd=2.0)
    plain = {"intercept": weights[..., 0], "theta": weights[..., 1:]}
    z = deviations(plain, {name: truth[name] for name in plain})
    print("standardised bias without it:", z.round(1))
    assert np.sqrt(np.mean(z**2)) > 3
    assert named_dims(posterior) == {
        "intercept": ("llm",),
        "theta": ("llm", "feature"),
        "recognised": (),
        "sensitivity": (),
        "specificity": (),
    }

"""Shared MNL: its density by hand, recovery, and an LLM that was never offered."""

import jax
import numpy as np
import pytest
from cqbayes.models.shared_mnl import shared_mnl
from recovery import (
    arrays,
    assert_better,
    assert_density,
    assert_recovered,
    deviations,
    disjoint_log_shares,
    draw,
    draws,
    log_likelihood,
    log_shares,
    named_dims,
    normal,
    predicted,
    services,
)

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 6, 3


def utilities(sites, context, attributes):
    """``[..., obs, llm]`` for sites with any leading dimensions."""
    common = sites["intercept"][..., None] + np.einsum("...k,nk->...n", sites["beta"], context)
    slope = np.einsum("...mk,nk->...nm", sites["interaction"], context)
    slope = slope + sites["gamma"][..., None, :]
    return common[..., None] + np.einsum("...nm,jm->...nj", slope, attributes)


def test_density_is_the_one_by_hand():
    attributes = np.random.default_rng(0).normal(size=(4, 2))

    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = normal(sites["intercept"], 0, 1.2) + normal(sites["beta"], 0, 0.7)
        prior += normal(sites["gamma"], 0, 0.9) + normal(sites["interaction"], 0, 0.4)
        shares = log_shares(utilities(sites, context, attributes), offered)
        return prior + log_likelihood(shares, choice)

    model = shared_mnl(prior_sd=0.7, intercept_sd=1.2, attribute_sd=0.9, interaction_sd=0.4)
    assert_density(model, by_hand, attributes=attributes)


@pytest.fixture(scope="module")
def world():
    """Truth from the prior; the last LLM is offered in fresh rows only."""
    rng = np.random.default_rng(11)
    attributes = rng.normal(size=(NUM_LLMS, 2))
    truth = {
        "intercept": 1.5 * rng.normal(),
        "beta": rng.normal(size=DIM),
        "gamma": rng.normal(size=2),
        "interaction": rng.normal(size=(2, DIM)),
    }
    truth = {name: np.asarray(value) for name, value in truth.items()}

    def rows(num_obs, num_offered):
        context, offered = services(rng, num_obs, num_offered, DIM, 2)
        offered = np.pad(offered, [(0, 0), (0, NUM_LLMS - num_offered)])
        choice = draw(rng, log_shares(utilities(truth, context, attributes), offered))
        return context, offered, choice

    return attributes, truth, rows(600, NUM_LLMS - 1), rows(400, NUM_LLMS)


@pytest.mark.long
def test_recovery_and_an_llm_that_was_never_offered(world):
    attributes, truth, old, (context, offered, choice) = world
    data = choice_data(*old, attributes=attributes)
    posterior, info = infer(jax.random.key(0), shared_mnl(), data, engine="laplace")
    assert info.ok, str(info)
    found = draws(posterior)
    assert_recovered(deviations(found, truth))

    ours = log_shares(utilities(found, context, attributes), offered)
    theirs = disjoint_log_shares(data, context, offered)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    assert named_dims(posterior) == {
        "intercept": (),
        "beta": ("feature",),
        "gamma": ("attribute",),
        "interaction": ("attribute", "feature"),
    }


def test_attributes_are_asked_for(choices):
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match="shared_mnl: expected data with the column attributes"):
        infer(jax.random.key(0), shared_mnl(), data)

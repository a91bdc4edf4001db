"""Disjoint MNL: its density by hand, recovery, and what it does not know of LLMs never offered."""

import jax
import numpy as np
import pytest
from cqbayes.models.disjoint_mnl import disjoint_mnl
from recovery import (
    arrays,
    assert_density,
    assert_recovered,
    deviations,
    draw,
    draws,
    linear_utilities,
    log_likelihood,
    log_shares,
    named_dims,
    normal,
    services,
)

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 4, 3


@pytest.mark.parametrize("intercept", [True, False])
def test_density_is_the_one_by_hand(intercept):
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = normal(sites["theta"], 0, 0.7)
        if intercept:
            prior += normal(sites["intercept"], 0, 1.2)
        else:
            sites = sites | {"intercept": np.zeros(4)}
        shares = log_shares(linear_utilities(sites, context), offered)
        return prior + log_likelihood(shares, choice)

    model = disjoint_mnl(prior_sd=0.7, intercept_sd=1.2, intercept=intercept)
    assert_density(model, by_hand)


def test_intercepts_may_have_a_level_in_common():
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = normal(sites["level"], 0, 1.8)
        prior += normal(sites["intercept"], np.asarray(sites["level"])[..., None], 1.2)
        prior += normal(sites["theta"], 0, 0.7)
        shares = log_shares(linear_utilities(sites, context), offered)
        return prior + log_likelihood(shares, choice)

    model = disjoint_mnl(prior_sd=0.7, intercept_sd=1.2, level_sd=1.8)
    assert_density(model, by_hand)
    assert model.linear is not None
    assert model.linear.prior_sd is None, "its intercepts are not independent"
    with pytest.raises(InputError, match="expected level_sd to be a positive number, got 0"):
        disjoint_mnl(level_sd=0.0)


def test_recovery_of_a_truth_from_the_prior():
    """The last LLM is never offered: nothing is learnt of it, and the others are recovered."""
    rng = np.random.default_rng(11)
    truth = {
        "intercept": 1.5 * rng.normal(size=NUM_LLMS),
        "theta": rng.normal(size=(NUM_LLMS, DIM)),
    }
    context, offered = services(rng, 2_000, NUM_LLMS, DIM, 2)
    offered[:, -1] = False
    choice = draw(rng, log_shares(linear_utilities(truth, context), offered))
    data = choice_data(context, offered, choice)
    posterior, info = infer(jax.random.key(0), disjoint_mnl(), data, engine="laplace")
    assert info.ok, str(info)
    found = draws(posterior)
    known = {name: values[:, :-1] for name, values in found.items()}
    assert_recovered(deviations(known, {name: value[:-1] for name, value in truth.items()}))
    assert known["theta"].std(axis=0).max() < 0.5
    error = 4 / np.sqrt(2 * float(posterior.effective))
    np.testing.assert_allclose(found["theta"][:, -1].std(axis=0), 1, rtol=error)
    np.testing.assert_allclose(found["intercept"][:, -1].std(), 1.5, rtol=error)
    assert named_dims(posterior) == {"intercept": ("llm",), "theta": ("llm", "feature")}

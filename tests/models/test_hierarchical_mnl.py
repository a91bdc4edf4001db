"""Hierarchical MNL: both forms of its density by hand, recovery, and what a new LLM starts with."""

import jax
import numpy as np
import pytest
from cqbayes.models.hierarchical_mnl import hierarchical_mnl
from recovery import (
    arrays,
    assert_better,
    assert_density,
    assert_recovered,
    deviations,
    disjoint_log_shares,
    draw,
    draws,
    linear_utilities,
    log_likelihood,
    log_shares,
    named_dims,
    normal,
    positive,
    predicted,
    services,
    thinned,
)
from scipy import stats

from cqbayes.choice.data import choice_data
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 12, 3


@pytest.mark.parametrize("centred", [False, True])
def test_density_is_the_one_by_hand(centred):
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        spread = stats.halfnorm(scale=0.8)
        prior = normal(sites["intercept_mu"], 0, 1.2) + normal(sites["theta_mu"], 0, 0.7)
        prior += positive(spread, sites["intercept_tau"]) + positive(spread, sites["theta_tau"])
        own = {}
        for name in ("intercept", "theta"):
            mean, sd = sites[f"{name}_mu"], np.exp(sites[f"{name}_tau"])
            if centred:
                own[name] = sites[name]
                prior += normal(own[name], mean, sd)
            else:
                own[name] = mean + sd * sites[f"{name}_decentered"]
                prior += normal(sites[f"{name}_decentered"], 0, 1)
        shares = log_shares(linear_utilities(own, context), offered)
        return prior + log_likelihood(shares, choice)

    model = hierarchical_mnl(prior_sd=0.7, intercept_sd=1.2, spread_sd=0.8, centred=centred)
    assert_density(model, by_hand)


@pytest.fixture(scope="module")
def world():
    """A population that is unlike the vague prior; the last LLM is offered in fresh rows only."""
    rng = np.random.default_rng(12)
    mean, sd = rng.normal(size=1 + DIM), np.array([0.5, 0.3, 0.3, 0.3])
    own = mean + sd * rng.normal(size=(NUM_LLMS, 1 + DIM))
    truth = {
        "intercept": own[:, 0],
        "theta": own[:, 1:],
        "intercept_mu": mean[0],
        "theta_mu": mean[1:],
        "intercept_tau": sd[0],
        "theta_tau": sd[1:],
    }

    def rows(num_obs, num_offered):
        context, offered = services(rng, num_obs, num_offered, DIM, 2)
        offered = np.pad(offered, [(0, 0), (0, NUM_LLMS - num_offered)])
        choice = draw(rng, log_shares(linear_utilities(truth, context), offered))
        return context, offered, choice

    return truth, rows(500, NUM_LLMS - 1), rows(1_000, NUM_LLMS)


@pytest.mark.slow
@pytest.mark.long
def test_recovery_and_what_a_new_llm_starts_with(world):
    truth, old, (context, offered, choice) = world
    data = choice_data(*old)
    posterior, info = infer(
        jax.random.key(0), hierarchical_mnl(), data, num_warmup=300, num_draws=300
    )
    print(info)
    assert float(info.stats["rhat"]) < 1.03
    found = draws(posterior)
    assert_recovered(deviations(found, truth))

    # The last LLM has the population's distribution: its mean, and its spread with the mean's own.
    new, mean, spread = found["theta"][:, -1], found["theta_mu"], found["theta_tau"]
    informed = np.sqrt(mean.var(axis=0) + (spread**2).mean(axis=0))
    error = 4 * informed / np.sqrt(float(info.stats["ess"]))
    assert (np.abs(new.mean(axis=0) - mean.mean(axis=0)) < error).all()
    np.testing.assert_allclose(new.std(axis=0), informed, rtol=0.25)
    assert (new.std(axis=0) < 0.7).all(), "not the vague prior, whose standard deviation is 1"

    ours = log_shares(linear_utilities(thinned(found), context), offered)
    theirs = disjoint_log_shares(data, context, offered)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    slopes = ("llm", "feature")
    assert named_dims(posterior) == {
        "intercept_mu": (),
        "intercept_tau": (),
        "theta_mu": ("feature",),
        "theta_tau": ("feature",),
        "intercept": ("llm",),
        "intercept_decentered": ("llm",),
        "theta": slopes,
        "theta_decentered": slopes,
    }

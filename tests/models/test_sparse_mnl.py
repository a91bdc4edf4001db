"""Sparse MNL: its density by hand, and recovery of a few slopes among many that do not matter."""

import jax
import numpy as np
import pytest
from cqbayes.models.sparse_mnl import sparse_mnl
from recovery import (
    arrays,
    assert_better,
    assert_density,
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
    thinned,
)
from scipy import stats

from cqbayes.choice.data import choice_data
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 3, 24


def test_density_is_the_one_by_hand():
    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = positive(stats.halfcauchy(scale=0.3), sites["global"])
        prior += positive(stats.invgamma(1.5, scale=1.5 * 1.1**2), sites["slab_square"])
        prior += positive(stats.halfcauchy(), sites["local"])
        prior += normal(sites["theta_raw"], 0, 1) + normal(sites["intercept"], 0, 1.2)
        tau, local = np.exp(sites["global"]), np.exp(sites["local"])
        square = np.exp(sites["slab_square"])
        shrunk = np.sqrt(square * local**2 / (square + tau**2 * local**2))  # lambda tilde
        own = {"intercept": sites["intercept"], "theta": tau * shrunk * sites["theta_raw"]}
        shares = log_shares(linear_utilities(own, context), offered)
        return prior + log_likelihood(shares, choice)

    model = sparse_mnl(global_scale=0.3, slab_sd=1.1, slab_df=3.0, intercept_sd=1.2)
    assert_density(model, by_hand)


@pytest.fixture(scope="module")
def world():
    """Two slopes of each LLM matter; coordinates of the contexts have unit variance."""
    rng = np.random.default_rng(14)
    truth = {"intercept": rng.normal(size=NUM_LLMS), "theta": np.zeros((NUM_LLMS, DIM))}
    for slopes in truth["theta"]:
        slopes[rng.permutation(DIM)[:2]] = 1.5 * rng.choice([-1, 1], size=2)

    def rows(num_obs):
        context = rng.normal(size=(num_obs, DIM))
        offered = np.ones((num_obs, NUM_LLMS), bool)
        choice = draw(rng, log_shares(linear_utilities(truth, context), offered))
        return context, offered, choice

    return truth, rows(300), rows(500)


@pytest.mark.slow
@pytest.mark.long
def test_recovery_of_the_slopes_that_matter(world):
    truth, old, (context, offered, choice) = world
    data = choice_data(*old)
    model = sparse_mnl(global_scale=0.02)  # 6 / (72 - 6) * 2 / sqrt(300) is 0.01
    posterior, info = infer(
        jax.random.key(0), model, data, num_warmup=300, num_draws=200, target_accept=0.95
    )
    print(info)
    assert float(info.stats["rhat"]) < 1.05
    found = draws(posterior)
    z = deviations(found, truth)
    assert np.abs(z).max() < 4
    mean, matters = found["theta"].mean(axis=0), truth["theta"] != 0
    print(
        "slopes that matter", mean[matters].round(2), "largest other", np.abs(mean[~matters]).max()
    )
    assert (np.sign(mean[matters]) == np.sign(truth["theta"][matters])).all()
    assert np.abs(mean[matters]).min() > 3 * np.abs(mean[~matters]).max()
    ours = log_shares(linear_utilities(thinned(found), context), offered)
    theirs = disjoint_log_shares(data, context, offered)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    slopes = ("llm", "feature")
    assert named_dims(posterior) == {
        "global": (),
        "slab_square": (),
        "intercept": ("llm",),
        "local": slopes,
        "theta_raw": slopes,
        "theta": slopes,
    }

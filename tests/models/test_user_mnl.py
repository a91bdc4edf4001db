"""Random effects of users: the density by hand, recovery, and unknown users."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.drift_mnl import drift_mnl
from cqbayes.models.user_mnl import user_mnl
from recovery import (
    arrays,
    assert_better,
    assert_density,
    assert_recovered,
    deviations,
    disjoint_log_shares,
    disjoint_prior,
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

from cqbayes.choice.data import Situation, choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM, NUM_USERS = 3, 2, 50


def test_density_is_the_one_by_hand():
    user = np.arange(40) % 7

    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = disjoint_prior(sites) + positive(stats.halfnorm(scale=0.6), sites["user_sd"])
        prior += normal(sites["user_raw"], 0, 1)
        effect = np.exp(sites["user_sd"]) * sites["user_raw"][user]
        shares = log_shares(linear_utilities(sites, context) + effect[:, None], offered)
        return prior + log_likelihood(shares, choice)

    assert_density(user_mnl(spread_sd=0.6), by_hand, user=user)


@pytest.fixture(scope="module")
def world():
    """Users of one spread; base parameters from the prior."""
    rng = np.random.default_rng(15)
    truth = {
        "intercept": 1.5 * rng.normal(size=NUM_LLMS),
        "theta": rng.normal(size=(NUM_LLMS, DIM)),
        "user_sd": np.asarray(1.3),
        "user_effect": 1.3 * rng.normal(size=NUM_USERS),
    }

    def rows(num_obs):
        context, offered = services(rng, num_obs, NUM_LLMS, DIM, 2)
        user = rng.integers(0, NUM_USERS, num_obs)
        user[:NUM_USERS] = np.arange(NUM_USERS)
        utility = linear_utilities(truth, context) + truth["user_effect"][user][:, None]
        return context, offered, draw(rng, log_shares(utility, offered)), user

    return truth, rows(600), rows(1_000)


@pytest.mark.slow
def test_recovery_where_a_users_retries_are_correlated(world):
    truth, (*old, user), (context, offered, choice, fresh) = world
    data = choice_data(*old, user=user)
    posterior, info = infer(jax.random.key(0), user_mnl(), data, num_warmup=250, num_draws=200)
    print(info)
    assert float(info.stats["rhat"]) < 1.05
    found = draws(posterior)
    assert_recovered(deviations(found, truth))
    few = thinned(found)
    utility = linear_utilities(few, context) + few["user_effect"][:, fresh][..., None]
    theirs = disjoint_log_shares(data, context, offered)
    assert_better(predicted(log_shares(utility, offered), choice), predicted(theirs, choice))
    assert named_dims(posterior) == {
        "intercept": ("llm",),
        "theta": ("llm", "feature"),
        "user_effect": ("user",),
        "user_raw": ("user",),
        "user_sd": (),
    }


def test_a_user_who_is_not_known_is_the_median_one():
    base = {"intercept": jnp.zeros(3), "theta": jnp.zeros((3, 2))}
    params = {"base": base, "user_effect": jnp.array([1.0, 2.0])}
    at = Situation(jnp.ones(2), user=jnp.array(7))
    assert user_mnl().utility(params, at).tolist() == [0, 0, 0]


def test_needs_add_up(choices):
    assert user_mnl(drift_mnl()).needs == ("time", "user")
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match="user_mnl: expected data with the column user"):
        infer(jax.random.key(0), user_mnl(), data)

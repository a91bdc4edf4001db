"""Effects of the attempt number: the density by hand, and recovery from queries that come back."""

import jax
import numpy as np
import pytest
from cqbayes.models.attempt_mnl import attempt_mnl
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
    predicted,
    services,
    thinned,
)

from cqbayes.choice.data import choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM = 3, 2


def shifted(sites, context, attempt, levels):
    """Utilities with the shift of every attempt, 0 for the first."""
    first = np.zeros((*sites["shift"].shape[:-1], 1))
    shift = np.concatenate([first, sites["shift"]], axis=-1)
    return linear_utilities(sites, context) + shift[..., np.minimum(attempt, levels) - 1, None]


def test_density_is_the_one_by_hand():
    attempt = 1 + np.arange(40) % 6

    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior = disjoint_prior(sites) + normal(sites["step"], 0, 0.4)
        sites = sites | {"shift": np.cumsum(sites["step"])}
        shares = log_shares(shifted(sites, context, attempt, levels=4), offered)
        return prior + log_likelihood(shares, choice)

    assert_density(attempt_mnl(step_sd=0.4, levels=4), by_hand, attempt=attempt)


@pytest.fixture(scope="module")
def world():
    """Queries are served until an answer is taken, ten times at most, by users who tire."""
    rng = np.random.default_rng(16)
    truth = {
        "intercept": 0.5 * rng.normal(size=NUM_LLMS),
        "theta": rng.normal(size=(NUM_LLMS, DIM)),
        "shift": np.array([-0.6, -1.0, -1.3, -1.5]),
    }

    def rows(num_queries):
        context, _ = services(rng, num_queries, NUM_LLMS, DIM, 1)
        log = []
        for attempt in range(1, 11):
            _, offered = services(rng, len(context), NUM_LLMS, DIM, 1)
            number = np.full(len(context), attempt)
            shares = log_shares(shifted(truth, context, number, levels=5), offered)
            choice = draw(rng, shares)
            log.append((context, offered, choice, number))
            context = context[choice == 0]
        return tuple(np.concatenate(column) for column in zip(*log, strict=True))

    return truth, rows(500), rows(500)


def test_recovery_from_queries_that_come_back(world):
    truth, (*old, attempt), (context, offered, choice, fresh) = world
    data = choice_data(*old, attempt=attempt)
    posterior, info = infer(jax.random.key(0), attempt_mnl(), data, engine="laplace")
    assert info.ok, str(info)
    found = draws(posterior)
    assert_recovered(deviations(found, truth))
    assert (found["shift"][:, -1] < 0).all(), "users who tire are seen to"
    ours = log_shares(shifted(thinned(found), context, fresh, levels=5), offered)
    theirs = disjoint_log_shares(data, context, offered)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    assert named_dims(posterior) == {
        "intercept": ("llm",),
        "theta": ("llm", "feature"),
        "step": ("attempt",),
        "shift": ("attempt",),
    }


def test_the_attempt_is_asked_for(choices):
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match="attempt_mnl: expected data with the column attempt"):
        infer(jax.random.key(0), attempt_mnl(), data)

"""Drifting MNL: the density by hand, recovery of the path, and the present predicted better."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.drift_mnl import drift_mnl
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

from cqbayes.choice.data import Situation, choice_data
from cqbayes.errors import InputError
from cqbayes.inference.infer import infer

NUM_LLMS, DIM, NUM_TIMES = 3, 2, 6


def path_utilities(paths, context, time):
    """``[obs, llm]`` with every row's own block of ``intercept`` and ``theta``."""
    slope = np.einsum("njk,nk->nj", paths["theta"][time], context)
    return paths["intercept"][time] + slope


def test_density_is_the_one_by_hand():
    time = np.arange(40) * 4 // 40

    def by_hand(sites, data):
        context, offered, choice = arrays(data)
        prior, paths = 0.0, {}
        for name, start_sd in (("intercept", 1.2), ("theta", 0.7)):
            step, drift = sites[f"{name}_step"], np.exp(sites[f"{name}_drift"])
            prior += normal(step, 0, 1)
            prior += positive(stats.halfnorm(scale=0.4), sites[f"{name}_drift"])
            path = [start_sd * step[0]]
            for each in step[1:]:
                path.append(path[-1] + drift * each)
            paths[name] = np.array(path)
        shares = log_shares(path_utilities(paths, context, time), offered)
        return prior + log_likelihood(shares, choice)

    assert_density(drift_mnl(0.7, 1.2, drift_sd=0.4), by_hand, time=time)


@pytest.fixture(scope="module")
def world():
    """A truth that moves by about as much in a block as LLMs differ to begin with."""
    rng = np.random.default_rng(17)
    sizes = {"intercept": (NUM_TIMES, NUM_LLMS), "theta": (NUM_TIMES, NUM_LLMS, DIM)}
    truth = {}
    for name, shape in sizes.items():
        step = 0.6 * rng.normal(size=shape)
        step[0] = rng.normal(size=shape[1:])
        truth[name] = np.cumsum(step, axis=0)
        truth[f"{name}_drift"] = np.asarray(0.6)

    def rows(time):
        context, offered = services(rng, time.size, NUM_LLMS, DIM, 2)
        utility = path_utilities(truth, context, time)
        return context, offered, draw(rng, log_shares(utility, offered))

    time = np.repeat(np.arange(NUM_TIMES), 150)
    return truth, time, rows(time), rows(np.full(1_000, NUM_TIMES - 1))


@pytest.mark.slow
@pytest.mark.long
def test_recovery_of_the_path_and_a_better_view_of_the_present(world):
    truth, time, old, (context, offered, choice) = world
    data = choice_data(*old, time=time)
    model = drift_mnl(intercept_sd=1.0, drift_sd=0.6)
    posterior, info = infer(jax.random.key(0), model, data, num_warmup=250, num_draws=200)
    print(info)
    assert float(info.stats["rhat"]) < 1.05
    found = draws(posterior)
    assert_recovered(deviations(found, truth))
    now = {name: thinned(found)[name][:, -1] for name in ("intercept", "theta")}
    ours = log_shares(linear_utilities(now, context), offered)
    theirs = disjoint_log_shares(data, context, offered, intercept_sd=1.0)
    assert_better(predicted(ours, choice), predicted(theirs, choice))
    slopes = ("time", "llm", "feature")
    assert named_dims(posterior) == {
        "intercept_drift": (),
        "theta_drift": (),
        "intercept_step": ("time", "llm"),
        "intercept": ("time", "llm"),
        "theta_step": slopes,
        "theta": slopes,
    }


def test_a_block_to_come_is_like_the_last():
    params = {"theta": jnp.zeros((2, 3, 2)), "intercept": jnp.arange(6.0).reshape(2, 3)}
    assert drift_mnl().utility(params, Situation(jnp.ones(2), time=jnp.array(9))).tolist() == [
        3,
        4,
        5,
    ]


def test_the_time_is_asked_for(choices):
    data, _ = choices(seed=0, num_obs=10)
    with pytest.raises(InputError, match="drift_mnl: expected data with the column time"):
        infer(jax.random.key(0), drift_mnl(), data)

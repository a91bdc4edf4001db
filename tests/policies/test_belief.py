"""ACQB with the posterior of every engine: it learns, whoever tells it what is likely."""

import jax
import numpy as np
import pytest

from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.inference.infer import load_engine
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.refit import doubling, every, refit
from cqbayes.preference import Sizes
from cqbayes.simulation.loop import simulate

SIZES, SEEDS, ROUNDS = Sizes(4, 3), 4, 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "schedule", "settings"),
    [
        ("laplace", every(100), {}),
        pytest.param(
            "nuts",
            doubling(100),
            {"num_warmup": 150, "num_draws": 100, "num_chains": 1},
            marks=pytest.mark.long,
        ),
        pytest.param(
            "hmc", doubling(100), {"num_chains": 2, "num_draws": 100}, marks=pytest.mark.long
        ),
        pytest.param("svi", doubling(100), {}, marks=pytest.mark.long),
        ("online", None, {}),
    ],
)
def test_acqb_learns_with_every_posterior(engine, schedule, settings, disjoint_mnl, key):
    population = synthetic(jax.random.key(6), 4, 3)
    env = retrial_queue(population, 0.4)
    if engine == "online":
        policy = acqb(belief.online(disjoint_mnl(), SIZES), 4)
    else:
        kept = belief.refitted(load_engine(engine).fit, disjoint_mnl(), SIZES, **settings)
        policy = refit(acqb(kept, 4), schedule)
    trace = simulate(key, policy, env, ROUNDS, num_seeds=SEEDS)
    blind = simulate(key, random(4), env, ROUNDS, num_seeds=SEEDS).metrics
    lost = (trace.metrics.best_for_query - trace.metrics.value).sum(axis=1)
    at_random = (blind.best_for_query - blind.value).sum(axis=1)
    saved = at_random - lost
    assert saved.mean() > 3 * saved.std(ddof=1) / np.sqrt(SEEDS)
    assert (trace.policy_state.failures == 0).all()


def test_best_of_several_draws_is_optimistic(disjoint_mnl, key):
    """It explores more than one draw does: more LLMs are tried in the first rounds."""
    env = retrial_queue(synthetic(jax.random.key(6), 4, 3), 0.4)
    how = belief.online(disjoint_mnl(), SIZES)
    one, many = (
        simulate(key, acqb(how, 4, c=0.0, best_of=best_of), env, 300, num_seeds=16).metrics
        for best_of in (1, 8)
    )
    first = [metrics.offered[:, :40].sum(axis=1) for metrics in (one, many)]

    def evenness(counts: np.ndarray) -> float:
        shares = counts / counts.sum(axis=1, keepdims=True)
        return float(-(shares * np.log(np.maximum(shares, 1e-9))).sum(axis=1).mean())

    assert evenness(first[1]) > evenness(first[0])
    assert not np.array_equal(one.offered, many.offered)

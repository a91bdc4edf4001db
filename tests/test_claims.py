"""ACQB on synthetic truth: what the paper claims, at a size that runs in the tests.

5 LLMs, d = 5, contexts uniform in [-1, 1]^5 scaled into the unit ball, theta uniform in [-2, 2],
slack 0.1, prior sd 1, c = 0.5, alpha = 1; 20,000 rounds; 64 seeds with a truth each, and 16 in the
smallest case. Simulated.
"""

from itertools import pairwise

import equinox as eqx
import jax
import numpy as np
import pytest

from cqbayes.environments.load import capacity
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.fifo import fifo
from cqbayes.preference import Sizes
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.regret import growth_exponent, over_seeds, regrets

pytestmark = pytest.mark.slow

NUM_LLMS, DIM, ROUNDS, SLACK = 5, 5, 20_000, 0.1


CASES = {"K=1, 16 seeds": (1, 16), "K=1": (1, 64), "K=2": (2, 64)}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def runs(request, disjoint_mnl):
    slate_size, seeds = request.param
    truth_key, run_key = jax.random.split(jax.random.key(2602))
    population = eqx.filter_vmap(lambda k: synthetic(k, NUM_LLMS, DIM))(
        jax.random.split(truth_key, seeds)
    )
    env = eqx.filter_vmap(lambda p: retrial_queue(p, capacity(p, slate_size) - SLACK, slate_size))(
        population
    )
    model = disjoint_mnl(prior_sd=1.0, intercept=False)
    learner = acqb(
        belief.online(model, Sizes(NUM_LLMS, DIM)), NUM_LLMS, slate_size, c=0.5, alpha=1.0
    )
    knowing = eqx.filter_vmap(lambda p: oracle(p, slate_size))(population)
    policies = {
        "oracle": (knowing, True),
        "acqb": (learner, False),
        "fifo_acqb": (fifo(learner), False),
    }
    traces = {
        name: simulate(
            run_key,
            policy,
            env,
            ROUNDS,
            num_seeds=seeds,
            policy_per_seed=per_seed,
            env_per_seed=True,
        )
        for name, (policy, per_seed) in policies.items()
    }
    return slate_size, env, run_key, regrets(traces)


def _window(curves, start: int, stop: int):
    gap = curves["queue_length_regret"].sel(policy="acqb")
    return over_seeds(gap.isel(round=slice(start, stop)).mean("round").values)


def test_queue_length_regret_ends_small(runs):
    slate_size, _, _, curves = runs
    last = _window(curves, ROUNDS - ROUNDS // 10, ROUNDS)
    print(f"K={slate_size}: queue-length regret in the last tenth {last}")
    assert last.value <= {1: 0.15, 2: 0.05}[slate_size]


def test_queue_length_regret_falls_at_every_quadrupling(runs):
    """Means over the rounds from t to 2 t, at t = 500, 2000, 8000."""
    slate_size, _, _, curves = runs
    windows = [_window(curves, t, 2 * t) for t in (500, 2_000, 8_000)]
    print(f"K={slate_size}: " + ", ".join(map(str, windows)))
    for earlier, later in pairwise(windows):
        assert later.value < earlier.value + 2 * np.hypot(earlier.error, later.error)
    assert windows[-1].value < windows[0].value / 4


def test_routing_regret_and_its_growth(runs):
    slate_size, _, _, curves = runs
    routing = curves["routing_regret"].sel(policy="acqb").values
    total, growth = over_seeds(routing[:, -1]), growth_exponent(routing)
    print(f"K={slate_size}: routing regret {total}, exponent {growth}")
    assert total.value <= {1: 230, 2: 65}[slate_size]
    assert growth.high <= 0.5


def test_scheduling_beats_first_in_first_out_on_matching_regret(runs):
    _, _, _, curves = runs
    final = curves["matching_regret"].isel(round=-1)
    paired = over_seeds((final.sel(policy="fifo_acqb") - final.sel(policy="acqb")).values)
    assert paired.value > 4 * paired.error


def test_random_diverges(runs):
    """Its queue grows in proportion to t, at a rate that is positive in every seed."""
    slate_size, env, key, curves = runs
    queue = simulate(
        key,
        random(NUM_LLMS, slate_size),
        env,
        3_000,
        num_seeds=curves.sizes["seed"],
        env_per_seed=True,
        room=1_024,
    ).metrics.queue_length
    growth = over_seeds((queue[:, -1] - queue[:, 1_499]) / 1_500)
    print(f"K={slate_size}: random's queue grows by {growth} a round")
    assert growth.value > 8 * growth.error
    if slate_size == 1:
        assert (queue[:, -1] > queue[:, 1_499]).all()

"""Learning policies in a simulated queue learn to route; those that see no context do not.

5 LLMs, d = 5, contexts in the unit ball, theta uniform in [-2, 2], slack 0.1; 2,000 rounds, 12
seeds with a truth each. Simulated.
"""

import equinox as eqx
import jax
import numpy as np
import pytest

from cqbayes.environments.load import capacity
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.policies import belief
from cqbayes.policies.setup import Setup, load_policy
from cqbayes.preference import Sizes
from cqbayes.simulation.loop import simulate

NUM_LLMS, DIM, SEEDS, ROUNDS = 5, 5, 12, 2_000

# At most this share of random's routing regret. Classes of queries are a coarse grid, and routing
# by them is wrong for many of their members.
SHARES = {
    "linucb": 0.3,
    "ucb_mnl": 0.3,
    "cqb_opt": 0.3,
    "cqb_eps": 0.4,
    "cqb_eta": 0.4,
    "epsilon_greedy": 0.4,
    "greedy": 0.6,
    "ucb_qmb": 0.85,
    "ts_qmb": 0.8,
}


@pytest.fixture(scope="module", params=[1, 2], ids=["K=1", "K=2"])
def regret(request, disjoint_mnl):
    slate_size = request.param
    keys = jax.random.split(jax.random.key(7), SEEDS)
    truth = eqx.filter_vmap(lambda key: synthetic(key, NUM_LLMS, DIM))(keys)
    env = eqx.filter_vmap(lambda p: retrial_queue(p, capacity(p, slate_size) - 0.1, slate_size))(
        truth
    )
    sizes = Sizes(NUM_LLMS, DIM)
    setup = Setup(sizes, slate_size, belief.online(disjoint_mnl(), sizes), horizon=ROUNDS)

    def run(name: str) -> np.ndarray:
        policy = load_policy(name, setup)
        metrics = simulate(
            jax.random.key(3), policy, env, ROUNDS, num_seeds=SEEDS, env_per_seed=True, room=512
        ).metrics
        return (metrics.best_for_query - metrics.departure_probability).sum(axis=1)

    return run, run("random")


@pytest.mark.slow
@pytest.mark.long
def test_contextual_policies_learn_to_route(regret):
    run, at_random = regret
    for name, share in SHARES.items():
        saved = share * at_random - run(name)
        assert saved.mean() > 2 * saved.std(ddof=1) / np.sqrt(SEEDS), name

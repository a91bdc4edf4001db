"""The decomposition of queue-length regret: an identity, and what its parts must be."""

import jax
import numpy as np
import pytest

from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Rules
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies import belief
from cqbayes.policies.acqb import acqb
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.switch import switch
from cqbayes.preference import Sizes
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.policy_switching import _error, policy_switching

ROUNDS, SEEDS = 40, 64


@pytest.fixture(scope="module")
def world():
    population = synthetic(jax.random.key(1))
    return oracle(population), retrial_queue(population, 0.45)


def test_contributions_add_up_to_the_regret_of_every_seed(world, disjoint_mnl, key):
    knows, env = world
    learner = acqb(belief.online(disjoint_mnl(), Sizes(5, 5)), 5)
    parts = policy_switching(key, learner, knows, env, ROUNDS, SEEDS)
    ours, best = (
        simulate(key, policy, env, ROUNDS, num_seeds=SEEDS).metrics for policy in (learner, knows)
    )
    gap = ours.queue_length[:, -1] - best.queue_length[:, -1]
    np.testing.assert_array_equal(parts["contribution"].sum("round"), gap)
    lost = (ours.best_waiting - ours.value).mean(axis=0)[:-1]
    np.testing.assert_allclose(parts["mismatch"], lost, atol=1e-6)
    product = (parts["mismatch"] * parts["effect"]).sum("round")
    assert float(product) == pytest.approx(gap.mean(), abs=1e-6)


def test_late_mismatch_is_felt_in_full_and_early_mismatch_forgotten(world, key):
    """The last decision's effect is 1: what was lost in departures waits at the end."""
    knows, env = world
    parts = policy_switching(key, random(5), knows, env, ROUNDS, 512)
    effect, each = parts["effect"].values, parts["contribution"].std("seed").values / np.sqrt(512)
    mismatch = parts["mismatch"].values
    assert abs(effect[-1] - 1) < 4 * each[-1] / mismatch[-1]
    assert abs(effect[-1] - 1) < 4 * parts["effect_error"].values[-1]
    early, late = effect[1:9].mean(), effect[-8:].mean()
    assert early < late


def test_switch_is_one_policy_and_then_the_other(world, key):
    knows, env = world
    for after, alone in ((0, knows), (10**6, random(5))):
        mixed = simulate(key, switch(random(5), knows, after), env, 100).metrics
        plain = simulate(key, alone, env, 100).metrics
        for a, b in zip(mixed, plain, strict=True):
            np.testing.assert_array_equal(a, b)


def test_bad_input(world, key):
    knows, env = world
    with pytest.raises(InputError, match="switching: expected 2 to 2000 rounds"):
        policy_switching(key, knows, knows, env, 1, 2)
    two = retrial_queue(synthetic(key), 0.4, rules=Rules(services=2))
    with pytest.raises(InputError, match="of one service"):
        policy_switching(key, knows, knows, two, 10, 2)


def test_the_error_of_the_effect_is_the_spread_of_many_studies():
    """Ratios of means of 2,000 made-up studies; and none from a single seed."""
    rng = np.random.default_rng(0)
    lost = rng.gamma(2, 0.2, size=(2_000, 48, 1))
    contribution = 0.7 * lost + rng.normal(scale=0.5, size=lost.shape)
    effects = contribution.sum(axis=1) / lost.sum(axis=1)
    errors = [_error(*study) for study in zip(contribution, lost, strict=True)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(effects.std(), rel=0.08)
    assert np.isnan(_error(np.ones((1, 2), int), np.ones((1, 2)))).all()
    nothing = np.zeros((3, 2))
    assert np.isnan(_error(nothing, nothing)).all()

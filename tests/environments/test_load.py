"""Loads that nobody can carry are announced, and run only when that is wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.environments.load import capacity, check_stable
from cqbayes.environments.rules import Rules, rules_of
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies import Setup
from cqbayes.simulation_study import Traffic, belief_by_name, world_by_name
from cqbayes.study import run_policies


def test_stable_loads_pass_in_silence():
    assert check_stable(jnp.array([0.3, 0.4]), jnp.array([0.5, 0.5])) is None


def test_the_worst_world_is_named():
    with pytest.raises(InputError, match=r"unstable load: 0.6 arrivals a round.* 0.5; .*allow it"):
        check_stable(jnp.array([0.3, 0.6]), jnp.array([0.5, 0.5]))
    said = check_stable(jnp.array([0.3, 0.6]), jnp.array([0.5, 0.5]), allowed=True)
    assert said == (
        "unstable load: 0.6 arrivals a round, and even the oracle serves no more than 0.5; "
        "every queue grows without end"
    )


def test_worlds_by_name_are_checked():
    key, settings = jax.random.key(0), {"num_llms": 3, "dim": 2}

    def world(**more):
        return world_by_name(key, "synthetic", 2, 1, 0.99, 0.1, settings, **more)[0]

    with pytest.raises(InputError, match="unstable load"):
        world()
    assert "unstable load" in str(world(unstable=True).warning)
    assert world(queue={"rules": {"services": 3}}).warning is None, "three times the capacity"
    assert world(queue={"rules": {"patience": 20.0}}).warning is None, "the impatient leave"


@pytest.mark.parametrize("data", ["synthetic", "paretobandit3"])
def test_worlds_with_a_trace(data):
    """Arrivals at the wanted rate, of every seed its own, and compared with what can be carried."""
    times = np.cumsum(np.random.default_rng(0).lognormal(sigma=1.0, size=4_000))
    settings = {"num_llms": 3, "dim": 2} if data == "synthetic" else {"dim": 4}

    def world(slack, **more):
        traffic = Traffic(times, 3_000)
        given = (jax.random.key(0), data, 3, 1, None, slack, settings)
        return world_by_name(*given, traffic=traffic, **more)

    found, sizes, rate = world(0.1)
    assert found.warning is None
    counts = np.asarray(found.arrivals.counts)
    assert counts.shape == (3, 3_000)
    assert counts.max() <= found.arrivals.most
    assert len(np.unique(counts, axis=0)) == 3
    assert counts.mean() == pytest.approx(rate, rel=0.1)
    with pytest.raises(InputError, match="unstable load"):
        world(-0.05)
    assert "unstable load" in str(world(-0.05, unstable=True)[0].warning)

    setup = Setup(sizes, 1, belief_by_name("online", sizes))
    both = {"oracle": ("oracle", setup), "random": ("random", setup)}
    results = run_policies(jax.random.key(1), found, both, 200, 3)
    arrived = counts[:, :200].sum(axis=1)
    left = arrived - results.performance["departures"].sel(policy="oracle")
    assert (left >= results.curves["queue_length"].sel(policy="oracle")[:, -1] - 1).all()
    assert (left < arrived).all()


def test_capacity_of_several_services():
    population = synthetic(jax.random.key(3))
    np.testing.assert_allclose(capacity(population, services=2), 2 * capacity(population))


def test_rules_from_a_table():
    assert rules_of({"patience": 5, "services": 2}) == Rules(patience=5, services=2)
    for settings, message in (
        ({"wings": 1}, "rules: expected one of services, preemptive, .*, got 'wings'"),
        ({"services": 1.5}, "rules: expected services to be a int, got 1.5"),
        ({"preemptive": 1}, "rules: expected preemptive to be a bool, got 1"),
        ({"services": True}, "rules: expected services to be a int, got True"),
        ({"services": 0}, "services: expected at least one a round"),
    ):
        with pytest.raises(InputError, match=message):
            rules_of(settings)

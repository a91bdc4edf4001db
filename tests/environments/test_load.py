"""Loads that nobody can carry are announced, and run only when that is wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.environments.load import capacity, check_stable
from cqbayes.environments.rules import Rules, rules_of
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError


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
        ({"services": 0}, "services: expected at least one in a round"),
    ):
        with pytest.raises(InputError, match=message):
            rules_of(settings)

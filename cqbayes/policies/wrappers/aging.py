"""Aging: a wrapper that lets a query's chances grow with the time that it has waited.

::

    priority_i += rate wait_i          log-odds, added to those of v by which queries are compared

Without aging, a policy that serves the most promising query first lets the least promising starve.
Aging does not bound waits, but in a stable queue every query is served at last.
"""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy


def aging(policy: Policy, rate: float) -> Policy:
    """The same policy, with ``rate`` times its wait added to every query's priority.

    Args:
        policy: a policy that compares queries. Policies that serve the oldest first, or pick at
            random, ignore priorities.
        rate: log-odds per round waited, not negative; 0 changes nothing.

    Raises:
        InputError: for a rate that is negative or not finite.
    """
    if not 0 <= rate < float("inf"):
        raise InputError(f"aging: expected a rate of at least 0 log-odds a round, got {rate!r}")
    return policy._replace(select=Partial(_select, jnp.asarray(rate, float), policy.select))


def _select(rate: Array, inner: Any, key: PRNGKeyArray, state: Any, seen: Observation) -> Action:
    aged = rate * seen.wait
    return inner(
        key, state, seen._replace(priority=aged if seen.priority is None else seen.priority + aged)
    )

"""First in, first out: a wrapper that lets any policy route, but only the oldest query.

The wrapper separates what a policy gains by routing from what it gains by scheduling.
"""

from typing import Any

from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from cqbayes.environments.environment import Action, Observation
from cqbayes.policies.policy import Policy, oldest


def fifo(policy: Policy) -> Policy:
    """The same policy, shown only the oldest query, so that it chooses only the assortment."""
    return policy._replace(select=Partial(_select, policy.select))


def _select(inner: Any, key: PRNGKeyArray, state: Any, seen: Observation) -> Action:
    place = oldest(seen)
    return inner(key, state, seen.alone(place))._replace(query=place)

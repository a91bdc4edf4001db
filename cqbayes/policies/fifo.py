"""First in, first out: a wrapper that lets any policy route, but only the oldest query.

It separates what a policy gains by routing from what it gains by scheduling.
"""

from typing import Any

from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from cqbayes.policies import Action, Observation, Policy, oldest


def fifo(policy: Policy) -> Policy:
    """Shows ``policy`` only the oldest query, so that it can only choose the assortment."""
    return policy._replace(select=Partial(_select, policy.select))


def _select(inner: Any, key: PRNGKeyArray, state: Any, seen: Observation) -> Action:
    place = oldest(seen)
    return inner(key, state, seen.alone(place))._replace(query=place)

"""First in, first out: a wrapper that lets any policy route, but only the oldest query.

It separates what a policy gains by routing from what it gains by scheduling.
"""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray

from cqbayes.policies import Action, Observation, Policy


def oldest(seen: Observation) -> Int[Array, ""]:
    """Place of the query that has waited longest."""
    return jnp.argmax(jnp.where(seen.waiting, seen.wait, -1))


def fifo(policy: Policy) -> Policy:
    """Shows ``policy`` only the oldest query, so that it can only choose the assortment."""
    return policy._replace(select=Partial(_select, policy.select))


def _select(inner: Any, key: PRNGKeyArray, state: Any, seen: Observation) -> Action:
    place = oldest(seen)
    alone = seen._replace(
        queue_length=jnp.minimum(seen.queue_length, 1),
        context=seen.context[place][None],
        identity=seen.identity[place][None],
        wait=seen.wait[place][None],
        attempts=seen.attempts[place][None],
    )
    return inner(key, state, alone)._replace(query=place)

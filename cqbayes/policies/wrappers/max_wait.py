"""Longest wait: a wrapper that serves the oldest query once it has waited too long.

::

    some query that can be served has waited more than limit rounds:  only the oldest is seen
    otherwise:                                                        all are

The wrapped policy still chooses the assortment. In a stable queue waits then stay near the limit:
above it by the time that it takes to serve the older queries.
"""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy, oldest


def max_wait(policy: Policy, limit: int) -> Policy:
    """The same policy, shown only the oldest query while it has waited more than ``limit`` rounds.

    Args:
        policy: the policy to wrap.
        limit: rounds, not negative; 0 is first in, first out.

    Raises:
        InputError: for a negative limit.
    """
    if limit < 0:
        raise InputError(f"max_wait: expected a limit of at least 0 rounds, got {limit}")
    return policy._replace(select=Partial(_select, jnp.asarray(limit), policy.select))


def _select(limit: Array, inner: Any, key: PRNGKeyArray, state: Any, seen: Observation) -> Action:
    place = oldest(seen)
    late = seen.waiting[place] & (seen.wait[place] > limit)
    # One evaluation of the rule, in a room of one shape: the oldest stands first, alone or not.
    shown = seen.brought_forward(jnp.where(late, place, 0))
    shown = shown._replace(queue_length=jnp.where(late, 1, seen.queue_length))
    action = inner(key, state, shown)
    return action._replace(query=jnp.where(late, place, action.query))

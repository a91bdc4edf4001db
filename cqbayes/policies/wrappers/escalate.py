"""Escalation: a wrapper that sends queries that were asked again and again to the strongest LLMs.

::

    the query that is picked was served attempts times or more:  S = strongest
    otherwise:                                                   the assortment of the rule
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PRNGKeyArray

from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy


def escalate(policy: Policy, attempts: int, strongest: Bool[Array | np.ndarray, " llm"]) -> Policy:
    """Has a query answered by ``strongest`` once it was served ``attempts`` times in vain.

    Args:
        policy: the policy that picks the query, and its first assortments.
        attempts: services before the escalation, at least 1.
        strongest: the assortment ``[llm]``, no larger than the slate of the queue.

    Raises:
        InputError: for no attempts, or an empty assortment.
    """
    if attempts < 1:
        raise InputError(f"escalate: expected attempts of at least 1, got {attempts}")
    if not np.any(strongest):
        raise InputError("escalate: expected at least one LLM among the strongest, got none")
    chosen = jnp.asarray(strongest)
    return policy._replace(select=Partial(_select, jnp.asarray(attempts), chosen, policy.select))


def _select(
    attempts: Array,
    strongest: Bool[Array, " llm"],
    inner: Any,
    key: PRNGKeyArray,
    state: Any,
    seen: Observation,
) -> Action:
    action = inner(key, state, seen)
    escalated = seen.attempts[action.query] >= attempts
    return action._replace(offered=jnp.where(escalated, strongest, action.offered))

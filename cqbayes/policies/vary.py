"""Variation: a wrapper that draws LLMs at random for queries that were answered in vain.

::

    the query that is picked was served attempts times or more:  S uniform over assortments of K
    otherwise:                                                   the assortment of the rule

A rule that sees the context alone asks the same LLMs about the same query again, and where an LLM
cannot answer a query at all, again in vain: a retry says more of this query than of others like it,
and no model here has a parameter for it. ``analyses/another_llm.py`` measures what that costs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from cqbayes.assortment import check_slate
from cqbayes.errors import InputError
from cqbayes.policies import Action, Observation, Policy, Setup, acqb, random_pair


def vary(policy: Policy, attempts: int, num_llms: int, slate_size: int = 1) -> Policy:
    """Has a query answered by LLMs drawn at random once it was served ``attempts`` times in vain.

    Args:
        policy: what picks the query, and its first assortments.
        attempts: services before that, at least 1.
        num_llms: how many LLMs there are.
        slate_size: most LLMs that answer one query.

    Raises:
        InputError: for no attempts, or a slate that cannot be filled.
    """
    check_slate(slate_size, num_llms)
    if attempts < 1:
        raise InputError(f"vary: expected at least one attempt before, got {attempts}")
    number = jnp.asarray(attempts)
    return policy._replace(select=Partial(_select, number, num_llms, slate_size, policy.select))


def _select(
    attempts: Array,
    num_llms: int,
    slate_size: int,
    inner: Any,
    key: PRNGKeyArray,
    state: Any,
    seen: Observation,
) -> Action:
    inner_key, random_key = jax.random.split(key)
    action = inner(inner_key, state, seen)
    at_random = random_pair(jax.random.uniform(random_key, (1 + num_llms,)), seen, slate_size)
    in_vain = seen.attempts[action.query] >= attempts
    return action._replace(offered=jnp.where(in_vain, at_random.offered, action.offered))


def build(setup: Setup, attempts: int = 2) -> Policy:
    """ACQB, varied."""
    return vary(acqb.build(setup), attempts, setup.sizes.num_llms, setup.slate_size)

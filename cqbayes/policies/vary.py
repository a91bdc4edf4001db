"""Variation: a wrapper that draws LLMs at random for queries that were answered in vain.

::

    the query that is picked was served attempts times or more:  S uniform over assortments of K
    otherwise:                                                   the assortment of the rule

A policy that sees the context alone offers the same LLMs again when a query comes back. Where they
cannot answer this query at all, that is in vain again: a retry says more of this query than of
similar ones, and no model here has a parameter for a single query. ``analyses/another_llm.py``
measures the cost.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from cqbayes.choice.assortments import check_slate
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies import acqb
from cqbayes.policies.policy import Policy, random_pair
from cqbayes.policies.setup import Setup


def vary(policy: Policy, attempts: int, num_llms: int, slate_size: int = 1) -> Policy:
    """Has a query answered by LLMs drawn at random once it was served ``attempts`` times in vain.

    Args:
        policy: the policy that picks the query, and its first assortments.
        attempts: services before the random draw, at least 1.
        num_llms: how many LLMs there are.
        slate_size: maximum number of LLMs that answer one query.

    Raises:
        InputError: for no attempts, or a slate that cannot be filled.
    """
    check_slate(slate_size, num_llms)
    if attempts < 1:
        raise InputError(f"vary: expected attempts of at least 1, got {attempts}")
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
    """ACQB with random LLMs for a query that was served ``attempts`` times in vain."""
    return vary(acqb.build(setup), attempts, setup.sizes.num_llms, setup.slate_size)

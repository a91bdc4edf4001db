"""Context-free Thompson sampling: a Beta per LLM, oldest query first, as gateways ship today.

::

    a_j = 1 + times taken,   b_j = 1 + times offered and not taken
    p~_j ~ Beta(a_j, b_j);  offer the K LLMs of highest w_j p~_j to the oldest query

The policy ignores contexts, so it serves queries in order of arrival. An answer counts as failed
also where the user took another answer of the assortment.

Source: Thompson 1933; Chapelle and Li, An empirical evaluation of Thompson sampling, NIPS 2011
(the Beta(1, 1) prior). The extension to several answers with worths ``w_j`` is ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import best_assortment, checked_offers
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action, Observation
from cqbayes.policies.policy import Policy, oldest
from cqbayes.policies.setup import Setup


class Counts(NamedTuple):
    """How often each LLM's answer was taken, and how often it was offered but not taken."""

    taken: Float[Array, " llm"]
    left: Float[Array, " llm"]


def beta_thompson(
    num_llms: int, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """Serves the oldest query with the LLMs that are best under draws of their success rates.

    Args:
        num_llms: how many LLMs there are.
        slate_size: how many LLMs answer one query.
        values: worth of each LLM's answer, in [0, 1], by which its draw is multiplied.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not in [0, 1].
    """
    values = checked_offers(slate_size, values, num_llms)
    before = Counts(jnp.zeros(num_llms), jnp.zeros(num_llms))
    return Policy(
        init=Partial(_init, before), select=Partial(_select, slate_size, values), update=_update
    )


def _init(before: Counts, key: PRNGKeyArray) -> Counts:
    return before


def _select(
    slate_size: int, values: Array | None, key: PRNGKeyArray, state: Counts, seen: Observation
) -> Action:
    drawn = jax.random.beta(key, 1 + state.taken, 1 + state.left)
    offered, _ = best_assortment(drawn if values is None else drawn * values, slate_size)
    return Action(oldest(seen), offered)


def _update(key: PRNGKeyArray, state: Counts, rows: ChoiceData) -> Counts:
    rows = rows.cleared()
    llms = jnp.arange(rows.num_llms)
    taken = rows.offered & (rows.choice[:, None] - 1 == llms)
    weight = rows.weight[:, None]
    return Counts(
        state.taken + jnp.sum(jnp.where(taken, weight, 0), axis=0),
        state.left + jnp.sum(jnp.where(rows.offered & ~taken, weight, 0), axis=0),
    )


def build(setup: Setup) -> Policy:
    return beta_thompson(setup.sizes.num_llms, setup.slate_size, values=setup.values)

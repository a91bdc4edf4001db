"""LinUCB: per-LLM ridge regression of taken answers, with an upper confidence bound.

::

    V_j = ridge I + sum z z^T,   w_j = V_j^-1 sum y_j z              over the rows that offered j
    argmax_{x, S} sum_{j in S} w_j . z + alpha ||z||_{V_j^-1}
    alpha = 1 + sqrt(log(2 / delta) / 2)

with ``z = (1, x)`` and ``y_j = 1`` where j's answer was taken. LinUCB ignores competition between
the answers of one assortment: an answer counts as failed also where the user took another one.

Source: Li, Chu, Langford and Schapire, A contextual-bandit approach to personalized news article
recommendation, WWW 2010 (the disjoint model); ``alpha`` is theirs. Two extensions are ours: the
policy also picks the query, and it offers several answers by the sum of their bounds.
"""

import math

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies import confidence
from cqbayes.policies.confidence import BoundEstimate
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup


def linucb(
    num_llms: int,
    dim: int,
    slate_size: int = 1,
    *,
    delta: float = 0.05,
    ridge: float = 1.0,
    intercept: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """Serves the query and LLMs whose answers have the highest upper bounds on being taken.

    Args:
        num_llms: how many LLMs there are.
        dim: dimensions of the context.
        slate_size: maximum number of LLMs that answer one query.
        delta: probability with which a bound may fail, in (0, 1).
        ridge: each Gram matrix begins as this number times the identity; 1 in the paper.
        intercept: whether ``z`` begins with a 1.
        values: worth of each LLM's answer, in [0, 1], by which its bound is multiplied.

    Raises:
        InputError: for a ``delta`` outside (0, 1), a ridge that is not positive, a slate that
            cannot be filled, or values other than one in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    confidence.check_positive("linucb", ridge=ridge)
    if not 0 < delta < 1:
        raise InputError(f"linucb: expected delta to be a probability in (0, 1), got {delta!r}")
    alpha = 1 + math.sqrt(math.log(2 / delta) / 2)
    before = confidence.begin(num_llms, dim, ridge, intercept)
    return Policy(
        init=Partial(confidence.start, before),
        select=Partial(_select, slate_size, intercept, jnp.asarray(alpha, float), values),
        update=Partial(_update, slate_size, intercept),
    )


def _select(
    slate_size: int,
    intercept: bool,
    alpha: Array,
    values: Array | None,
    key: PRNGKeyArray,
    state: BoundEstimate,
    seen: Observation,
) -> Action:
    mean, width = confidence.means_and_widths(state, confidence.features(seen.context, intercept))
    return confidence.highest(mean + alpha * width, seen, slate_size, values)


def _update(
    slate_size: int, intercept: bool, key: PRNGKeyArray, state: BoundEstimate, rows: ChoiceData
) -> BoundEstimate:
    return confidence.learn(confidence.ridge, slate_size, intercept, state, rows)


def build(setup: Setup) -> Policy:
    num_llms, dim = setup.sizes.num_llms, setup.sizes.dim
    return linucb(num_llms, dim, setup.slate_size, values=setup.values)

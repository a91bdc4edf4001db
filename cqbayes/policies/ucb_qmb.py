"""UCB-QMB: MaxWeight over query classes with upper confidence bounds on utilities.

::

    V_j <- V_j + kappa/2 z z^T,  w_j <- w_j + V_j^-1 z ([y = j] - p_j)       V_j begins at ridge I
    u_j(x) = w_j . z + beta_t ||z||_{V_j^-1}
    beta_t = scale sqrt(ridge + (n / kappa) log(1 + t K / (n ridge)))
    argmax_{c, S} Q_c v(x_c, S; u),  oldest query of class c first

with ``z = (1, x)`` of n features and ``kappa`` a lower bound of ``p_0 p_j``.

Source: Kim and Oh, Queueing matching bandits with preference feedback, NeurIPS 2024
(arXiv 2410.10098), Algorithm 1: estimate, index and radius, with a ridge of 1. There, the
parameters of a server are learnt from the queries that it serves among those offered; here, those
of an LLM from the answers that users take. Our choices: the classes
(:mod:`cqbayes.policies.maxweight`), the intercept, no projection of estimates onto the unit ball,
and ``scale`` for the constant ``C_1``, for which the paper gives no value.
"""

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action, Observation
from cqbayes.policies import confidence
from cqbayes.policies.confidence import BoundEstimate
from cqbayes.policies.maxweight import checked_centres, heaviest, unit_centres
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup


def ucb_qmb(
    num_llms: int,
    dim: int,
    slate_size: int = 1,
    *,
    centres: Float[Array, "class dim"] | None = None,
    scale: float = 0.05,
    kappa: float = 0.1,
    ridge: float = 1.0,
    intercept: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """The policy UCB-QMB: MaxWeight with optimistic rates.

    Args:
        num_llms: how many LLMs there are.
        dim: dimensions of the context.
        slate_size: maximum number of LLMs that answer one query.
        centres: of the query classes; where absent, eight random directions, always the same.
        scale: factor of the confidence radius, the paper's ``C_1``.
        kappa: lower bound of ``p_0 p_j``; 0.1 is that of one answer with a utility up to +-2.
        ridge: each Gram matrix begins as this number times the identity.
        intercept: whether ``z`` begins with a 1.
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for centres of other dimensions, settings that are not positive, a slate that
            cannot be filled, or values other than one in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    confidence.check_positive("ucb_qmb", kappa=kappa, ridge=ridge)
    chosen = unit_centres(dim) if centres is None else checked_centres("ucb_qmb", centres, dim)
    size = confidence.num_features(dim, intercept)
    radius = matching_radius(scale, size, kappa, ridge, slate_size)
    return Policy(
        init=Partial(confidence.start, confidence.begin(num_llms, dim, ridge, intercept)),
        select=Partial(_select, slate_size, intercept, radius, chosen, values),
        update=Partial(update, slate_size, intercept, confidence.newton(kappa)),
    )


def matching_radius(
    scale: float, size: int, kappa: float, ridge: float, slate_size: int
) -> Partial:
    """The radius ``t -> scale sqrt(ridge + (size / kappa) log(1 + t K / (size ridge)))``."""
    return Partial(
        _matching_radius,
        jnp.asarray(scale, float),
        jnp.asarray(size / kappa, float),
        jnp.asarray(slate_size / size / ridge, float),
        jnp.asarray(ridge, float),
    )


def _matching_radius(
    scale: Array, factor: Array, growth: Array, ridge: Array, t: Array
) -> Float[Array, ""]:
    return scale * jnp.sqrt(ridge + factor * jnp.log1p(growth * t))


def _select(
    slate_size: int,
    intercept: bool,
    radius: Partial,
    centres: Float[Array, "class dim"],
    values: Array | None,
    key: PRNGKeyArray,
    state: BoundEstimate,
    seen: Observation,
) -> Action:
    mean, width = confidence.means_and_widths(state, confidence.features(centres, intercept))
    return heaviest(mean + radius(seen.round) * width, centres, seen, slate_size, values)


def update(
    slate_size: int,
    intercept: bool,
    rule: confidence.Rule,
    key: PRNGKeyArray,
    state: BoundEstimate,
    rows: ChoiceData,
) -> BoundEstimate:
    """The online Newton step, which TS-QMB shares."""
    return confidence.learn(rule, slate_size, intercept, state, rows)


def build(setup: Setup) -> Policy:
    num_llms, dim = setup.sizes.num_llms, setup.sizes.dim
    return ucb_qmb(num_llms, dim, setup.slate_size, values=setup.values)

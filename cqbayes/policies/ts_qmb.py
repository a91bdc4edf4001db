"""TS-QMB: MaxWeight over query classes with optimistic Thompson samples of utilities.

::

    w~_j^(1) .. w~_j^(M) ~ Normal(w_j, beta_t^2 V_j^-1),   u_j(x) = max_m w~_j^(m) . z
    M = ceil(1 - log K / log(1 - 1 / (4 sqrt(e pi))))
    argmax_{c, S} Q_c v(x_c, S; u),  oldest query of class c first

with ``w_j``, ``V_j`` and ``beta_t`` as in :mod:`cqbayes.policies.ucb_qmb`.

Source: Kim and Oh, Queueing matching bandits with preference feedback, NeurIPS 2024
(arXiv 2410.10098), Algorithm 2. There, the formula of ``M`` has the number of server and query
pairs of one round where ours has ``K``: here a round is one query with K answers. ``M`` is 1 for
one answer, 9 for two.
"""

import math

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies import confidence
from cqbayes.policies.confidence import BoundEstimate
from cqbayes.policies.maxweight import checked_centres, heaviest, unit_centres
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.ucb_qmb import matching_radius, update


def ts_qmb(
    num_llms: int,
    dim: int,
    slate_size: int = 1,
    *,
    centres: Float[Array, "class dim"] | None = None,
    scale: float = 0.05,
    kappa: float = 0.1,
    ridge: float = 1.0,
    num_samples: int | None = None,
    intercept: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """The policy TS-QMB: MaxWeight with sampled rates.

    Args:
        num_llms: how many LLMs there are.
        dim: dimensions of the context.
        slate_size: maximum number of LLMs that answer one query, ``K``.
        centres: of the query classes; where absent, eight random directions, always the same.
        scale: factor of the samples' spread, ``C_1`` in the paper.
        kappa: lower bound of ``p_0 p_j``; 0.1 is that of one answer with a utility up to +-2.
        ridge: each Gram matrix begins as this number times the identity.
        num_samples: ``M``; the paper's where absent.
        intercept: whether ``z`` begins with a 1.
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for centres of other dimensions, no samples, settings that are not positive, a
            slate that cannot be filled, or values other than one in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    confidence.check_positive("ts_qmb", kappa=kappa, ridge=ridge)
    if num_samples is not None and num_samples < 1:
        raise InputError(f"ts_qmb: expected at least one sample, got {num_samples}")
    chosen = unit_centres(dim) if centres is None else checked_centres("ts_qmb", centres, dim)
    size = confidence.num_features(dim, intercept)
    radius = matching_radius(scale, size, kappa, ridge, slate_size)
    samples = num_samples or optimistic_samples(slate_size)
    return Policy(
        init=Partial(confidence.start, confidence.begin(num_llms, dim, ridge, intercept)),
        select=Partial(_select, slate_size, intercept, samples, radius, chosen, values),
        update=Partial(update, slate_size, intercept, confidence.newton(kappa)),
    )


def optimistic_samples(slate_size: int) -> int:
    """Number of samples with which all indices are upper bounds, with a fixed probability.

    One sampled index of an assortment is an upper bound with a probability of at least
    ``1 / (4 sqrt(e pi))``.

    Example:
        >>> [optimistic_samples(k) for k in (1, 2, 3)]
        [1, 9, 14]
    """
    return math.ceil(1 - math.log(slate_size) / math.log(1 - 1 / (4 * math.sqrt(math.e * math.pi))))


def _select(
    slate_size: int,
    intercept: bool,
    num_samples: int,
    radius: Partial,
    centres: Float[Array, "class dim"],
    values: Array | None,
    key: PRNGKeyArray,
    state: BoundEstimate,
    seen: Observation,
) -> Action:
    noise = jax.random.normal(key, (num_samples, *state.location.shape))
    spread = radius(seen.round) * jnp.einsum("jkl,mjl->mjk", state.root, noise)
    sampled = state.location + spread
    z = confidence.features(centres, intercept)
    utility = jnp.max(jnp.einsum("ck,mjk->mcj", z, sampled), axis=0)
    return heaviest(utility, centres, seen, slate_size, values)


def build(setup: Setup) -> Policy:
    num_llms, dim = setup.sizes.num_llms, setup.sizes.dim
    return ts_qmb(num_llms, dim, setup.slate_size, values=setup.values)

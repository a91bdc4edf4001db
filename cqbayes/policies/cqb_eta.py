"""CQB-eta-2: random, then optimistic with exploration, then optimistic only; needs the horizon.

::

    t <= tau:                a uniform query, a uniform assortment
    tau < t <= T - C log T:  the same with probability eta, otherwise argmax of CQB-Opt
    T - C log T < t:         argmax of CQB-Opt

    tau = ceil(factor n log(T) N / K)

Exploration improves the estimate but makes queries wait longer. The queue forgets: exploration long
before round T hardly changes how many queries wait at T. So exploration at a constant rate stops
only shortly before the end.

Source: Bae and Lee, Algorithm for contextual queueing bandits with rate-optimal queue length
regret, arXiv 2606.09668. We could read its abstract only, which has the three phases. The orders of
``tau`` and of the cutoff, and all defaults, are our choices: ``eta`` must stay below the slackness,
which is usually 0.1 in these papers; ``C`` is some tens of rounds, after which a queue forgets. See
:mod:`cqbayes.policies.cqb_opt` for the optimistic rule.
"""

import math

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cqbayes.choice.assortments import checked_offers
from cqbayes.errors import InputError
from cqbayes.policies import confidence
from cqbayes.policies.cqb_opt import cqb_opt
from cqbayes.policies.horizon import exploration_rounds, horizon_of
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.explore import explore


def cqb_eta(
    num_llms: int,
    dim: int,
    slate_size: int = 1,
    *,
    horizon: int | None,
    eta: float = 0.05,
    factor: float = 1.0,
    tail: float = 20.0,
    scale: float = 0.1,
    ridge: float = 1.0,
    intercept: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """The policy CQB-eta-2: the three-phase algorithm.

    Args:
        num_llms: how many LLMs there are, ``N``.
        dim: dimensions of the context.
        slate_size: how many LLMs answer one query, ``K``.
        horizon: rounds of the run, ``T``.
        eta: probability of exploring in the second phase, in [0, 1].
        factor: length of the first phase: each LLM has ``factor n log T`` services.
        tail: ``C``: the last phase has ``C log T`` rounds.
        scale, ridge, intercept, values: as in :func:`cqbayes.policies.cqb_opt.cqb_opt`.

    Raises:
        InputError: without a horizon, for an ``eta`` outside [0, 1], a ridge that is not positive,
            a slate that cannot be filled, or values other than one in [0, 1] for each LLM.
    """
    horizon = horizon_of("cqb_eta", horizon)
    values = checked_offers(slate_size, values, num_llms)
    if not 0 <= eta <= 1:
        raise InputError(f"cqb_eta: expected eta to be a probability in [0, 1], got {eta!r}")
    size = confidence.num_features(dim, intercept)
    tau = exploration_rounds(num_llms, size, slate_size, horizon, factor)
    cutoff = horizon - math.ceil(tail * math.log(horizon))
    optimistic = cqb_opt(
        num_llms,
        dim,
        slate_size,
        scale=scale,
        ridge=ridge,
        intercept=intercept,
        values=values,
    )
    return explore(optimistic, three_phases(tau, cutoff, eta), num_llms, slate_size)


def three_phases(tau: int, cutoff: int, eta: float) -> Partial:
    """The schedule ``t -> 1`` up to ``tau``, ``eta`` up to ``cutoff``, and 0 from then on."""
    return Partial(_three_phases, jnp.asarray(tau), jnp.asarray(cutoff), jnp.asarray(eta, float))


def _three_phases(tau: Array, cutoff: Array, eta: Array, t: Array) -> Float[Array, ""]:
    return jnp.where(t <= tau, 1.0, jnp.where(t <= cutoff, eta, 0.0))


def build(setup: Setup) -> Policy:
    return cqb_eta(
        setup.sizes.num_llms,
        setup.sizes.dim,
        setup.slate_size,
        horizon=setup.horizon,
        values=setup.values,
    )

"""CQB-eps: pure exploration first, then optimism with rare exploration; needs the horizon.

::

    t <= tau:  the newest query, the LLMs in turn                tau = ceil(factor n log(T) N / K)
    t >  tau:  with probability T^(-1/2):  a uniform query, a uniform assortment
               otherwise:                  argmax of CQB-Opt

Source: Bae, Kang and Lee, Queue length regret bounds for contextual queueing bandits,
arXiv 2601.19300 (ICLR 2026): both phases, the rate, and ``tau = O(d log T / (sigma_0^4 eps^2))``,
with ``eps`` the slackness and ``sigma_0^2`` the least eigenvalue of the contexts' covariance. We
know them from its abstract and a summary, not from the paper itself. Our choices: ``factor`` stands
for the unknown constants, counted per LLM; the newest query is served where none has just arrived;
LLMs take turns by services, so a round in which nothing waits skips no LLM; later exploration is
uniform over queries; and the choices of :mod:`cqbayes.policies.cqb_opt`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Action, Observation
from cqbayes.policies import confidence
from cqbayes.policies.cqb_opt import Learnt, cqb_opt
from cqbayes.policies.horizon import exploration_rounds, horizon_of
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.explore import constant, explore


class RoundRobin(NamedTuple):
    """What the optimistic rule has learnt, and the number of services so far."""

    learnt: Learnt
    services: Int[Array, ""]


def cqb_eps(
    num_llms: int,
    dim: int,
    slate_size: int = 1,
    *,
    horizon: int | None,
    factor: float = 1.0,
    scale: float = 0.1,
    ridge: float = 1.0,
    intercept: bool = True,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """The policy CQB-eps: the two-phase algorithm for stochastic contexts.

    Args:
        num_llms: how many LLMs there are, ``N``.
        dim: dimensions of the context.
        slate_size: how many LLMs answer one query, ``K``.
        horizon: rounds of the run, ``T``.
        factor: length of pure exploration: each LLM has ``factor n log T`` services.
        scale, ridge, intercept, values: as in :func:`cqbayes.policies.cqb_opt.cqb_opt`.

    Raises:
        InputError: without a horizon, for a ridge that is not positive, a slate that cannot be
            filled, or values other than one in [0, 1] for each LLM.
    """
    horizon = horizon_of("cqb_eps", horizon)
    values = checked_offers(slate_size, values, num_llms)
    size = confidence.num_features(dim, intercept)
    tau = exploration_rounds(num_llms, size, slate_size, horizon, factor)
    optimistic = cqb_opt(
        num_llms,
        dim,
        slate_size,
        scale=scale,
        ridge=ridge,
        intercept=intercept,
        values=values,
    )
    later = explore(optimistic, constant(horizon**-0.5), num_llms, slate_size)
    return Policy(
        init=Partial(_init, later.init),
        select=Partial(_select, num_llms, slate_size, jnp.asarray(tau), later.select),
        update=Partial(_update, later.update),
    )


def _init(inner: Any, key: PRNGKeyArray) -> RoundRobin:
    return RoundRobin(inner(key), jnp.array(0, jnp.int32))


def _select(
    num_llms: int,
    slate_size: int,
    tau: Array,
    later: Any,
    key: PRNGKeyArray,
    state: RoundRobin,
    seen: Observation,
) -> Action:
    first = in_turn(num_llms, slate_size, state.services, seen)
    best = later(key, state.learnt, seen)
    return jax.tree.map(lambda a, b: jnp.where(seen.round <= tau, a, b), first, best)


def _update(inner: Any, key: PRNGKeyArray, state: RoundRobin, rows: ChoiceData) -> RoundRobin:
    services = state.services + jnp.sum(rows.weight > 0, dtype=jnp.int32)
    return RoundRobin(inner(key, state.learnt, rows), services)


def in_turn(num_llms: int, slate_size: int, services: Array, seen: Observation) -> Action:
    """The newest query, with the ``slate_size`` LLMs whose turn comes after these services."""
    newest = jnp.argmin(jnp.where(seen.waiting, seen.wait, jnp.iinfo(seen.wait.dtype).max))
    begin = services * slate_size
    return Action(newest, (jnp.arange(num_llms) - begin) % num_llms < slate_size)


def build(setup: Setup) -> Policy:
    return cqb_eps(
        setup.sizes.num_llms,
        setup.sizes.dim,
        setup.slate_size,
        horizon=setup.horizon,
        values=setup.values,
    )

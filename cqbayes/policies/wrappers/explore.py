"""Forced exploration: a wrapper that acts at random with a probability that may decay."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import check_slate
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy, check_not_negative, random_pair


def inverse_root(c: float) -> Callable[[Array], Float[Array, ""]]:
    """The schedule ``eta_t = min(1, c / sqrt(t))``.

    Its sum up to round t is about ``2 c sqrt(t)``: the number of uniform samples, and their cost.

    Raises:
        InputError: for a ``c`` that is not a number of at least 0.
    """
    check_not_negative("exploration", c=c)
    return Partial(_inverse_root, jnp.asarray(c, float))


def _inverse_root(c: Array, t: Array) -> Float[Array, ""]:
    return jnp.minimum(1.0, c / jnp.sqrt(t))


def constant(epsilon: float) -> Callable[[Array], Float[Array, ""]]:
    """The schedule ``eta_t = epsilon``.

    Raises:
        InputError: for an ``epsilon`` outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise InputError(
            f"exploration: expected epsilon to be a probability in [0, 1], got {epsilon}"
        )
    return Partial(_constant, jnp.asarray(epsilon, float))


def _constant(epsilon: Array, t: Array) -> Float[Array, ""]:
    return epsilon


def explore(
    policy: Policy, schedule: Callable[[Array], Array], num_llms: int, slate_size: int
) -> Policy:
    """The same policy, which explores at random in round ``t`` at the rate ``schedule(t)``.

    ``schedule(t)`` is the probability of a uniform query with a uniform assortment.

    Raises:
        InputError: for a slate that cannot be filled.
    """
    check_slate(slate_size, num_llms)
    return policy._replace(select=Partial(_select, num_llms, slate_size, schedule, policy.select))


def _select(
    num_llms: int,
    slate_size: int,
    schedule: Callable[[Array], Array],
    inner: Any,
    key: PRNGKeyArray,
    state: Any,
    seen: Observation,
) -> Action:
    random_key, inner_key = jax.random.split(key)
    uniforms = jax.random.uniform(random_key, (2 + num_llms,))
    explores = uniforms[0] < schedule(seen.round)
    at_random = random_pair(uniforms[1:], seen, slate_size)
    chosen = inner(inner_key, state, seen)
    return jax.tree.map(lambda a, b: jnp.where(explores, a, b), at_random, chosen)

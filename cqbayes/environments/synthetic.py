"""Synthetic users: true utilities are linear, and contexts are drawn in the unit ball."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.environments.environment import Population, Query


def synthetic(key: PRNGKeyArray, num_llms: int = 5, dim: int = 5, bound: float = 2.0) -> Population:
    """A population with ``u_j = x . theta_j`` and ``theta_jk ~ Uniform(-bound, bound)``.

    Contexts are uniform in ``[-1, 1]^d``; contexts outside the unit ball are scaled to norm 1.

    Example:
        >>> import jax
        >>> population = synthetic(jax.random.key(0), num_llms=3)
        >>> population.utility(population.draw(jax.random.key(1))).shape
        (3,)
    """
    theta = jax.random.uniform(key, (num_llms, dim), minval=-bound, maxval=bound)
    return linear(theta)


def linear(theta: Float[Array, "llm dim"]) -> Population:
    """A population like that of :func:`synthetic`, with given parameters ``theta``."""
    return Population(draw=Partial(_draw, theta.shape[1]), utility=Partial(_linear, theta))


def is_linear(population: Population) -> bool:
    """Whether :func:`linear` made the population, so that true utilities are surely linear."""
    return getattr(population.utility, "func", None) is _linear


def _draw(dim: int, key: PRNGKeyArray) -> Query:
    context = jax.random.uniform(key, (dim,), minval=-1.0, maxval=1.0)
    context = context / jnp.maximum(1.0, jnp.linalg.norm(context))
    return Query(context, jnp.array(0, jnp.int32))


def _linear(theta: Array, query: Query) -> Float[Array, " llm"]:
    return theta @ query.context

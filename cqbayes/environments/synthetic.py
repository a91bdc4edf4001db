"""Synthetic truth: a disjoint linear utility over contexts drawn in the unit ball. Simulated."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.environments import Population, Query


def synthetic(key: PRNGKeyArray, num_llms: int = 5, dim: int = 5, bound: float = 2.0) -> Population:
    """``u_j = x . theta_j`` with ``theta_jk ~ Uniform(-bound, bound)``.

    Contexts are uniform in ``[-1, 1]^d``, scaled to norm 1 where they lie outside the unit ball.

    Example:
        >>> import jax
        >>> population = synthetic(jax.random.key(0), num_llms=3)
        >>> population.utility(population.draw(jax.random.key(1))).shape
        (3,)
    """
    theta = jax.random.uniform(key, (num_llms, dim), minval=-bound, maxval=bound)
    return linear(theta)


def linear(theta: Float[Array, "llm dim"]) -> Population:
    """The same with given parameters."""
    return Population(draw=Partial(_draw, theta.shape[1]), utility=Partial(_linear, theta))


def is_linear(population: Population) -> bool:
    """Whether the truth is known to be linear: whether :func:`linear` made its utilities."""
    return getattr(population.utility, "func", None) is _linear


def _draw(dim: int, key: PRNGKeyArray) -> Query:
    context = jax.random.uniform(key, (dim,), minval=-1.0, maxval=1.0)
    context = context / jnp.maximum(1.0, jnp.linalg.norm(context))
    return Query(context, jnp.array(0, jnp.int32))


def _linear(theta: Array, query: Query) -> Float[Array, " llm"]:
    return theta @ query.context

"""The best linear parameter: the most that a learner with linear utilities could learn.

::

    w*_j = argmax_w  E[ p_j(x) log sigma(z . w) + (1 - p_j(x)) log sigma(-z . w) ],  z = (1, x)

``p_j(x)`` is the true probability that LLM ``j`` alone satisfies the query. No learner knows it.
The loss of the best linear parameter is the cost of misspecification. Any further loss
of a learner is the cost of learning.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cqbayes.environments.environment import Population, Query

NUM_QUERIES = 8_192
NEWTON_STEPS = 30
RIDGE = 1e-4  # for each query: with separable choices, the parameter stays finite


def with_best_linear(population: Population, num_queries: int = NUM_QUERIES) -> Population:
    """The population with ``linear``: the best linear utility on ``num_queries`` arrivals."""
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(2), num_queries))
    chance = jax.nn.sigmoid(jax.vmap(population.utility)(queries))
    weights = best_linear(queries.context, chance)
    return population._replace(linear=Partial(_utility, weights))


def best_linear(
    context: Float[Array, "query dim"],
    chance: Float[Array, "query llm"],
    penalty: float | Array = RIDGE,
) -> Float[Array, "llm feature"]:
    """The best linear parameter: one logistic regression on probabilities for each LLM.

    Args:
        context: contexts of the queries; an intercept is added as the first feature.
        chance: probability that each LLM's answer is taken, in (0, 1).
        penalty: penalty of the squared parameters, for each query.
    """
    z = jax.vmap(_features)(context)
    ridge = penalty * jnp.eye(z.shape[1])

    def step(weights: Array, _: None) -> tuple[Array, None]:
        share = jax.nn.sigmoid(z @ weights.T)
        slope = (chance - share).T @ z / z.shape[0] - penalty * weights
        curvature = jnp.einsum("ij,ik,il->jkl", share * (1 - share), z, z) / z.shape[0] + ridge
        move = jnp.linalg.solve(curvature, slope[..., None])[..., 0]
        # No query moves by more than two units of log-odds: longer Newton steps overshoot.
        reach = jnp.max(jnp.abs(z @ move.T), axis=0)
        return weights + move * jnp.minimum(1, 2 / jnp.maximum(reach, 1e-30))[:, None], None

    zero = jnp.zeros((chance.shape[1], z.shape[1]), z.dtype)
    return jax.lax.scan(step, zero, length=NEWTON_STEPS)[0]


def _features(context: Float[Array, " dim"]) -> Float[Array, " feature"]:
    return jnp.concatenate([jnp.ones(1, context.dtype), context])


def _utility(weights: Array, query: Query) -> Float[Array, " llm"]:
    return weights @ _features(query.context)

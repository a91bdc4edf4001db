"""Always the one assortment that is best on average, known in hindsight; oldest query first.

What a gateway gets that picks one LLM by its benchmark average. It cannot tell queries apart, so it
serves them in order of arrival.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers, every_assortment, value
from cqbayes.environments.environment import Action, Observation, Population
from cqbayes.policies.policy import Policy, oldest, stateless
from cqbayes.policies.setup import Setup

NEEDS_TRUTH = True
NUM_QUERIES = 4_096


def best_single(
    population: Population,
    num_llms: int,
    slate_size: int = 1,
    *,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """The fixed assortment of highest mean ``v(x, S)`` over the population.

    The mean is taken over ``NUM_QUERIES`` simulated arrivals, all assortments of at most
    ``slate_size`` LLMs being enumerated; without values a full one is always best.

    Raises:
        InputError: for too many of them, a slate that cannot be filled, or values that are not one
            in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    smaller = values is not None
    assortments = every_assortment("best_single", num_llms, slate_size, smaller)
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(0), NUM_QUERIES))
    utility = jax.vmap(population.utility)(queries)

    def mean_value(offered: Bool[Array, " llm"]) -> Array:
        return jnp.mean(value(utility, jnp.broadcast_to(offered, utility.shape), values))

    best = jnp.argmax(jax.lax.map(mean_value, jnp.asarray(assortments)))
    return stateless(Partial(_select, jnp.asarray(assortments)[best]))


def _select(
    offered: Bool[Array, " llm"], key: PRNGKeyArray, state: tuple, seen: Observation
) -> Action:
    return Action(oldest(seen), offered)


def build(setup: Setup) -> Policy:
    assert setup.truth is not None
    return best_single(setup.truth, setup.sizes.num_llms, setup.slate_size, values=setup.values)

"""Always the one assortment that is best on average, known in hindsight; oldest query first.

What a gateway gets that picks one LLM by its benchmark average. It cannot tell queries apart, so it
serves them in order of arrival.
"""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cqbayes.assortment import checked_offers, value
from cqbayes.environments import Population
from cqbayes.errors import InputError
from cqbayes.policies import Action, Observation, Policy, Setup, oldest, stateless

NEEDS_TRUTH = True
NUM_QUERIES = 4_096
MOST_ASSORTMENTS = 10_000


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
        InputError: for more than ``MOST_ASSORTMENTS`` of them, a slate that cannot be
            filled, or values that are not one in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    counts = [slate_size] if values is None else range(1, slate_size + 1)
    count = sum(comb(num_llms, size) for size in counts)
    if count > MOST_ASSORTMENTS:
        raise InputError(
            f"best_single: expected at most {MOST_ASSORTMENTS} assortments to enumerate, "
            f"got {count} ({slate_size} of {num_llms} LLMs); use a smaller slate size"
        )
    members = [chosen for size in counts for chosen in combinations(range(num_llms), size)]
    assortments = np.zeros((count, num_llms), bool)
    for row, chosen in zip(assortments, members, strict=True):
        row[list(chosen)] = True
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

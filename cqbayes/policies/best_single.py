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
from jaxtyping import Array, Bool, PRNGKeyArray

from cqbayes.choice import departure_probability
from cqbayes.environments import Population
from cqbayes.errors import InputError
from cqbayes.policies import Action, Observation, Policy, Setup, stateless
from cqbayes.policies.fifo import oldest

NEEDS_TRUTH = True
NUM_QUERIES = 4_096
MOST_ASSORTMENTS = 10_000


def best_single(population: Population, num_llms: int, slate_size: int = 1) -> Policy:
    """The fixed assortment of highest mean departure probability over the population.

    The mean is taken over ``NUM_QUERIES`` simulated arrivals, all assortments of ``slate_size``
    LLMs being enumerated.

    Raises:
        InputError: if there are more than ``MOST_ASSORTMENTS`` of them.
    """
    count = comb(num_llms, slate_size)
    if count > MOST_ASSORTMENTS:
        raise InputError(
            f"best_single: expected at most {MOST_ASSORTMENTS} assortments to enumerate, "
            f"got {count} ({slate_size} of {num_llms} LLMs); use a smaller slate size"
        )
    assortments = np.zeros((count, num_llms), bool)
    for row, members in zip(assortments, combinations(range(num_llms), slate_size), strict=True):
        row[list(members)] = True
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(0), NUM_QUERIES))
    utility = jax.vmap(population.utility)(queries)

    def mean_departure(offered: Bool[Array, " llm"]) -> Array:
        return jnp.mean(departure_probability(utility, jnp.broadcast_to(offered, utility.shape)))

    best = jnp.argmax(jax.lax.map(mean_departure, jnp.asarray(assortments)))
    return stateless(Partial(_select, jnp.asarray(assortments)[best]))


def _select(
    offered: Bool[Array, " llm"], key: PRNGKeyArray, state: tuple, seen: Observation
) -> Action:
    return Action(oldest(seen), offered)


def build(setup: Setup) -> Policy:
    assert setup.truth is not None
    return best_single(setup.truth, setup.sizes.num_llms, setup.slate_size)

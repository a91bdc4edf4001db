"""The oracle knows every query's true utilities: the yardstick of queue-length regret."""

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.environments.environment import Action, Observation, Population, Query
from cqbayes.policies.policy import Policy, best_pair, stateless
from cqbayes.policies.setup import Setup

NEEDS_TRUTH = True


def oracle(
    population: Population, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """Serves the waiting query and assortment of highest true ``v(x, S)``.

    Without values ``v`` is the departure probability, which queue-length regret is measured by.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not in [0, 1].
    """
    values = checked_offers(slate_size, values)
    return stateless(Partial(_select, population, slate_size, values))


def _select(
    population: Population,
    slate_size: int,
    values: Array | None,
    key: PRNGKeyArray,
    state: tuple,
    seen: Observation,
) -> Action:
    utility = jax.vmap(population.utility)(Query(seen.context, seen.identity))
    return best_pair(utility, seen, slate_size, values)


def build(setup: Setup) -> Policy:
    assert setup.truth is not None
    return oracle(setup.truth, setup.slate_size, values=setup.values)

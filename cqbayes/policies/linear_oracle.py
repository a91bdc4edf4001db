"""The best that linear utilities can do: an oracle that knows the best linear parameter.

What it loses to the oracle is misspecification; what a learner loses to it is the cost of learning.
"""

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.assortment import checked_offers
from cqbayes.environments import Population, Query
from cqbayes.environments.best_linear import with_best_linear
from cqbayes.policies import Action, Observation, Policy, Setup, best_pair, stateless

NEEDS_TRUTH = True


def linear_oracle(
    population: Population, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """Serves the query and assortment of highest ``v`` under the best linear parameter.

    It is fitted here where the population does not come with it.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not in [0, 1].
    """
    values = checked_offers(slate_size, values)
    if population.linear is None:
        population = with_best_linear(population)
    return stateless(Partial(_select, population.linear, slate_size, values))


def _select(
    linear: Partial,
    slate_size: int,
    values: Array | None,
    key: PRNGKeyArray,
    state: tuple,
    seen: Observation,
) -> Action:
    utility = jax.vmap(linear)(Query(seen.context, seen.identity))
    return best_pair(utility, seen, slate_size, values)


def build(setup: Setup) -> Policy:
    assert setup.truth is not None
    return linear_oracle(setup.truth, setup.slate_size, values=setup.values)

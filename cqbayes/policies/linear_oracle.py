"""The best that linear utilities can do: an oracle that knows the best linear parameter.

What this policy loses to the oracle is misspecification; what a learner loses to this policy is the
cost of learning.
"""

import jax
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.environments.best_linear import with_best_linear
from cqbayes.environments.environment import Action, Observation, Population, Query
from cqbayes.policies.policy import Policy, best_pair, stateless
from cqbayes.policies.setup import Setup

NEEDS_TRUTH = True


def linear_oracle(
    population: Population, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """Serves the query and assortment of highest ``v`` under the best linear parameter.

    The parameter is fitted here if the population does not have it.

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

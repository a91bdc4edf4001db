"""A floor: it knows how often each pattern of abilities comes, not which one a query has.

With ``p_m`` the true probabilities of pattern ``m`` of the population, and ``n_j`` vain answers of
LLM ``j`` to a waiting query::

    P(m | n) ~ prod_j (1 - p_mj)^n_j,         argmax_{x, S} v of sum_m P(m | n) p_m

It sees no contexts, and answers that failed beside others count as if each had been offered alone,
so that it is a floor for one LLM at a time. What a learner loses to it is what is not known of the
population; a learner that has contexts which tell something can do better.

Source: ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.assortments import checked_offers
from cqbayes.environments.environment import Action, Observation, Population
from cqbayes.policies.best_single import NUM_QUERIES
from cqbayes.policies.policy import Policy, best_pair, stateless
from cqbayes.policies.setup import Setup

NEEDS_TRUTH = True
STEEPEST = 30.0  # log-odds from which on an answer is taken, or not, for sure


def pattern_oracle(
    population: Population, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """The policy, of the patterns of ``NUM_QUERIES`` simulated arrivals.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not in [0, 1].
    """
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(0), NUM_QUERIES))
    utility = jnp.clip(jax.vmap(population.utility)(queries), -STEEPEST, STEEPEST)
    values = checked_offers(slate_size, values, utility.shape[-1])
    if not isinstance(utility, Tracer):
        each, count = np.unique(np.asarray(utility), axis=0, return_counts=True)
        return stateless(Partial(_select, jnp.asarray(each), jnp.log(count), slate_size, values))
    return stateless(Partial(_select, utility, jnp.zeros(NUM_QUERIES), slate_size, values))


def _select(
    pattern: Float[Array, "pattern llm"],
    log_count: Float[Array, " pattern"],
    slate_size: int,
    values: Array | None,
    key: PRNGKeyArray,
    state: tuple,
    seen: Observation,
) -> Action:
    assert seen.failures is not None
    vain = seen.failures.astype(pattern.dtype) @ jax.nn.log_sigmoid(-pattern).T
    share = jax.nn.softmax(vain + log_count, axis=-1)
    taken, retried = share @ jax.nn.sigmoid(pattern), share @ jax.nn.sigmoid(-pattern)
    return best_pair(jnp.log(taken) - jnp.log(retried), seen, slate_size, values)


def build(setup: Setup) -> Policy:
    assert setup.truth is not None
    return pattern_oracle(setup.truth, setup.slate_size, values=setup.values)

"""Q-ThS: context-free Thompson sampling with forced exploration, oldest query first.

::

    with probability min(1, 3 N log(t)^2 / t):  a uniform assortment
    otherwise:                                  the assortment of beta_thompson

Source: Krishnasamy, Sen, Johari and Shakkottai, Regret of queueing bandits, NIPS 2016, with N
servers, one queue and one answer; assortments of several answers are ours. For N = 5 the policy
explores in every round up to round 620.
"""

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from cqbayes.policies.beta_thompson import beta_thompson
from cqbayes.policies.policy import Policy, check_not_negative
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.explore import explore
from cqbayes.policies.wrappers.fifo import fifo


def q_ths(
    num_llms: int,
    slate_size: int = 1,
    factor: float = 3.0,
    *,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """Beta Thompson sampling that explores at the rate ``min(1, factor N log(t)^2 / t)``.

    Args:
        num_llms: how many LLMs there are, ``N``.
        slate_size: how many LLMs answer one query.
        factor: factor of the exploration rate; 3 in the paper.
        values: worth of each LLM's answer, in [0, 1], by which its draw is multiplied.

    Raises:
        InputError: for a negative factor, a slate that cannot be filled, or values that are not in
            [0, 1].
    """
    check_not_negative("q_ths", factor=factor)
    schedule = Partial(_rate, jnp.asarray(factor * num_llms, float))
    inner = beta_thompson(num_llms, slate_size, values=values)
    # The policy sees only the oldest query, so exploration too chooses the assortment alone.
    return fifo(explore(inner, schedule, num_llms, slate_size))


def _rate(factor: Array, t: Array) -> Float[Array, ""]:
    return jnp.minimum(1.0, factor * jnp.log(t) ** 2 / t)


def build(setup: Setup) -> Policy:
    return q_ths(setup.sizes.num_llms, setup.slate_size, values=setup.values)

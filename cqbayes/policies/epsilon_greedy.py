"""Epsilon-greedy: the posterior mean, and at a constant rate a random query and assortment.

::

    with probability epsilon:  a uniform query, a uniform assortment
    otherwise:                 argmax_{x, S} v(x, S; E[theta | data])

Its regret grows in proportion to the rounds: exploring never ends. The default of 0.1 is that of
Sutton and Barto, Reinforcement Learning, chapter 2.
"""

from jaxtyping import Array, Float

from cqbayes.assortment import checked_offers
from cqbayes.belief import Belief
from cqbayes.errors import InputError
from cqbayes.policies import Policy, Setup
from cqbayes.policies.explore import constant, explore
from cqbayes.policies.greedy import greedy


def epsilon_greedy(
    belief: Belief,
    num_llms: int,
    slate_size: int = 1,
    epsilon: float = 0.1,
    *,
    values: Float[Array, " llm"] | None = None,
) -> Policy:
    """Greedy with forced exploration at a constant rate.

    Args:
        belief: how the posterior is kept; see :mod:`cqbayes.belief`.
        num_llms: how many LLMs there are.
        slate_size: most LLMs that answer one query.
        epsilon: probability of exploring in a round, in [0, 1].
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for an ``epsilon`` that is no probability, a slate that cannot be filled, or
            values that are not one in [0, 1] for each LLM.
    """
    if not 0 <= epsilon <= 1:
        raise InputError(
            f"epsilon_greedy: expected epsilon to be a probability in [0, 1], got {epsilon!r}"
        )
    values = checked_offers(slate_size, values, num_llms)
    inner = greedy(belief, slate_size, values=values)
    return explore(inner, constant(epsilon), num_llms, slate_size)


def build(setup: Setup) -> Policy:
    num_llms = setup.sizes.num_llms
    return epsilon_greedy(setup.belief, num_llms, setup.slate_size, values=setup.values)

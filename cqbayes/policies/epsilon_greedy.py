"""Epsilon-greedy: the posterior mean, and at a constant rate a random query and assortment.

::

    with probability epsilon:  a uniform query, a uniform assortment
    otherwise:                 argmax_{x, S} v(x, S; E[theta | data])

Its regret grows in proportion to the rounds, since exploration never ends. The default of 0.1 is
from Sutton and Barto, Reinforcement Learning, chapter 2.
"""

from jaxtyping import Array, Float

from cqbayes.choice.assortments import checked_offers
from cqbayes.errors import InputError
from cqbayes.policies.belief import Belief
from cqbayes.policies.greedy import greedy
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.wrappers.explore import constant, explore


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
        belief: how the posterior is kept; see :mod:`cqbayes.policies.belief`.
        num_llms: how many LLMs there are.
        slate_size: maximum number of LLMs that answer one query.
        epsilon: probability of exploring in a round, in [0, 1].
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for an ``epsilon`` outside [0, 1], a slate that cannot be filled, or values
            other than one in [0, 1] for each LLM.
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

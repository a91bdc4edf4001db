"""Greedy: serve what is best under the posterior mean, and never explore.

::

    argmax_{x, S} v(x, S; E[theta | data])

The policy learns only from what it already thinks best: a baseline that exploration must beat.
"""

from jaxtyping import Array, Float

from cqbayes.policies.belief import Belief
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.thompson import thompson


def greedy(
    belief: Belief, slate_size: int = 1, *, values: Float[Array, " llm"] | None = None
) -> Policy:
    """Thompson sampling whose draw is the posterior mean.

    Args:
        belief: how the posterior is kept; see :mod:`cqbayes.policies.belief`.
        slate_size: maximum number of LLMs that answer one query.
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not in [0, 1].
    """
    return thompson(belief, slate_size, alpha=0.0, values=values)


def build(setup: Setup) -> Policy:
    return greedy(setup.belief, setup.slate_size, values=setup.values)

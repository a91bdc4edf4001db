"""ACQB: Thompson sampling with forced exploration at a decaying rate; needs no horizon.

::

    with probability eta_t = min(1, c / sqrt(t)):  a uniform query, a uniform assortment
    otherwise:  theta~ ~ posterior (spread alpha),  argmax_{x, S} v(x, S; theta~)

With a belief that has memory (:func:`cqbayes.policies.belief.memory`) ``x`` is all that is known of
a waiting query: its context, and which LLMs answered it in vain. The paper's reading is a function
of the context alone, ``memory=False``: it asks the same LLM again as surely as before.

Source: Bae, Son and Lee, arXiv 2602.02061. The form of ``eta_t`` is our reading of the paper.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from cqbayes.choice.assortments import checked_offers
from cqbayes.policies.belief import Belief
from cqbayes.policies.policy import Policy
from cqbayes.policies.setup import Setup
from cqbayes.policies.thompson import thompson
from cqbayes.policies.wrappers.explore import explore, inverse_root


def acqb(
    belief: Belief,
    num_llms: int,
    slate_size: int = 1,
    c: float = 0.5,
    alpha: float | None = None,
    *,
    best_of: int = 1,
    memory: bool = True,
    values: Float[Array, " llm"] | None = None,
    schedule: Callable[[Array], Array] | None = None,
) -> Policy:
    """The policy ACQB, with any posterior.

    Args:
        belief: how the posterior is kept: online, or refitted on a schedule.
        num_llms: how many LLMs there are.
        slate_size: maximum number of LLMs that answer one query.
        c: exploration; 0 is plain Thompson sampling.
        alpha: spread of the Thompson draw; 0 is greedy. Where absent, the belief's own: 1, or 0.5
            with memory.
        best_of: number of posterior draws; each utility is the largest over them.
        memory: whether the belief sees which LLMs answered a query in vain.
        values: worth of each LLM's answer, in [0, 1]; 1 each where absent.
        schedule: ``t -> eta_t`` instead of ``min(1, c / sqrt(t))``.

    Raises:
        InputError: for a ``c`` or ``alpha`` that is not a number of at least 0, no draws, a slate
            that cannot be filled, or values other than one in [0, 1] for each LLM.
    """
    values = checked_offers(slate_size, values, num_llms)
    inner = thompson(belief, slate_size, alpha, best_of=best_of, memory=memory, values=values)
    return explore(inner, schedule or inverse_root(c), num_llms, slate_size)


def build(setup: Setup) -> Policy:
    return acqb(setup.belief, setup.sizes.num_llms, setup.slate_size, values=setup.values)

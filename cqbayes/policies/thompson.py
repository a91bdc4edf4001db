"""Thompson sampling: draw parameters from the posterior, serve what is best under the draw."""

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from cqbayes.belief import Belief, Believed
from cqbayes.choice import Situation
from cqbayes.policies import Action, Observation, Policy, Setup, best_pair
from cqbayes.preference import utilities


def thompson(belief: Belief, slate_size: int = 1, alpha: float = 1.0) -> Policy:
    """Serves ``argmax_{x, S} v(x, S; theta~)`` with ``theta~`` drawn from the posterior.

    Args:
        belief: how the posterior is kept; see :mod:`cqbayes.belief`.
        slate_size: most LLMs that answer one query.
        alpha: scales the draw's deviation from the posterior mean; 0 is greedy.
    """
    return Policy(
        init=belief.init,
        select=Partial(_select, slate_size, jnp.asarray(alpha, float)),
        update=Partial(belief.update, slate_size),
        refit=belief.refit,
    )


def _select(
    slate_size: int, alpha: Array, key: PRNGKeyArray, state: Believed, seen: Observation
) -> Action:
    params = state.posterior.draw(key, alpha)
    situation = Situation(context=seen.context, attempt=seen.attempts + 1)
    utility = utilities(state.posterior.model, params, situation)
    return best_pair(utility, seen.waiting, slate_size)


def build(setup: Setup) -> Policy:
    return thompson(setup.belief, setup.slate_size)

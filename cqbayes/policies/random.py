"""Uniform query, uniform assortment: a policy for logging, and the weakest baseline."""

import jax
from jax.tree_util import Partial
from jaxtyping import PRNGKeyArray

from cqbayes.choice.assortments import check_slate
from cqbayes.environments.environment import Action, Observation
from cqbayes.policies.policy import Policy, random_pair, stateless
from cqbayes.policies.setup import Setup


def random(num_llms: int, slate_size: int = 1) -> Policy:
    """Serves a waiting query and an assortment of ``slate_size`` LLMs, both uniformly.

    Raises:
        InputError: for a slate that cannot be filled.

    Example:
        >>> random(num_llms=3).refit is None
        True
    """
    check_slate(slate_size, num_llms)
    return stateless(Partial(_select, num_llms, slate_size))


def _select(
    num_llms: int, slate_size: int, key: PRNGKeyArray, state: tuple, seen: Observation
) -> Action:
    uniforms = jax.random.uniform(key, (1 + num_llms,))
    return random_pair(uniforms, seen, slate_size)


def build(setup: Setup) -> Policy:
    return random(setup.sizes.num_llms, setup.slate_size)

"""One policy up to a round, another one after it: a wrapper.

The difference between two such runs is the final cost of a single round's mismatch
(:mod:`cqbayes.simulation.policy_switching`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray

from cqbayes.environments.environment import Action, Observation
from cqbayes.policies.policy import Policy


def switch(first: Policy, second: Policy, after: int | Int[Array, ""]) -> Policy:
    """``first`` in rounds up to ``after``, then ``second``; both learn all the time."""
    return Policy(
        init=Partial(_init, first.init, second.init),
        select=Partial(_select, first.select, second.select, jnp.asarray(after, jnp.int32)),
        update=Partial(_update, first.update, second.update),
    )


def _init(first: Any, second: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
    return first(key), second(key)


def _select(
    first: Any, second: Any, after: Array, key: PRNGKeyArray, state: Any, seen: Observation
) -> Action:
    before = seen.round <= after
    one, other = first(key, state[0], seen), second(key, state[1], seen)
    return jax.tree.map(lambda a, b: jnp.where(before, a, b), one, other)


def _update(first: Any, second: Any, key: PRNGKeyArray, state: Any, rows: Any) -> Any:
    return first(key, state[0], rows), second(key, state[1], rows)

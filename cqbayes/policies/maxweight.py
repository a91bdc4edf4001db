"""MaxWeight over classes of queries: what the queueing matching bandits share.

Queries are sorted into classes, the Voronoi cells of given centres; a class is served by its
length times the expected reward of the best assortment for its centre::

    argmax_{c, S} Q_c v(x_c, S; u),    Q_c = waiting queries of class c that can be served

and of the class that is picked, the oldest query.

Source: Tassiulas and Ephremides 1992, as used by Kim and Oh, Queueing matching bandits with
preference feedback, NeurIPS 2024. Their queues have one feature vector each and their rounds match
many of them; that a queue is a cell, served as its centre would be, one a round, is our reading.
So it routes as well as the centres stand for their members, and no better.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cqbayes.assortment import best_assortment
from cqbayes.errors import InputError
from cqbayes.policies import Action, Observation

NUM_CLASSES = 8


def unit_centres(dim: int) -> Float[Array, "class dim"]:
    """Random directions, always the same: centres for want of knowledge of the queries."""
    centres = jax.random.normal(jax.random.key(0), (NUM_CLASSES, dim))
    return centres / jnp.linalg.norm(centres, axis=-1, keepdims=True)


def checked_centres(name: str, centres: Any, dim: int) -> Float[Array, "class dim"]:
    """Refuses centres of other dimensions than the contexts.

    Raises:
        InputError: says what shape is expected.
    """
    centres = jnp.asarray(centres, float)
    if centres.ndim != 2 or centres.shape[0] == 0 or centres.shape[1] != dim:
        raise InputError(f"{name}: expected centres of shape (classes, {dim}), got {centres.shape}")
    return centres


def nearest(
    centres: Float[Array, "class dim"], context: Float[Array, "room dim"]
) -> Int[Array, " room"]:
    """Which cell each query lies in."""
    # |x - c|^2 less |x|^2, which is the same for all centres.
    return jnp.argmin(jnp.sum(centres**2, axis=-1) - 2 * context @ centres.T, axis=-1)


def heaviest(
    utility: Float[Array, "class llm"],
    centres: Float[Array, "class dim"],
    seen: Observation,
    slate_size: int,
    values: Float[Array, " llm"] | None,
) -> Action:
    """The oldest query of the class of largest ``Q_c v(x_c, S)``, with its assortment.

    A priority is added to ``log(Q_c v)``, for small ``v`` the same as to the log-odds of ``v``; in
    those it would be lost where ``v`` is close to 1. A class is compared by the highest priority in
    it, and served there.
    """
    members = seen.waiting & (nearest(centres, seen.context) == jnp.arange(len(centres))[:, None])
    offered, score = best_assortment(utility, slate_size, values)
    length = jnp.sum(members, axis=-1)
    # Logarithms, in which a reward close to 1 still differs from its neighbours.
    weight = jnp.log(jnp.maximum(length, 1)) + jax.nn.log_sigmoid(score)
    if seen.priority is not None:
        priority = jnp.where(members, seen.priority, -jnp.inf)
        highest = jnp.max(priority, axis=-1)
        weight = weight + highest
        members = members & (priority == highest[:, None])
    chosen = jnp.argmax(jnp.where(length > 0, weight, -jnp.inf))
    query = jnp.argmax(jnp.where(members[chosen], seen.wait, -1))
    return Action(query, offered[chosen])

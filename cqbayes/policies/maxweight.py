"""MaxWeight over classes of queries: functions of the queueing matching bandits.

A query belongs to the class of its nearest centre (a Voronoi cell). The class with the largest
product of its length and its expected reward is served, with the best assortment for its centre::

    argmax_{c, S} Q_c v(x_c, S; u),    Q_c = waiting queries of class c that can be served

Of this class, the oldest query is served.

Source: Tassiulas and Ephremides 1992, as used by Kim and Oh, Queueing matching bandits with
preference feedback, NeurIPS 2024. There, each queue has one feature vector, and a round serves many
queues. Our reading: a queue is a cell whose queries are served as their centre would be, one query
a round. So the routing is only as good as the centres represent their queries.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cqbayes.choice.assortments import best_assortment
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError

NUM_CLASSES = 8


def unit_centres(dim: int) -> Float[Array, "class dim"]:
    """Eight random directions, always the same: centres where nothing is known of the queries."""
    centres = jax.random.normal(jax.random.key(0), (NUM_CLASSES, dim))
    return centres / jnp.linalg.norm(centres, axis=-1, keepdims=True)


def checked_centres(name: str, centres: Any, dim: int) -> Float[Array, "class dim"]:
    """The centres as an array; refuses other dimensions than those of the contexts.

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
    """The number of the nearest centre of each query."""
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

    A priority is added to ``log(Q_c v)``. For small ``v`` this equals an addition to the log-odds
    of ``v``; for ``v`` close to 1, large log-odds would hide the priority. A class counts with the
    highest priority of its queries, and a query with that priority is served.
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

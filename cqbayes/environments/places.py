"""Waiting queries as rows of numbers: one read and one write move a query."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cqbayes.environments.environment import Population, Query
from cqbayes.environments.rules import Rules


class Place(NamedTuple):
    """All columns of a waiting query; a column that the rules do not need is None."""

    context: Float[Array, "*room dim"]
    utility: Float[Array, "*room llm"]
    best: Float[Array, "*room"]
    linear: Float[Array, "*room"] | None
    identity: Int[Array, "*room"]
    arrived: Int[Array, "*room"]
    attempts: Int[Array, "*room"]
    failures: Int[Array, "*room llm"]
    returns: Int[Array, "*room"] | None
    leaves: Int[Array, "*room"] | None


def draw_with_utility(population: Population, key: PRNGKeyArray) -> tuple[Query, Array]:
    """One arrival and its true utilities ``[llm]``."""
    query = population.draw(key)
    return query, population.utility(query)


def blank_place(population: Population, rules: Rules) -> Place:
    """Shapes and types of one place in a queue with these rules."""

    def one(key: PRNGKeyArray) -> Place:
        query, utility = draw_with_utility(population, key)
        whole, real = jnp.array(0, jnp.int32), jnp.zeros((), utility.dtype)
        return Place(
            context=query.context,
            utility=utility,
            best=real,
            linear=None if population.linear is None else real,
            identity=query.identity,
            arrived=whole,
            attempts=whole,
            failures=jnp.zeros(utility.shape, jnp.int32),
            returns=whole if rules.absent or not rules.preemptive else None,
            leaves=None if rules.patience is None else whole,
        )

    return eqx.filter_eval_shape(one, jax.random.key(0))


def width(like: Place) -> int:
    """Number of numbers in one place."""
    return sum(max(1, int(np.prod(leaf.shape))) for leaf in jax.tree.leaves(like))


def pack(place: Place) -> Float[Array, "*room number"]:
    """Columns of places side by side as one array; integers keep their bits."""
    dtype = place.context.dtype
    whole = jnp.int32 if dtype.itemsize == 4 else jnp.int64

    def numbers(column: Array) -> Array:
        if jnp.issubdtype(column.dtype, jnp.integer):
            column = jax.lax.bitcast_convert_type(column.astype(whole), dtype)
        column = column.astype(dtype)
        return column if column.ndim == place.context.ndim else column[..., None]

    return jnp.concatenate([numbers(column) for column in jax.tree.leaves(place)], axis=-1)


def unpack(rows: Float[Array, "*room number"], like: Place) -> Place:
    """The places that :func:`pack` put into ``rows``; ``like`` gives their shapes and types."""
    begin, columns = 0, []
    for shape in jax.tree.leaves(like):
        size = shape.shape[0] if shape.ndim else 1
        column = rows[..., begin : begin + size] if shape.ndim else rows[..., begin]
        begin += size
        if jnp.issubdtype(shape.dtype, jnp.integer):
            whole = jnp.int32 if rows.dtype.itemsize == 4 else jnp.int64
            column = jax.lax.bitcast_convert_type(column, whole).astype(shape.dtype)
        columns.append(column)
    return jax.tree.unflatten(jax.tree.structure(like), columns)

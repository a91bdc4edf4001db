"""A fast log-likelihood for linear utilities: value, gradient and Fisher information.

With utilities ``u_ij = w_j . z_i`` and ``Z_i = 1 + sum_{m in S_i} exp(u_im)``::

    log L(w)   = <w, T> - sum_i r_i log Z_i          T_j = sum_i r_i [y_i = j] z_i,  r_i the weights
    grad_j     = T_j - sum_i r_i P_ij z_i            P_ij = exp(u_ij) / Z_i for j in S_i, else 0
    info_jk    = sum_i r_i P_ij ([j = k] - P_ik) z_i z_i^T

``T`` is computed once for each chunk of rows. The gradient then sums one residual for each chunk;
residuals are small near the mode, and so are their rounding errors. A chunk fits the CPU's cache.
In it, LLMs and features come before rows (``[feature, lane]``): every product is a matrix product
with long rows, and every exponential runs along contiguous memory. Under ``vmap`` several weights
share one product. The gradient is written by hand, and one pass computes it together with the
value.

The log-likelihood of many rows is a large number, and differences between weights are small. With
an ``anchor`` the value is ``log L(w) - log L(anchor)``: the difference is taken row by row and then
summed. Single precision is then enough for importance ratios over a million rows.
"""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cqbayes.choice.data import ChoiceData
from cqbayes.choice.mnl import Normaliser, normaliser

LANES = 1024  # rows of a chunk: their features and utilities stay in a core's cache


class LinearRows(eqx.Module):
    """Choice data in the layout of :func:`linear_log_likelihood`, made by :func:`linear_rows`."""

    features: Float[Array, "chunk feature lane"]
    offered: Bool[Array, "chunk llm lane"]
    weight: Float[Array, "chunk lane"]
    taken: Float[Array, "chunk llm feature"]
    anchor: Float[Array, "llm feature"]
    anchor_partition: Float[Array, "chunk lane"]


def linear_rows(
    features: Callable[[Array], Array], data: ChoiceData, lanes: int = LANES
) -> LinearRows:
    """Choice data in chunks of rows, with no anchor.

    Row ``i`` goes to lane ``i // chunks`` of chunk ``i % chunks``. Rows that are sharded over
    devices therefore stay on their device: each device holds a part of every chunk.

    Args:
        features: ``context [dim] -> z [feature]``.
        data: the choices, without silence.
        lanes: rows in a chunk.
    """
    rows = data.cleared()
    lanes = min(lanes, max(8, 1 << (rows.num_obs - 1).bit_length()))
    chunks = -(-rows.num_obs // lanes)
    short = chunks * lanes - rows.num_obs

    def laid_out(column: Array) -> Array:
        padded = jnp.pad(column, [(0, short)] + [(0, 0)] * (column.ndim - 1))
        split = padded.reshape(lanes, chunks, *column.shape[1:])
        return jnp.moveaxis(split, 0, -1)

    z = laid_out(jax.vmap(features)(rows.context))
    choice, weight = laid_out(rows.choice), laid_out(rows.weight)
    llm = jnp.arange(rows.num_llms)
    mine = jnp.where(choice[:, None] == llm[:, None] + 1, weight[:, None], 0)
    taken = jax.lax.map(lambda chunk: chunk[0] @ chunk[1].T, (mine, z))
    return LinearRows(
        features=z,
        offered=laid_out(rows.offered),
        weight=weight,
        taken=taken,
        anchor=jnp.zeros_like(taken[0]),
        anchor_partition=jnp.zeros_like(weight),
    )


def anchored(rows: LinearRows, anchor: Float[Array, "llm feature"]) -> LinearRows:
    """The same rows with an anchor: their log-likelihood is ``log L(w) - log L(anchor)``."""

    def partition(_: None, chunk: LinearRows) -> tuple[None, Array]:
        return None, normaliser(anchor @ chunk.features, chunk.offered, axis=0).log_partition

    _, values = jax.lax.scan(partition, None, _chunks(rows))
    return eqx.tree_at(lambda r: (r.anchor, r.anchor_partition), rows, (anchor, values))


def _chunks(rows: LinearRows) -> LinearRows:
    """The rows without the anchor: the arrays that a scan over chunks runs over."""
    return eqx.tree_at(lambda r: r.anchor, rows, None)


@jax.custom_vjp
def linear_log_likelihood(
    weights: Float[Array, "llm feature"], rows: LinearRows
) -> Float[Array, ""]:
    """Log-likelihood of ``weights``, minus the log-likelihood of the rows' anchor if they have one.

    It is differentiable in ``weights`` once, in reverse mode. :func:`information` gives the second
    derivative.
    """
    return _value(weights, rows)


def _value(weights: Array, rows: LinearRows) -> Array:
    moved = weights - rows.anchor

    def add(sum: Array, chunk: LinearRows) -> tuple[Array, None]:
        at = normaliser(weights @ chunk.features, chunk.offered, axis=0)
        return sum + _gain(at, moved, chunk), None

    return jax.lax.scan(add, jnp.zeros((), weights.dtype), _chunks(rows))[0]


def _gain(at: Normaliser, moved: Array, chunk: LinearRows) -> Array:
    """Log-likelihood of a chunk, minus the log-likelihood of the anchor."""
    normalised = jnp.vdot(chunk.weight, at.log_partition - chunk.anchor_partition)
    return jnp.vdot(moved, chunk.taken) - normalised


def _value_and_slope(weights: Array, rows: LinearRows) -> tuple[Array, tuple[Array, LinearRows]]:
    moved = weights - rows.anchor

    def add(sums: tuple[Array, Array], chunk: LinearRows) -> tuple[tuple[Array, Array], None]:
        at = normaliser(weights @ chunk.features, chunk.offered, axis=0)
        share = at.odds * (chunk.weight / (1 + at.excess))
        residual = chunk.taken - share @ chunk.features.T
        return (sums[0] + _gain(at, moved, chunk), sums[1] + residual), None

    zero = (jnp.zeros((), weights.dtype), jnp.zeros_like(weights))
    (value, slope), _ = jax.lax.scan(add, zero, _chunks(rows))
    return value, (slope, rows)


def _pull_back(saved: tuple[Array, LinearRows], cotangent: Array):
    slope, rows = saved
    return cotangent * slope, jax.tree.map(_no_tangent, rows)


def _no_tangent(x: Array):
    """A zero tangent: data are not differentiated."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


linear_log_likelihood.defvjp(_value_and_slope, _pull_back)


@partial(jax.jit, inline=True)
def information(
    weights: Float[Array, "llm feature"], rows: LinearRows
) -> Float[Array, "llm feature llm feature"]:
    """Fisher information of the weights: minus the Hessian of the log-likelihood.

    ``z z^T`` and the pairs of LLMs are symmetric, so each pair is computed once. One matrix product
    ``[pair of LLMs, lane] x [lane, pair of features]`` for each chunk computes all pairs.
    """
    llms, features = weights.shape
    j, k = np.triu_indices(llms)
    a, b = np.triu_indices(features)

    def add(sum: Array, chunk: LinearRows) -> tuple[Array, None]:
        at = normaliser(weights @ chunk.features, chunk.offered, axis=0)
        share = at.odds / (1 + at.excess)
        kept = jnp.where((j == k)[:, None], share[j], 0)
        pair = chunk.weight * (kept - share[j] * share[k])
        return sum + pair @ (chunk.features[a] * chunk.features[b]).T, None

    zero = jnp.zeros((len(j), len(a)), weights.dtype)
    found, _ = jax.lax.scan(add, zero, _chunks(rows))
    place = np.empty((llms, llms), int)
    place[j, k] = place[k, j] = np.arange(len(j))
    among = np.empty((features, features), int)
    among[a, b] = among[b, a] = np.arange(len(a))
    return found[place[:, None, :, None], among[None, :, None, :]]

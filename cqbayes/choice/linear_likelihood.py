"""A fast log-likelihood for linear utilities: value, gradient and information, chunk by chunk.

With utilities ``u_ij = w_j . z_i`` and weights ``r_i`` of the rows::

    log L(w, C) = <w, T> + sum_i r_i c_i(u_i, C)

    a clean log:      T_j = sum_i r_i [y_i = j] z_i,  c_i = -log(1 + sum_{m in S_i} exp(u_im))
    through rates C:  T_j = 0,  c_i of cqbayes.choice.channels.seen_log_probability

Only the ``c_i`` are differentiated, in the utilities and the rates, which are few. A matrix product
for each chunk of rows takes derivatives on to the weights::

    slope in w_j        = T_j + sum_i r_i (dc_i / du_j) z_i
    information of w    = -sum_i r_i (d^2 c_i / du_j du_k) z_i z_i^T

``T`` is computed once for each chunk. The gradient of a clean log then sums one residual for each
chunk; residuals are small near the mode, and so are their rounding errors. A chunk fits the CPU's
cache. In it, LLMs and features come before rows (``[feature, lane]``): every product is a matrix
product with long rows, and every exponential runs along contiguous memory. Under ``vmap`` several
weights share one product.

The log-likelihood of many rows is a large number, and differences between weights are small. With
an ``anchor`` the value is ``log L(w, C) - log L(anchor)``: the difference is taken row by row and
then summed. Single precision is then enough for importance ratios over a million rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cqbayes.choice.channels import Rates, seen_log_probability
from cqbayes.choice.data import ChoiceData, Situation
from cqbayes.choice.mnl import normaliser

LANES = 1024  # rows of a chunk: their features and utilities stay in a core's cache


class Inner(NamedTuple):
    """What the likelihood depends on: weights, and the rates of a channel or None."""

    weights: Float[Array, "llm feature"]
    rates: Rates | None = None


class LinearRows(eqx.Module):
    """Choice data in the layout of :func:`linear_log_likelihood`, made by :func:`linear_rows`."""

    features: Float[Array, "chunk feature lane"]
    offered: Bool[Array, "chunk llm lane"]
    choice: Int[Array, "chunk lane"]
    weight: Float[Array, "chunk lane"]
    taken: Float[Array, "chunk llm feature"]
    anchor: Float[Array, "llm feature"]
    at_anchor: Float[Array, "chunk lane"]


def linear_rows(
    features: Callable[[Situation], Array],
    data: ChoiceData,
    lanes: int = LANES,
    clean: bool = True,
) -> LinearRows:
    """Choice data in chunks of rows, with no anchor.

    Row ``i`` goes to lane ``i // chunks`` of chunk ``i % chunks``. Rows that are sharded over
    devices therefore stay on their device: each device holds a part of every chunk.

    Args:
        features: ``Situation -> z [feature]``.
        data: the choices.
        lanes: rows in a chunk.
        clean: whether the log is clean, or shows choices through the rates of a channel.
    """
    rows = data.cleared()
    lanes = min(lanes, max(8, 1 << (rows.num_obs - 1).bit_length()))
    chunks = -(-rows.num_obs // lanes)
    short = chunks * lanes - rows.num_obs

    def laid_out(column: Array) -> Array:
        padded = jnp.pad(column, [(0, short)] + [(0, 0)] * (column.ndim - 1))
        split = padded.reshape(lanes, chunks, *column.shape[1:])
        return jnp.moveaxis(split, 0, -1)

    z = laid_out(jax.vmap(features)(rows.situation))
    choice, weight = laid_out(rows.choice), laid_out(rows.weight)
    llm = jnp.arange(rows.num_llms)
    mine = jnp.where((choice[:, None] == llm[:, None] + 1) & clean, weight[:, None], 0)
    taken = jax.lax.map(lambda chunk: chunk[0] @ chunk[1].T, (mine, z))
    return LinearRows(
        features=z,
        offered=laid_out(rows.offered),
        choice=choice,
        weight=weight,
        taken=taken,
        anchor=jnp.zeros_like(taken[0]),
        at_anchor=jnp.zeros_like(weight),
    )


def anchored(rows: LinearRows, anchor: Inner) -> LinearRows:
    """The same rows with an anchor: their log-likelihood is ``log L(inner) - log L(anchor)``."""

    def curved(_: None, chunk: LinearRows) -> tuple[None, Array]:
        return None, _curved(anchor.weights @ chunk.features, anchor.rates, chunk)

    _, values = jax.lax.scan(curved, None, _chunks(rows))
    return eqx.tree_at(lambda r: (r.anchor, r.at_anchor), rows, (anchor.weights, values))


def _chunks(rows: LinearRows) -> LinearRows:
    """The rows without the anchor: the arrays that a scan over chunks runs over."""
    return eqx.tree_at(lambda r: r.anchor, rows, None)


def _curved(
    utility: Float[Array, "llm lane"], rates: Rates | None, chunk: LinearRows
) -> Float[Array, " lane"]:
    """The log-likelihood of a chunk's rows without what is linear in the weights."""
    if rates is None:
        return -normaliser(utility, chunk.offered, axis=0).log_partition
    return seen_log_probability(rates, utility, chunk.offered, chunk.choice, axis=0)


def _gain(inner: Inner, anchor: Array, chunk: LinearRows) -> Float[Array, ""]:
    """The log-likelihood of a chunk, minus that of the anchor."""
    curved = _curved(inner.weights @ chunk.features, inner.rates, chunk)
    linear = jnp.vdot(inner.weights - anchor, chunk.taken)
    return linear + jnp.vdot(chunk.weight, curved - chunk.at_anchor)


def _summed(of_chunk: Callable[[LinearRows], Any], rows: LinearRows) -> Any:
    """The sum over all chunks of what a function gives of each."""

    def add(sums: Any, chunk: LinearRows) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, of_chunk(chunk)), None

    chunks = _chunks(rows)
    one = jax.eval_shape(of_chunk, jax.tree.map(lambda column: column[0], chunks))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
    return jax.lax.scan(add, zero, chunks)[0]


@jax.custom_vjp
def linear_log_likelihood(inner: Inner, rows: LinearRows) -> Float[Array, ""]:
    """Log-likelihood, minus the log-likelihood of the rows' anchor if they have one.

    It is differentiable in ``inner`` once, in reverse mode; one pass computes value and gradient.
    :func:`information` gives the second derivative.
    """
    return _summed(lambda chunk: _gain(inner, rows.anchor, chunk), rows)


def _value_and_slope(inner: Inner, rows: LinearRows) -> tuple[Array, tuple[Inner, LinearRows]]:
    gain = jax.value_and_grad(_gain)
    value, slope = _summed(lambda chunk: gain(inner, rows.anchor, chunk), rows)
    return value, (slope, rows)


def _pull_back(saved: tuple[Inner, LinearRows], cotangent: Array):
    slope, rows = saved
    return jax.tree.map(lambda x: cotangent * x, slope), jax.tree.map(_no_tangent, rows)


def _no_tangent(x: Array):
    """A zero tangent: data are not differentiated."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


linear_log_likelihood.defvjp(_value_and_slope, _pull_back)


@partial(jax.jit, inline=True)
def information(inner: Inner, rows: LinearRows) -> Float[Array, "inner inner"]:
    """Minus the Hessian of the log-likelihood, in the order of ``ravel_pytree(inner)``.

    ``z z^T`` and the pairs of LLMs are symmetric, so each pair is computed once. One matrix product
    ``[pair of LLMs, lane] x [lane, pair of features]`` for each chunk computes all pairs.
    """
    weights, rates = inner
    llms, features = weights.shape
    j, k = np.triu_indices(llms)
    a, b = np.triu_indices(features)

    def of_chunk(chunk: LinearRows) -> tuple[Array, Any]:
        def slope(utility: Array, rates: Rates | None) -> Any:
            def likelihood(utility: Array, rates: Rates | None) -> Array:
                return jnp.vdot(chunk.weight, _curved(utility, rates, chunk))

            return jax.grad(likelihood, (0, 1))(utility, rates)

        utility = weights @ chunk.features

        def along(llm: Array, rate: Rates | None) -> Any:
            """How the slope changes along the utilities of one LLM in all rows, or along a rate."""
            moved = jnp.broadcast_to(llm[:, None], utility.shape)
            return jax.jvp(slope, (utility, rates), (moved, rate))[1]

        still = None if rates is None else jnp.zeros_like(rates)
        bend, _ = jax.vmap(along, (0, None))(jnp.eye(llms, dtype=weights.dtype), still)
        pairs = bend[j, k] @ (chunk.features[a] * chunk.features[b]).T
        if rates is None:
            return pairs, None
        unit = jnp.eye(rates.size, dtype=rates.dtype).reshape(-1, *rates.shape)
        mixed, both = jax.vmap(along, (None, 0))(jnp.zeros(llms, weights.dtype), unit)
        return pairs, (mixed @ chunk.features.T, both)

    pairs, others = _summed(of_chunk, rows)
    place = np.empty((llms, llms), int)
    place[j, k] = place[k, j] = np.arange(len(j))
    among = np.empty((features, features), int)
    among[a, b] = among[b, a] = np.arange(len(a))
    of_weights = pairs[place[:, None, :, None], among[None, :, None, :]]
    of_weights = of_weights.reshape(weights.size, weights.size)
    if others is None:
        return -of_weights
    mixed, both = (x.reshape(len(x), -1) for x in others)
    return -jnp.block([[of_weights, mixed.T], [mixed, both]])

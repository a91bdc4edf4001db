"""A fast log-likelihood of abilities: one term for a query and what became of it.

With ``Z(x, n, y)`` the probability that a query of context ``x`` is answered in vain ``n_j`` times
by each LLM and then by ``y``, if by any, a service of a query has the probability ``Z(x, n', y') /
Z(x, n, 0)`` where ``n`` were the failures before it. So of all attempts of a query only the last
term is left, whichever rows they are in: terms are counted, with weights, and those that cancel are
not computed::

    log L = sum over (x, n, y) of (how often as numerator - as denominator) log Z(x, n, y)
    Z(x, n, y) = sum over nodes d of w_d prod_j W_j(n_j),   of y: W_y(n_y) - W_y(n_y + 1)

:mod:`cqbayes.choice.ability` has ``W``. A term costs as much as its query tried LLMs.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from cqbayes.choice.ability import MOST_FAILURES, NODES, WEIGHTS, after_failures
from cqbayes.choice.data import ChoiceData, Situation

MULTIPLE = 256  # to which terms and cells are filled up, so that less is compiled


class AbilityRows(eqx.Module):
    """Terms, and their cells: the LLMs that each term's query has tried, in the order of terms."""

    features: Float[Array, "term feature"]
    weight: Float[Array, " term"]
    term: Int[Array, " cell"]
    llm: Int[Array, " cell"]
    failures: Int[Array, " cell"]
    taken: Bool[Array, " cell"]


def ability_rows(features: Callable[[Situation], Array], data: ChoiceData) -> AbilityRows | None:
    """The terms of choice data; None where only rows one by one can tell.

    They do where a row offers several LLMs, outcomes are hidden, rows are being traced, or one LLM
    failed more often than is told apart.

    Args:
        features: ``Situation -> z [feature]``, of the context alone.
        data: the choices, with ``failures``.
    """
    if isinstance(data.context, Tracer) or data.failures is None:
        return None
    weight = np.asarray(data.weight, np.float64)
    offered = np.asarray(data.offered)
    live = (weight > 0) & offered.any(axis=1)
    if (offered[live].sum(axis=1) > 1).any() or (np.asarray(data.choice)[live] < 0).any():
        return None
    context, choice = np.asarray(data.context)[live], np.asarray(data.choice)[live]
    before, served = np.asarray(data.failures)[live], offered[live].argmax(axis=1)
    after = before.copy()
    after[np.arange(len(after)), served] += choice == 0
    if (after > MOST_FAILURES).any():  # they are not told apart, and terms do not cancel
        return None
    none = np.zeros(len(choice), choice.dtype)
    states = np.concatenate([after, before]), np.concatenate([choice, none])
    signed = np.concatenate([weight[live], -weight[live]])
    _, group = np.unique(
        np.concatenate([context, context]).view(np.uint8).reshape(2 * len(context), -1),
        axis=0,
        return_inverse=True,
    )
    key = np.column_stack([group.ravel(), *states])
    terms, where, which = np.unique(key, axis=0, return_index=True, return_inverse=True)
    net = np.bincount(which.ravel(), signed, len(terms))
    tried = terms[:, 1:-1] > 0
    tried[np.arange(len(terms)), terms[:, -1] - 1] |= terms[:, -1] > 0
    kept = (np.abs(net) > 1e-9) & tried.any(axis=1)
    terms, tried, net = terms[kept], tried[kept], net[kept]
    term, llm = np.nonzero(tried)
    short, empty = -len(terms) % MULTIPLE, -len(term) % MULTIPLE
    whole = np.concatenate([context, context])[where[kept]]
    z = jax.vmap(features)(Situation(jnp.pad(jnp.asarray(whole), [(0, short), (0, 0)])))

    def cells(column: np.ndarray, fill: int = 0) -> Array:
        return jnp.asarray(np.append(column, np.full(empty, fill, column.dtype)))

    return AbilityRows(
        features=z,
        weight=jnp.asarray(np.append(net, np.zeros(short)), data.weight.dtype),
        term=cells(term, len(terms) + short),  # beyond the last: no term has them
        llm=cells(llm),
        failures=cells(terms[term, 1 + llm]),
        taken=cells(terms[term, -1] == llm + 1),
    )


def ability_log_likelihood(
    weights: Float[Array, "llm feature"],
    rates: tuple[Array, Array, Array, Array],
    rows: AbilityRows,
) -> Float[Array, ""]:
    """Log-likelihood of all rows under abilities ``w_j . z`` and rates ``can``, ``cannot``,
    ``hardness`` and ``persists``."""
    can, cannot, hardness, persists = rates
    # Nodes before cells: every operation runs along contiguous memory.
    mean = jnp.sum(rows.features[rows.term] * weights[rows.llm], axis=-1)
    ability = mean + hardness * jnp.asarray(NODES, mean.dtype)[:, None]
    success, failure = after_failures(ability, rows.failures, can, cannot, persists)
    each = jnp.log(jnp.where(rows.taken, success, success + failure))
    size = rows.weight.size
    total = jax.vmap(
        lambda node: jax.ops.segment_sum(node, rows.term, size, indices_are_sorted=True)
    )(each)
    mixed = jax.nn.logsumexp(total + jnp.asarray(np.log(WEIGHTS), mean.dtype)[:, None], axis=0)
    vain = jnp.sum(jnp.append(rows.weight, 0)[rows.term] * rows.failures)
    return jnp.vdot(rows.weight, mixed) + vain * jnp.log1p(-cannot)

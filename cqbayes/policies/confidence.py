"""What the confidence-bound policies share: per-LLM estimates and the widths of their ellipsoids.

Every LLM has an estimate ``w_j`` of the weights of ``z = (1, x)`` and a Gram matrix ``V_j``, kept
as a square root of its inverse, ``V_j^-1 = F_j F_j^T``, so that no width is ever the root of a
rounding error below zero. A row moves the estimates of the LLMs that it offers along ``V_j^-1 z``
and adds ``c_j z z^T`` to their Gram matrices, by Sherman and Morrison in Potter's form for roots::

    phi = F_j^T z,  s_j = |phi|^2 = ||z||^2_{V_j^-1}
    w_j <- w_j + gain_j F_j phi
    F_j <- F_j (I - g phi phi^T)      g = c_j / (r (1 + r)),  r = sqrt(1 + c_j s_j)

What ``gain_j`` and ``c_j`` are is the policy's *rule*:

- :func:`ridge`, of LinUCB: least squares of taken on the features, exactly;
- :func:`counted`: the Gram matrix of what was offered, and no estimate;
- :func:`mirror_descent`, of OFU-MNL+ (Lee and Oh 2024)::

      H~ = H + eta G(w),  w <- w + eta H~^-1 z (y - p),  H <- H + G(w after)

- :func:`newton`, of the queueing matching bandits (Kim and Oh 2024)::

      V <- V + kappa/2 z z^T,  w <- w + V^-1 z (y - p)

Between the LLMs of one assortment the MNL's curvature is ``diag(p) - p p^T``. The blocks keep its
lower bound ``p_0 diag(p)``, with ``p_0`` the probability of a retry: by Cauchy and Schwarz
``(sum_j p_j v_j)^2 <= (1 - p_0) sum_j p_j v_j^2``. With one answer it is exact; with more the
widths stay valid, and grow. This block form is ours; so is that estimates are not projected onto a
ball, for which one would have to know its radius.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.choice.assortments import best_assortment
from cqbayes.choice.data import ChoiceData
from cqbayes.choice.mnl import log_probabilities
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError
from cqbayes.inference.online import first_offered
from cqbayes.posterior.online_gaussian import blocks_along, potter_update

# The steepest slope of the logistic: how far a unit of log-odds moves a probability at most.
PROBABILITY_PER_LOG_ODDS = 0.25


class BoundEstimate(NamedTuple):
    """Estimated weights ``[llm, feature]`` and roots of the inverse Gram matrices."""

    location: Float[Array, "llm feature"]
    root: Float[Array, "llm feature feature"]


class Row(NamedTuple):
    """One service as a rule sees it: only along ``z``, and only the LLMs that were offered.

    Attributes:
        mean: estimated ``w_j . z``.
        variance: ``s_j = ||z||^2_{V_j^-1}``.
        shown: which places of the slate are filled by a row that counts.
        taken: which of them was taken.
        weight: of the row.
    """

    mean: Float[Array, " slate"]
    variance: Float[Array, " slate"]
    shown: Bool[Array, " slate"]
    taken: Bool[Array, " slate"]
    weight: Float[Array, ""]


Rule = Callable[[Row], tuple[Array, Array]]


def begin(num_llms: int, dim: int, ridge: float | Array, intercept: bool) -> BoundEstimate:
    """Nothing learnt: weights of 0 and Gram matrices ``ridge I``."""
    size = num_features(dim, intercept)
    root = jnp.eye(size) / jnp.sqrt(jnp.asarray(ridge, float))
    return BoundEstimate(jnp.zeros((num_llms, size)), jnp.tile(root, (num_llms, 1, 1)))


def num_features(dim: int, intercept: bool) -> int:
    return dim + intercept


def features(context: Float[Array, "*batch dim"], intercept: bool) -> Float[Array, "*batch size"]:
    """``z = (1, x)``, or ``x`` without intercepts."""
    if not intercept:
        return context
    return jnp.concatenate([jnp.ones_like(context[..., :1]), context], axis=-1)


def means_and_widths(
    estimate: BoundEstimate, z: Float[Array, "query feature"]
) -> tuple[Float[Array, "query llm"], Float[Array, "query llm"]]:
    """``w_j . z`` and ``||z||_{V_j^-1}`` of every query and LLM."""
    phi = jnp.einsum("jkl,qk->qjl", estimate.root, z)
    return z @ estimate.location.T, jnp.sqrt(jnp.sum(phi**2, axis=-1))


def learn(
    rule: Rule, slate_size: int, intercept: bool, estimate: BoundEstimate, rows: ChoiceData
) -> BoundEstimate:
    """All rows in their order, one pass; rows of weight zero change nothing.

    Args:
        rule: what a row's gains and curvatures are.
        slate_size: most LLMs that a row offers, known beforehand, so that the others' blocks are
            never touched; rows that offer more teach nothing.
        intercept: whether ``z`` begins with a 1.
        estimate: before.
        rows: the services.
    """
    rows = rows.cleared()
    columns = (features(rows.context, intercept), rows.offered, rows.choice, rows.weight)

    def one(
        estimate: BoundEstimate, row: tuple[Array, Array, Array, Array]
    ) -> tuple[BoundEstimate, None]:
        return _learn_row(rule, slate_size, estimate, *row), None

    if rows.num_obs == 1:
        return one(estimate, jax.tree.map(lambda column: column[0], columns))[0]
    return jax.lax.scan(one, estimate, columns)[0]


def _learn_row(
    rule: Rule,
    slate_size: int,
    estimate: BoundEstimate,
    z: Float[Array, " feature"],
    offered: Bool[Array, " llm"],
    choice: Int[Array, ""],
    weight: Float[Array, ""],
) -> BoundEstimate:
    llm = first_offered(offered, slate_size)
    count = jnp.sum(offered)
    shown = offered[llm] & (jnp.arange(slate_size) < count)
    shown = shown & (weight > 0) & (count <= slate_size)
    along = blocks_along(estimate.location, estimate.root, llm, z)
    taken = shown & (llm == choice - 1)
    gain, curvature = rule(Row(along.mean, along.variance, shown, taken, weight))
    root = jnp.sqrt(1 + curvature * along.variance)
    shrinkage = curvature / (root * (1 + root))
    gain, shrinkage = jnp.where(shown, gain, 0), jnp.where(shown, shrinkage, 0)
    return BoundEstimate(*potter_update(estimate.location, estimate.root, along, gain, shrinkage))


def ridge(row: Row) -> tuple[Array, Array]:
    """Least squares of ``[taken]`` on ``z``, one row at a time."""
    return row.weight * (row.taken - row.mean) / (1 + row.weight * row.variance), _ones(row)


def counted(row: Row) -> tuple[Array, Array]:
    """Adds ``z z^T``, estimates nothing."""
    return jnp.zeros_like(row.mean), _ones(row)


def _ones(row: Row) -> Float[Array, " slate"]:
    return jnp.full_like(row.mean, 1) * row.weight


def mirror_descent(slate_size: int) -> Rule:
    """The rule of OFU-MNL+, with its step size ``eta = log(K + 1) / 2 + 2``."""
    return Partial(_mirror_descent, jnp.asarray(math.log(slate_size + 1) / 2 + 2, float))


def _mirror_descent(step_size: Array, row: Row) -> tuple[Array, Array]:
    share, curvature = _shares(row.mean, row)
    move = step_size * row.weight * (row.taken - share)
    gain = move / (1 + step_size * curvature * row.variance)
    return gain, _shares(row.mean + gain * row.variance, row)[1]


def newton(kappa: float | Array) -> Rule:
    """The online Newton step with ``kappa``, a lower bound of ``p_0 p_j``, for curvature."""
    return Partial(_newton, jnp.asarray(kappa, float))


def _newton(kappa: Array, row: Row) -> tuple[Array, Array]:
    curvature = kappa / 2 * _ones(row)
    share, _ = _shares(row.mean, row)
    return row.weight * (row.taken - share) / (1 + curvature * row.variance), curvature


def _shares(utility: Float[Array, " slate"], row: Row) -> tuple[Array, Array]:
    """Choice probabilities ``p_j``, and the curvatures ``w p_0 p_j``."""
    probability = jnp.exp(log_probabilities(utility, row.shown))
    return probability[1:], row.weight * probability[0] * probability[1:]


def self_normalised(scale: float | Array, size: int, ridge: float | Array) -> Partial:
    """The radius ``t -> scale (sqrt(ridge) + sqrt(size log(1 + t / (size ridge))))``.

    The shape of Abbasi-Yadkori, Pal and Szepesvari (2011) for weights and features of norm 1, the
    logarithm of the confidence level left out.
    """
    return Partial(_self_normalised, jnp.asarray(scale, float), jnp.asarray(ridge, float), size)


def _self_normalised(scale: Array, ridge: Array, size: int, t: Array) -> Float[Array, ""]:
    return scale * (jnp.sqrt(ridge) + jnp.sqrt(size * jnp.log1p(t / (size * ridge))))


def highest(
    bound: Float[Array, "room llm"],
    seen: Observation,
    slate_size: int,
    values: Float[Array, " llm"] | None,
) -> Action:
    """The query and the ``slate_size`` LLMs with the highest sum of upper bounds.

    For rules whose bounds are those of probabilities, each LLM alone. With one answer it is the
    pair of the highest bound. With more, the sum bounds the probability that any of them is taken
    from above, and needs no model of how answers compete. A bound is multiplied by its answer's
    worth, and a priority, which is in log-odds, counts a quarter: the logistic's steepest slope.
    """
    worth = bound if values is None else bound * values
    offered, _ = best_assortment(worth, slate_size)
    score = jnp.sum(jnp.where(offered, worth, 0), axis=-1)
    if seen.priority is not None:
        score = score + PROBABILITY_PER_LOG_ODDS * seen.priority
    query = jnp.argmax(jnp.where(seen.waiting, score, -jnp.inf))
    return Action(query, offered[query])


def check_positive(name: str, **settings: float | Array) -> None:
    """Refuses settings that must be positive numbers.

    Raises:
        InputError: names the first that is not.
    """
    for setting, value in settings.items():
        if isinstance(value, float | int) and not 0 < value < float("inf"):
            raise InputError(f"{name}: expected {setting} to be a positive number, got {value!r}")


def start(estimate: Any, key: PRNGKeyArray) -> Any:
    """The ``init`` of a policy that begins with ``estimate``."""
    return estimate

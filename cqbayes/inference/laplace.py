"""Laplace approximation: mode by damped Newton, curvature at the mode, importance resampling.

::

    m = argmax log p(v | data),   H = -d^2 log p / dv^2 at m,   q = Normal(m, H^-1)

``fit`` gives ``q``. A gradient costs far less than a curvature, so one curvature serves for several
steps, as long as they make progress. If there are many rows, the first curvature and the starting
point come from a part of the rows.

``check`` draws from ``q``, weighs the draws by ``p / q`` with Pareto-smoothed importance sampling
(Vehtari et al. 2024, through ArviZ) and resamples them. :func:`cqbayes.infer` then returns
approximate draws of the exact posterior. Some draws are repeated; ``info.stats["ess"]`` says how
many independent draws the weighted draws are worth. If k-hat of ``S`` draws is
``min(1 - 1 / log10(S), 0.7)`` or more, or if too few effective draws are left,
:func:`cqbayes.infer` returns ``q``, and the status says that the approximation is poor.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.data import ChoiceData
from cqbayes.choice.linear_likelihood import information, linear_log_likelihood
from cqbayes.errors import InputError
from cqbayes.inference.engine import Engine
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.log_densities import has_linear_likelihood, linear_target, log_posterior
from cqbayes.posterior.posteriors import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

NUM_DRAWS = 2_000
MOST_KHAT_TO_RESAMPLE = 0.7  # from 0.7 on importance weights fail, however many draws there are
LEAST_ESS = 400
LEAST_DRAWS = 25  # so that the tail has five draws
MOST_PARAMETERS = 20_000  # the curvature, a dense matrix, then takes 1.5 GiB
AT_ONCE = 1_000_000  # utilities in memory while columns of a Hessian are differentiated
PART = 20_000  # fewest rows for the first curvature
PART_PER_PARAMETER = 20  # fewest rows for the first curvature, for each parameter
FLOOR = 1e-2  # a decrement below this, a tenth of a posterior sd at most, may be rounding
PROGRESS = 0.1  # a decrement above this share of the last one calls for a new curvature


class Surface(NamedTuple):
    """A log-density with its derivatives, as functions of the unconstrained vector."""

    value_and_slope: Callable[[Array], tuple[Array, Array]]
    curvature: Callable[[Array], Array]


def surface(model: PreferenceModel, data: ChoiceData) -> Surface:
    """The log-posterior with its derivatives.

    If utilities are linear, with inner parameters ``W(v)``, the weights and the rates of a channel,
    the curvature is ``J^T I(W) J - d^2 (log_prior(v) + <s, W(v)>) / dv^2``, where ``J = dW / dv``,
    ``I`` is the information and ``s`` the slope of the log-likelihood at ``W``.
    """
    if not has_linear_likelihood(model):
        density = log_posterior(model, data)
        columns = max(1, AT_ONCE // (data.num_obs * data.num_llms))
        return Surface(jax.value_and_grad(density), lambda v: -_hessian(density, v, columns))
    target = linear_target(model, data)

    def flat(vector: Array) -> Array:
        return ravel_pytree(target.inner(vector))[0]

    def curvature(vector: Array) -> Array:
        inner = target.inner(vector)
        slope = ravel_pytree(jax.grad(linear_log_likelihood)(inner, target.rows))[0]
        jacobian = jax.jacfwd(flat)(vector)

        def bend(v: Array) -> Array:
            return target.log_prior(v) + jnp.vdot(slope, flat(v))

        outer = jacobian.T @ information(inner, target.rows) @ jacobian
        return outer - jax.hessian(bend)(vector)

    return Surface(jax.value_and_grad(target.density), curvature)


def _hessian(density: Callable[[Array], Array], vector: Array, columns: int) -> Array:
    """The Hessian, a few columns at a time: each column needs intermediate numbers for all rows."""
    _, push = jax.linearize(jax.grad(density), vector)
    batches = -(-vector.size // columns)
    columns = -(-vector.size // batches)
    basis = jnp.eye(batches * columns, vector.size, dtype=vector.dtype)  # padded with zeros
    found = jax.lax.map(jax.vmap(push), basis.reshape(batches, columns, vector.size))
    return found.reshape(-1, vector.size)[: vector.size]


class _Newton(NamedTuple):
    vector: Array
    value: Array
    slope: Array
    curvature: Array
    fresh: Array  # whether the curvature was taken at the vector
    damping: Array
    decrement: Array  # the decrement of the last accepted step
    converged: Array
    iteration: Array
    curvatures: Array


def _climb(at: Surface, begin: Array, curvature: Array, max_iterations: int) -> _Newton:
    """The mode by damped Newton steps from ``begin``.

    Steps use ``curvature`` as long as they make progress, then a new one. A ``curvature`` of NaN
    means that there is none yet.

    Each step solves ``(H + damping I) step = slope``. A step that does not raise the density is
    rejected and the damping raised, so every accepted step climbs, up to rounding.
    """
    tolerance = 100 * jnp.finfo(begin.dtype).eps
    identity = jnp.eye(begin.size, dtype=begin.dtype)

    def solve(curvature: Array, damping: Array, slope: Array) -> tuple[Array, Array]:
        lower = jnp.linalg.cholesky(curvature + damping * identity)
        step = cho_solve((lower, True), slope)
        return step, slope @ step  # the decrement: twice the expected climb of the step

    def unfinished(state: _Newton) -> Array:
        return (state.iteration < max_iterations) & ~state.converged

    def iterate(state: _Newton) -> _Newton:
        step, decrement = solve(state.curvature, state.damping, state.slope)
        # A curvature that is not positive definite gives a decrement of NaN: no progress either.
        stale = ~state.fresh & ~(decrement < PROGRESS * state.decrement)

        def renew(_: None) -> tuple[Array, Array, Array]:
            curvature = at.curvature(state.vector)
            return curvature, *solve(curvature, state.damping, state.slope)

        curvature, step, decrement = jax.lax.cond(
            stale, renew, lambda _: (state.curvature, step, decrement), None
        )
        # If a new curvature does not help either, the rest of the decrement is rounding.
        at_floor = stale & (decrement < FLOOR) & ~(decrement < PROGRESS * state.decrement)
        candidate = state.vector + step
        value, slope = at.value_and_slope(candidate)
        # Near the mode rounding hides the climb: a fall within rounding counts as a climb.
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        climbs = jnp.isfinite(value) & (value >= state.value - noise)
        return _Newton(
            vector=jnp.where(climbs, candidate, state.vector),
            value=jnp.where(climbs, value, state.value),
            slope=jnp.where(climbs, slope, state.slope),
            curvature=curvature,
            damping=jnp.where(climbs, state.damping / 10, jnp.maximum(state.damping, 1e-2) * 10),
            fresh=(state.fresh | stale) & ~climbs,
            # 0 after a rejected step: the next step then needs a new curvature.
            decrement=jnp.where(climbs, decrement, 0),
            # A step that is short because of damping does not mean that the mode is near.
            converged=climbs & (state.damping < 1e-3) & ((decrement <= tolerance) | at_floor),
            iteration=state.iteration + 1,
            curvatures=state.curvatures + stale,
        )

    zero = jnp.zeros((), begin.dtype)
    no, none = jnp.array(False), jnp.array(0)
    value, slope = at.value_and_slope(begin)
    first = _Newton(begin, value, slope, curvature, no, zero, zero + jnp.inf, no, none, none)
    return jax.lax.while_loop(unfinished, iterate, first)


def _part(data: ChoiceData, size: int) -> ChoiceData | None:
    """Evenly spread rows with the total weight of all rows, or None if the data have few rows."""
    stride = data.num_obs // max(PART, PART_PER_PARAMETER * size)
    if stride < 4:
        return None
    part = jax.tree.map(lambda column: column[::stride], data.without_terms())
    total = jnp.sum(part.weight)
    scale = jnp.where(total > 0, jnp.sum(data.weight) / jnp.where(total > 0, total, 1), 1)
    return eqx.tree_at(lambda d: d.weight, part, part.weight * scale)


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    max_iterations: int = 60,
) -> tuple[Gaussian, InferenceInfo]:
    """The Gaussian at the mode of the posterior.

    Args:
        key, model, data, start: as in every engine; the search begins at the mean of ``start``.
        max_iterations: most Newton steps.
    """
    sizes = sizes_of(data)
    size = layout(model, sizes).size
    check_size("laplace", size)
    at = surface(model, data)
    begin = jnp.asarray(layout(model, sizes).begin) if start is None else start.centre
    unknown = jnp.full((size, size), jnp.nan)
    part = _part(data, size)
    if part is None:
        last = _climb(at, begin, unknown, max_iterations)
    else:
        near = surface(model, part)
        rough = _climb(near, begin, unknown, max_iterations)
        begin = jnp.where(jnp.isfinite(rough.vector), rough.vector, begin)
        last = _climb(at, begin, rough.curvature, max_iterations)
    curvature = at.curvature(last.vector)
    lower = jnp.linalg.cholesky(curvature)
    peaked = jnp.isfinite(lower).all()
    # Without a peak, the identity stands in: NaN must not spread before the status is read.
    identity = jnp.eye(size)
    lower = jnp.where(peaked, lower, identity)
    factor = solve_triangular(lower, identity, lower=True, trans="T")
    status = jnp.select(
        [~jnp.isfinite(last.value), ~peaked, ~last.converged],
        [Status.NOT_FINITE, Status.NOT_POSITIVE_DEFINITE, Status.NOT_CONVERGED],
        Status.OK,
    )
    stats = {
        "iterations": last.iteration,
        "curvatures": last.curvatures + 1,
        "decrement": last.decrement,
        "log_density": last.value,
    }
    gaussian = Gaussian(location=last.vector, factor=factor, model=model, sizes=sizes)
    return gaussian, InferenceInfo("laplace", status, stats)


def check_size(engine: str, size: int) -> None:
    """Refuses models with so many parameters that their covariance does not fit into memory."""
    if size > MOST_PARAMETERS:
        raise InputError(
            f"engine {engine}: expected at most {MOST_PARAMETERS} parameters, since their "
            f"covariance is a dense matrix, got {size}; use the engine nuts, and number users and "
            "times without gaps"
        )


def difference(model: PreferenceModel, data: ChoiceData, vector: Array) -> Callable[[Array], Array]:
    """Log-posterior density up to a constant, with precise differences from ``vector``.

    Only differences of the log-likelihood matter, and they are small beside the sum over many rows.
    If utilities are linear, the differences are taken row by row and then summed. For other models
    the plain log-posterior is returned.
    """
    if has_linear_likelihood(model):
        return linear_target(model, data).anchored(vector).density
    return log_posterior(model, data)


class Normal(Protocol):
    """A Gaussian posterior, with any representation of its covariance."""

    @property
    def model(self) -> PreferenceModel: ...

    @property
    def centre(self) -> Float[Array, " parameter"]: ...

    def vector_at(self, noise: Float[Array, " parameter"]) -> Float[Array, " parameter"]: ...


@eqx.filter_jit
def _log_ratios(noise: Array, normal: Normal, data: ChoiceData) -> Array:
    """Log importance ratios ``log p / q`` ``[draw]`` of the vectors that ``noise`` gives."""
    density = difference(normal.model, data, normal.centre)

    def ratio(noise: Array) -> Array:
        return density(normal.vector_at(noise)) + 0.5 * jnp.sum(noise**2)

    # A few draws at a time: all at once would hold draws x rows in memory.
    return jax.lax.map(ratio, noise, batch_size=16)


def log_ratios(noise: Array, normal: Normal, data: ChoiceData) -> np.ndarray:
    """Log importance ratios ``[draw]`` as a NumPy array.

    They are computed in double precision if differences are not taken row by row.
    """
    if has_linear_likelihood(normal.model):
        return np.asarray(_log_ratios(noise, normal, data), np.float64)
    with jax.enable_x64(True):
        return np.asarray(_log_ratios(*jax.tree.map(_doubled, (noise, normal, data))))


class Smoothed(NamedTuple):
    """Pareto-smoothed importance weights, which sum to 1, with k-hat and effective sample size.

    If the ratios cannot be smoothed, k-hat is infinite and the effective sample size 0.
    """

    weight: np.ndarray
    khat: float

    @property
    def ess(self) -> float:
        return 1 / float(np.sum(self.weight**2)) if np.isfinite(self.khat) else 0.0

    @property
    def stats(self) -> dict[str, Array]:
        return {"khat": jnp.asarray(self.khat), "ess": jnp.asarray(self.ess)}


def khat_limit(num_draws: int) -> float:
    """Importance weights are trusted if k-hat is below this (Vehtari et al. 2024)."""
    return min(1 - 1 / math.log10(num_draws), MOST_KHAT_TO_RESAMPLE)


def pareto_smoothed(log_ratio: np.ndarray) -> Smoothed:
    """Weights from log importance ratios ``[draw]``."""
    from arviz_stats.base import array_stats

    equal = np.full(log_ratio.size, 1 / log_ratio.size)
    if not np.isfinite(log_ratio).all():
        return Smoothed(equal, np.inf)
    if np.ptp(log_ratio) < 1e-3:  # the Gaussian is exact: there is no tail to fit
        return Smoothed(equal, 0.0)
    # ArviZ takes the log-likelihoods of leave-one-out: minus the log importance ratios. If ratios
    # are so far apart that the tail underflows to ties, the fit fails; the check below sees it.
    with np.errstate(all="ignore"):
        log_weight, khat = array_stats.psislw(log_ratio.max() - log_ratio)
        weight = np.exp(log_weight - np.max(log_weight))
    if not np.isfinite(weight).all() or np.isnan(khat):
        return Smoothed(equal, np.inf)
    return Smoothed(weight / weight.sum(), float(khat))


def check_num_draws(engine: str, num_draws: int, least_ess: float = 0) -> None:
    """Refuses too few draws: k-hat needs a tail, and ``least_ess`` must be possible."""
    if num_draws < max(least_ess, LEAST_DRAWS):
        raise InputError(
            f"engine {engine}: expected num_draws of at least {LEAST_DRAWS} and at least least_ess "
            f"({least_ess:g}), got {num_draws}"
        )


def check(
    key: PRNGKeyArray,
    posterior: Gaussian,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
    num_draws: int = NUM_DRAWS,
    least_ess: float = LEAST_ESS,
) -> tuple[Posterior, InferenceInfo]:
    """Importance-resampled draws of the Gaussian, or the Gaussian itself if k-hat or ESS is poor.

    Args:
        key, posterior, info, model, data: as in every engine.
        num_draws: number of draws of the Gaussian, and of resampled draws.
        least_ess: smallest effective sample size with which draws are returned.
    """
    check_num_draws(info.engine, num_draws, least_ess)
    if not info.ok:
        return posterior, info
    draw_key, offset_key, shuffle_key = jax.random.split(key, 3)
    noise = jax.random.normal(draw_key, (num_draws, posterior.location.size))
    found = pareto_smoothed(log_ratios(noise, posterior, data))
    stats = info.stats | found.stats
    if not (found.khat < khat_limit(num_draws) and found.ess >= least_ess):
        status = jnp.array(Status.POOR_APPROXIMATION)
        return posterior, InferenceInfo(info.engine, status, stats)
    # Systematic resampling: the lowest variance among the simple schemes.
    points = (np.arange(num_draws) + float(jax.random.uniform(offset_key))) / num_draws
    index = np.minimum(np.searchsorted(np.cumsum(found.weight), points), num_draws - 1)
    # Shuffled, so that order carries no meaning and chains could be cut from it.
    index = jax.random.permutation(shuffle_key, jnp.asarray(index))
    vectors = posterior.location + noise[index] @ posterior.factor.T
    draws = Draws(
        vectors=vectors[None],
        model=model,
        sizes=posterior.sizes,
        # Errors of the weights and, at worst, of multinomial resampling add up.
        effective=jnp.asarray(1 / (1 / found.ess + 1 / num_draws)),
    )
    return draws, InferenceInfo(info.engine, info.status, stats)


def _doubled(x: Array) -> Array:
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


ENGINE = Engine(fit, check)

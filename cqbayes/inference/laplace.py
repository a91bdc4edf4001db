"""Laplace approximation: the mode by damped Newton, the curvature there, then importance sampling.

::

    m = argmax log p(v | data),   H = -d^2 log p / dv^2 at m,   q = Normal(m, H^-1)

``fit`` gives ``q``. ``check`` draws from ``q``, weighs the draws by ``p / q`` with Pareto-smoothed
importance sampling (Vehtari et al. 2024, through ArviZ) and resamples them. What
:func:`cqbayes.infer` returns are then approximately draws of the exact posterior, repeated ones
among them: ``info.stats["ess"]`` says how many weighted draws they are worth. Where k-hat is 0.7 or
more, or too few effective draws are left, it returns ``q`` and says so.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, PRNGKeyArray

from cqbayes.choice import ChoiceData
from cqbayes.inference import Engine, InferenceInfo, Status
from cqbayes.posterior import Draws, Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, log_posterior, sizes_of

NUM_DRAWS = 2_000
KHAT_LIMIT = 0.7  # from it on importance weights are not to be trusted, however many the draws
LEAST_ESS = 400


class _Newton(NamedTuple):
    vector: Array
    value: Array
    damping: Array
    decrement: Array
    iteration: Array


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    max_iterations: int = 60,
) -> tuple[Gaussian, InferenceInfo]:
    """The Gaussian at the mode.

    Each step solves ``(H + damping I) step = gradient``. A step that does not raise the density
    is taken back and the damping raised, so every accepted step climbs.
    """
    sizes = sizes_of(data)
    density = log_posterior(model, data)
    gradient, hessian = jax.grad(density), jax.hessian(density)
    begin = start.location if isinstance(start, Gaussian) else jnp.zeros(layout(model, sizes).size)
    tolerance = 100 * jnp.finfo(begin.dtype).eps
    identity = jnp.eye(begin.size, dtype=begin.dtype)

    def unfinished(state: _Newton) -> Array:
        return (state.iteration < max_iterations) & (state.decrement > tolerance)

    def iterate(state: _Newton) -> _Newton:
        slope, curvature = gradient(state.vector), -hessian(state.vector)
        lower = jnp.linalg.cholesky(curvature + state.damping * identity)
        step = cho_solve((lower, True), slope)
        candidate = state.vector + step
        value = density(candidate)
        decrement = slope @ step  # twice the climb that the quadratic model promises
        # Near the mode rounding hides the climb: a step that promises less is as good as none.
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(state.value)
        climbs = jnp.isfinite(value) & (value >= state.value - noise)
        return _Newton(
            vector=jnp.where(climbs, candidate, state.vector),
            value=jnp.where(climbs, value, state.value),
            damping=jnp.where(climbs, state.damping / 10, jnp.maximum(state.damping, 1e-2) * 10),
            # A short step is no sign of the mode where damping made it short.
            decrement=jnp.where(climbs & (state.damping < 1e-3), decrement, jnp.inf),
            iteration=state.iteration + 1,
        )

    zero = jnp.zeros((), begin.dtype)
    first = _Newton(begin, density(begin), zero, zero + jnp.inf, jnp.array(0))
    last = jax.lax.while_loop(unfinished, iterate, first)
    curvature = -hessian(last.vector)
    lower = jnp.linalg.cholesky(curvature)
    peaked = jnp.isfinite(lower).all()
    # A finite stand-in keeps NaN out of whatever is computed before the status is looked at.
    lower = jnp.where(peaked, lower, identity)
    factor = solve_triangular(lower, identity, lower=True, trans="T")
    status = jnp.select(
        [~jnp.isfinite(last.value), ~peaked, last.decrement > tolerance],
        [Status.NOT_FINITE, Status.NOT_POSITIVE_DEFINITE, Status.NOT_CONVERGED],
        Status.OK,
    )
    stats = {"iterations": last.iteration, "decrement": last.decrement, "log_density": last.value}
    gaussian = Gaussian(location=last.vector, factor=factor, model=model, sizes=sizes)
    return gaussian, InferenceInfo("laplace", status, stats)


@eqx.filter_jit
def _log_ratios(noise: Array, gaussian: Gaussian, data: ChoiceData) -> Array:
    """Log importance ratios ``log p / q`` of draws ``location + factor noise``, ``[draw]``."""
    density = log_posterior(gaussian.model, data)
    vectors = gaussian.location + noise @ gaussian.factor.T
    # A few draws at a time: all at once would hold draws x rows in memory.
    return jax.lax.map(density, vectors, batch_size=16) + 0.5 * jnp.sum(noise**2, axis=-1)


def _pareto_smoothed(log_ratio: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised weights and k-hat; k-hat is infinite where the ratios cannot be smoothed."""
    from arviz_stats.base import array_stats

    equal = np.full(log_ratio.size, 1 / log_ratio.size)
    if not np.isfinite(log_ratio).all():
        return equal, np.inf
    if np.ptp(log_ratio) < 1e-8:  # the Gaussian is exact: there is no tail to fit
        return equal, 0.0
    # ArviZ takes what leave-one-out has, log-likelihoods: the negative of log importance ratios.
    log_weight, khat = array_stats.psislw(log_ratio.max() - log_ratio)
    weight = np.exp(log_weight - np.max(log_weight))
    if not np.isfinite(weight).all():
        return equal, np.inf
    return weight / weight.sum(), float(khat)


def check(
    key: PRNGKeyArray,
    posterior: Gaussian,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """Pareto-smoothed importance resampling of the Gaussian, with its k-hat."""
    if not info.ok:
        return posterior, info
    draw_key, offset_key, shuffle_key = jax.random.split(key, 3)
    noise = jax.random.normal(draw_key, (NUM_DRAWS, posterior.location.size))
    # In double precision: a density over many rows is large, and only its differences matter.
    with jax.enable_x64(True):
        double = jax.tree.map(_doubled, (noise, posterior, data))
        log_ratio = np.asarray(_log_ratios(*double))
    weight, khat = _pareto_smoothed(log_ratio)
    ess = 1 / np.sum(weight**2)
    stats = dict(info.stats, khat=jnp.asarray(khat), ess=jnp.asarray(ess))
    if not (khat < KHAT_LIMIT and ess >= LEAST_ESS):
        status = jnp.array(Status.POOR_APPROXIMATION)
        return posterior, InferenceInfo(info.engine, status, stats)
    # Systematic resampling: the lowest variance among the simple schemes.
    points = (np.arange(NUM_DRAWS) + float(jax.random.uniform(offset_key))) / NUM_DRAWS
    index = np.minimum(np.searchsorted(np.cumsum(weight), points), NUM_DRAWS - 1)
    # Shuffled, so that order carries no meaning and chains could be cut from it.
    index = jax.random.permutation(shuffle_key, jnp.asarray(index))
    vectors = posterior.location + noise[index] @ posterior.factor.T
    draws = Draws(
        vectors=vectors[None],
        model=model,
        sizes=posterior.sizes,
        # Errors of the weights and, at worst, of multinomial resampling add up.
        effective=jnp.asarray(1 / (1 / ess + 1 / NUM_DRAWS)),
    )
    return draws, InferenceInfo(info.engine, info.status, stats)


def _doubled(x: Array) -> Array:
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


ENGINE = Engine(fit, check)

"""Laplace approximation: the mode by damped Newton, the curvature there, then importance sampling.

::

    m = argmax log p(v | data),   H = -d^2 log p / dv^2 at m,   q = Normal(m, H^-1)

``fit`` gives ``q``. ``check`` draws from ``q``, weighs the draws by ``p / q`` with Pareto-smoothed
importance sampling (Vehtari et al. 2024, through ArviZ) and resamples them, so that what
:func:`cqbayes.infer` returns are draws of the exact posterior wherever k-hat is below 0.7.
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
KHAT_LIMIT = 0.7  # above it importance weights are not to be trusted, however many the draws


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
def _weighted_draws(
    key: PRNGKeyArray, gaussian: Gaussian, data: ChoiceData, num_draws: int
) -> tuple[Array, Array]:
    """Draws of the Gaussian ``[draw, parameter]`` and their log importance ratios ``[draw]``."""
    noise = jax.random.normal(key, (num_draws, gaussian.location.size), gaussian.location.dtype)
    vectors = gaussian.location + noise @ gaussian.factor.T
    density = log_posterior(gaussian.model, data)
    # One draw after another: all at once would hold draws x rows in memory.
    target = jax.lax.map(density, vectors, batch_size=16)
    return vectors, target + 0.5 * jnp.sum(noise**2, axis=-1)


def check(
    key: PRNGKeyArray,
    posterior: Gaussian,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """Pareto-smoothed importance resampling of the Gaussian, with its k-hat."""
    from arviz_stats.base import array_stats

    if not info.ok:
        return posterior, info
    draw_key, pick_key = jax.random.split(key)
    vectors, log_ratio = _weighted_draws(draw_key, posterior, data, NUM_DRAWS)
    ratio = np.asarray(log_ratio, np.float64)
    if not np.isfinite(ratio).all():
        return posterior, InferenceInfo(info.engine, jnp.array(Status.NOT_FINITE), info.stats)
    # ArviZ takes what leave-one-out has, log-likelihoods: the negative of log importance ratios.
    log_weight, khat = array_stats.psislw(ratio.max() - ratio)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    stats = dict(info.stats, khat=jnp.asarray(khat), ess=jnp.asarray(1 / np.sum(weight**2)))
    if float(khat) >= KHAT_LIMIT:
        status = jnp.array(Status.POOR_APPROXIMATION)
        return posterior, InferenceInfo(info.engine, status, stats)
    # Systematic resampling: the lowest variance among the simple schemes.
    offset = jax.random.uniform(pick_key, ())
    points = (jnp.arange(NUM_DRAWS) + offset) / NUM_DRAWS
    index = np.minimum(np.searchsorted(np.cumsum(weight), np.asarray(points)), NUM_DRAWS - 1)
    # Shuffled, so that order carries no meaning and chains could be cut from it.
    index = jax.random.permutation(pick_key, jnp.asarray(index))
    draws = Draws(vectors=vectors[index][None], model=model, sizes=posterior.sizes)
    return draws, InferenceInfo(info.engine, info.status, stats)


ENGINE = Engine(fit, check)

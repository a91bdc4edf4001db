"""NumPyro's No-U-Turn Sampler: the general case, and the reference for the other engines.

Hoffman and Gelman 2014, as implemented in NumPyro, with its own warm-up.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer import NUTS

from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference import laplace
from cqbayes.inference.engine import Engine
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.posteriors import Draws, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100  # Vehtari et al. 2021
MOST_DIVERGING = 0.01  # largest share of diverging draws in a refit, which has no R-hat and ESS


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    num_warmup: int = 500,
    num_draws: int = 500,
    num_chains: int = 4,
    target_accept: float = 0.8,
    dense_mass: bool = False,
) -> tuple[Draws, InferenceInfo]:
    """Draws of the posterior, ``[chain, draw, parameter]``.

    Chains start at draws of ``start`` if it is given; otherwise each coordinate of the
    unconstrained vector starts uniformly within 1 of where searches begin.

    Raises:
        InputError: for a ``target_accept`` that is not between 0 and 1.
    """
    if not 0 < target_accept < 1:
        raise InputError(
            f"engine nuts: expected target_accept between 0 and 1, got {target_accept!r}"
        )
    sizes = sizes_of(data)
    first = jnp.asarray(layout(model, sizes).begin)
    anchor = first if start is None else start.centre
    density = laplace.difference(model, data, anchor)

    def chain(key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        begin_key, run_key = jax.random.split(key)
        kernel = NUTS(
            potential_fn=lambda vector: -density(vector),
            target_accept_prob=target_accept,
            dense_mass=dense_mass,
        )
        begin = _begin(begin_key, start, first)
        state = kernel.init(run_key, num_warmup, begin, model_args=(), model_kwargs={})
        state = jax.lax.fori_loop(0, num_warmup, lambda _, s: kernel.sample(s, (), {}), state)

        def step(state, _):
            state = kernel.sample(state, (), {})
            stats = {
                "diverging": state.diverging,
                "n_steps": state.num_steps,
                "acceptance_rate": state.accept_prob,
                "energy": state.energy,
            }
            return state, (state.z, stats)

        return jax.lax.scan(step, state, length=num_draws)[1]

    # Side by side, each chain waits for the longest tree among them, and compiles for longer; an
    # accelerator has nothing else to do meanwhile.
    at_once = None if jax.default_backend() == "cpu" else num_chains
    vectors, stats = jax.lax.map(chain, jax.random.split(key, num_chains), batch_size=at_once)
    vectors = jax.vmap(jax.vmap(layout(model, sizes).canonical))(vectors)
    status = jnp.select(
        [~jnp.isfinite(vectors).all(), jnp.mean(stats["diverging"]) > MOST_DIVERGING],
        [Status.NOT_FINITE, Status.POOR_MIXING],
        Status.OK,
    )
    draws = Draws(vectors=vectors, model=model, sizes=sizes)
    return draws, InferenceInfo("nuts", status, stats)


def _begin(key: PRNGKeyArray, start: Posterior | None, first: Array) -> Array:
    if start is None:
        return first + jax.random.uniform(key, first.shape, minval=-1.0, maxval=1.0)
    return start.draw_vector(key)


def check(
    key: PRNGKeyArray,
    posterior: Draws,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
) -> tuple[Posterior, InferenceInfo]:
    """The posterior, and its report with R-hat and ESS (ArviZ) and divergences (NumPyro)."""
    import arviz_stats

    draws = posterior.to_arviz()["posterior"].dataset
    free = _free(posterior)

    def over_free(table: Any) -> np.ndarray:
        return np.concatenate([table[name].values[free[name]] for name in free])

    with np.errstate(divide="ignore", invalid="ignore"):  # chains that never moved
        # R-hat of such chains is NaN. np.max keeps it, and a NaN passes no limit below.
        rhat = float(np.max(over_free(arviz_stats.rhat(draws))))
        ess = min(
            float(np.min(over_free(arviz_stats.ess(draws, method=method))))
            for method in ("bulk", "tail")
        )
    divergences = int(np.sum(info.stats["diverging"]))
    chains = posterior.vectors.shape[0]
    # R-hat needs several chains; for one chain the effective sample size decides alone.
    mixed = chains == 1 or rhat <= RHAT_LIMIT
    poor = not mixed or not ess >= ESS_PER_CHAIN * chains or divergences > 0
    status = Status.POOR_MIXING if info.ok and poor else Status(int(info.status))
    summary = {
        "rhat": jnp.array(rhat),
        "ess": jnp.array(ess),
        "divergences": jnp.array(divergences),
        "steps_per_draw": jnp.mean(info.stats["n_steps"]),
    }
    return posterior, InferenceInfo(info.engine, jnp.array(int(status)), info.stats | summary)


def _free(posterior: Draws) -> dict[str, np.ndarray]:
    """For every reported site, a mask ``[...]`` of its elements that depend on the parameters."""
    size = posterior.vectors.shape[-1]
    reported = posterior.report(jax.random.normal(jax.random.key(0), (1, 8, size)))
    return {name: np.ptp(np.asarray(x), axis=(0, 1)) > 0 for name, x in reported.items()}


ENGINE = Engine(fit, check)

"""Fixed-step HMC in Laplace-whitened coordinates: no warm-up, for log-concave posteriors.

The Laplace fit is ``Normal(m, F F^T)``. With ``v = m + F w``, the density of ``w`` is close to a
standard normal, and the best step for a standard normal is known: about ``1.3 P^(-1/4)`` for ``P``
parameters. Each proposal is a few leapfrog steps on ``-log p(m + F w)`` with a jittered step size,
accepted by Metropolis (Duane et al. 1987; Neal 2011). Chains start at draws of the Laplace fit.
They run side by side, so that one matrix product gives the gradients of all chains.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.choice.data import ChoiceData
from cqbayes.inference import laplace
from cqbayes.inference.engine import Engine
from cqbayes.inference.nuts import check
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.posteriors import Draws, Posterior
from cqbayes.preference import PreferenceModel

STEP = 1.3
JITTER = 0.2
PATH = math.pi / 2


class _Chain(NamedTuple):
    position: Float[Array, " parameter"]
    value: Float[Array, ""]
    slope: Float[Array, " parameter"]


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    num_chains: int = 8,
    num_draws: int = 500,
    num_leapfrogs: int | None = None,
    num_burn_in: int = 20,
) -> tuple[Draws, InferenceInfo]:
    """Draws of the posterior, ``[chain, draw, parameter]``.

    Args:
        key, model, data, start: as in every engine; ``start`` goes to the Laplace fit.
        num_chains: number of chains.
        num_draws: number of kept draws in each chain.
        num_leapfrogs: leapfrog steps, hence gradients, for each draw. If absent, as many as make a
            path of length pi / 2 or more: on a standard normal a path of pi / 2 forgets its start,
            and a path of pi mirrors it. The number is 4 or 5 for 40 to 290 parameters, and grows as
            ``P^(1/4)``: 7 for 700 parameters.
        num_burn_in: first draws of each chain, which are thrown away, since the Laplace fit is only
            close to the posterior.
    """
    gaussian, found = laplace.fit(key, model, data, start)
    density = laplace.difference(model, data, gaussian.location)

    def whitened(position: Array) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda w: density(gaussian.location + gaussian.factor @ w))(
            position
        )

    size = gaussian.location.size
    longest = STEP * size**-0.25
    leapfrogs = num_leapfrogs or math.ceil(PATH / longest)
    if num_leapfrogs is None:
        # With few parameters, paths would otherwise come close to pi.
        longest = min(longest, 1.1 * PATH / leapfrogs)

    def propose(chain: _Chain, key: PRNGKeyArray) -> tuple[_Chain, Array, Array]:
        momentum_key, step_key, accept_key = jax.random.split(key, 3)
        begin = jax.random.normal(momentum_key, (size,))
        step = longest * jax.random.uniform(step_key, minval=1 - JITTER, maxval=1 + JITTER)

        def leapfrog(state: tuple[_Chain, Array], _: None):
            at, momentum = state
            momentum = momentum + step / 2 * at.slope
            position = at.position + step * momentum
            value, slope = whitened(position)
            return (_Chain(position, value, slope), momentum + step / 2 * slope), None

        (end, momentum), _ = jax.lax.scan(leapfrog, (chain, begin), length=leapfrogs)
        gain = end.value - chain.value + (begin @ begin - momentum @ momentum) / 2
        # A proposal with NaN is rejected, since comparisons with NaN are False.
        accepted = jnp.log(jax.random.uniform(accept_key)) < gain
        kept = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), end, chain)
        return kept, jnp.minimum(1, jnp.exp(gain)), ~(gain > -1_000)

    start_key, run_key = jax.random.split(jax.random.fold_in(key, 1))
    positions = jax.random.normal(start_key, (num_chains, size))
    chains = _Chain(positions, *jax.vmap(whitened)(positions))

    def round_of_all(chains: _Chain, key: PRNGKeyArray):
        chains, acceptance, diverging = jax.vmap(propose)(chains, jax.random.split(key, num_chains))
        return chains, (chains.position, acceptance, diverging)

    keys = jax.random.split(run_key, num_burn_in + num_draws)
    _, (drawn, acceptance, diverging) = jax.lax.scan(round_of_all, chains, keys)
    drawn = jnp.swapaxes(drawn[num_burn_in:], 0, 1)
    vectors = gaussian.location + drawn @ gaussian.factor.T
    status = jnp.where(jnp.isfinite(vectors).all(), found.status, Status.NOT_FINITE)
    stats = {
        "acceptance_rate": acceptance[num_burn_in:].T,
        "diverging": diverging[num_burn_in:].T,
        "n_steps": jnp.full((num_chains, num_draws), leapfrogs),
    }
    draws = Draws(vectors=vectors, model=model, sizes=gaussian.sizes)
    return draws, InferenceInfo("hmc", status, stats)


ENGINE = Engine(fit, check)

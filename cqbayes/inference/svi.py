"""Stochastic variational inference: NumPyro's SVI with a Gaussian guide and minibatches.

::

    maximise  E_q[log p(v, data) - log q(v)]  over q = Normal(m, F F^T)

Rows of a batch are drawn with replacement and weigh ``num_obs / batch_size`` each, so that
gradients are unbiased. This module draws the row numbers itself, since NumPyro's ``subsample_size``
permutes all rows in every step. Steps have a constant size, and parameters are averaged over a
block of steps (Dhaka et al. 2020, "Robust, accurate stochastic optimization for variational
inference"). After every block, the ELBO of the averaged parameters is computed with all rows and
always the same few draws, so that noise does not hide its gains. The fit has converged when two
blocks in a row gain less than ``tolerance`` nats. Pareto-smoothed importance sampling then measures
the error of the approximation: ``check`` is the check of the Laplace engine, and a k-hat of 0.7 or
more says that the guide is too narrow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, PRNGKeyArray
from numpyro.infer import SVI, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import (
    AutoContinuous,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)

from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference import laplace
from cqbayes.inference.engine import Engine
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.log_densities import log_likelihoods
from cqbayes.posterior.posteriors import Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

GUIDES = {
    "normal": AutoDiagonalNormal,
    "low_rank": AutoLowRankMultivariateNormal,
    "multivariate": AutoMultivariateNormal,
}
PARTICLES = 4  # draws of the guide in every step: they cut noise and cost little time
LOOKS = 64  # draws for the ELBO after a block


class _Progress(NamedTuple):
    state: Any
    elbo: Array
    location: Array
    factor: Array
    stalled: Array
    block: Array


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    guide: str = "multivariate",
    batch_size: int = 1024,
    learning_rate: float = 0.01,
    block_steps: int = 500,
    max_blocks: int = 80,
    tolerance: float = 0.1,
) -> tuple[Gaussian, InferenceInfo]:
    """The best Gaussian of the guide's form.

    Args:
        key, model, data, start: as in every engine; the first location is the mean of ``start``.
        guide: ``normal`` (independent parameters), ``low_rank`` or ``multivariate``.
        batch_size: rows in a step; data with no more rows than this are used whole.
        learning_rate: learning rate of Adam.
        block_steps: steps in a block; the ELBO is computed after each block.
        max_blocks: most blocks.
        tolerance: the fit stops when two blocks in a row gain less ELBO than this, in nats.

    Raises:
        InputError: for an unknown guide.
    """
    if guide not in GUIDES:
        raise InputError(f"guide: expected one of {', '.join(GUIDES)}, got {guide!r}")
    sizes = sizes_of(data)
    form = layout(model, sizes)
    laplace.check_size("svi", form.size)
    begin = jnp.asarray(form.begin) if start is None else start.centre
    whole = data.num_obs <= batch_size

    def conditioned(rows: ChoiceData) -> None:
        params = model.prior(sizes)
        share = data.num_obs / rows.num_obs
        numpyro.factor("choices", share * jnp.sum(log_likelihoods(model, params, rows)))

    def batch(key: PRNGKeyArray) -> ChoiceData:
        index = jax.random.randint(key, (batch_size,), 0, data.num_obs)
        rows = data.without_terms()  # which do not hold for some of the rows
        return data if whole else jax.tree.map(lambda column: column[index], rows)

    approximation: AutoContinuous = GUIDES[guide](
        conditioned, init_loc_fn=init_to_value(values=form.constrain(begin))
    )
    loss = Trace_ELBO(num_particles=PARTICLES)
    svi: Any = SVI(conditioned, approximation, numpyro.optim.Adam(learning_rate), loss)
    init_key, look_key, climb_key = jax.random.split(key, 3)
    looks = jax.random.normal(look_key, (LOOKS, form.size))
    density = laplace.difference(model, data, begin)

    def elbo(location: Array, factor: Array) -> Array:
        """The ELBO up to a constant."""
        values = jax.lax.map(density, location + looks @ factor.T, batch_size=16)
        return jnp.mean(values) + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))

    def step(carry: tuple[Any, Any], key: PRNGKeyArray) -> tuple[tuple[Any, Any], None]:
        state, sums = carry
        state, _ = svi.update(state, batch(key))
        return (state, jax.tree.map(jnp.add, sums, svi.optim.get_params(state.optim_state))), None

    def unfinished(at: _Progress) -> Array:
        return (at.block < max_blocks) & (at.stalled < 2)

    def climb(at: _Progress) -> _Progress:
        keys = jax.random.split(jax.random.fold_in(climb_key, at.block), block_steps)
        nothing = jax.tree.map(jnp.zeros_like, svi.optim.get_params(at.state.optim_state))
        (state, sums), _ = jax.lax.scan(step, (at.state, nothing), keys)
        averaged = svi.constrain_fn(jax.tree.map(lambda s: s / block_steps, sums))
        location, factor = _moments(approximation.get_posterior(averaged))
        reached = elbo(location, factor)
        stalled = jnp.where(reached - at.elbo > tolerance, 0, at.stalled + 1)
        better = reached > at.elbo
        return _Progress(
            state=state,
            elbo=jnp.where(better, reached, at.elbo),
            location=jnp.where(better, location, at.location),
            factor=jnp.where(better, factor, at.factor),
            stalled=stalled,
            block=at.block + 1,
        )

    none = jnp.array(0)
    first = _Progress(
        svi.init(init_key, data), -jnp.inf * jnp.ones(()), begin, jnp.eye(form.size), none, none
    )
    last = jax.lax.while_loop(unfinished, climb, first)
    finite = jnp.isfinite(last.elbo)
    status = jnp.select([~finite, last.stalled < 2], [Status.NOT_FINITE, Status.NOT_CONVERGED], 0)
    stats = {"elbo": last.elbo, "steps": last.block * block_steps}
    gaussian = Gaussian(location=last.location, factor=last.factor, model=model, sizes=sizes)
    return gaussian, InferenceInfo("svi", status, stats)


def _moments(found: Any) -> tuple[Any, Any]:
    """Location, and a square root of the covariance, of a Gaussian of NumPyro."""
    if isinstance(found, numpyro.distributions.Normal):
        return found.loc, jnp.diag(jnp.asarray(found.scale))
    if isinstance(found, numpyro.distributions.LowRankMultivariateNormal):
        return found.loc, jnp.linalg.cholesky(found.covariance_matrix)
    return found.loc, found.scale_tril


ENGINE = Engine(fit, laplace.check)

"""Online Gaussian: one row at a time, at constant cost, one block per LLM.

The posterior is kept as independent Gaussians ``w_j ~ Normal(m_j, F_j F_j^T)``, one per LLM, over
the features ``z(x)`` of a disjoint linear model. A row touches ``w_j`` only through the utilities
``u_j = w_j . z``, which are a priori independent with mean ``a_j = m_j . z`` and variance
``s_j = |F_j^T z|^2``. So the row's posterior is a problem in the offered utilities alone:

1. its mode ``u* = argmax log P(y | u, S) - sum_j (u_j - a_j)^2 / (2 s_j)``, by Newton, where the
   curvature is diagonal plus rank one: an implicit step, not a linearised one;
2. the marginal variances ``s'_j`` of its Laplace approximation at ``u*``, which include what the
   row leaves coupled between LLMs;
3. the block that has exactly these moments along ``z`` (moment matching; Minka 2001):
   ``m_j += F_j F_j^T z (u*_j - a_j) / s_j`` and ``F_j <- F_j (I - g phi phi^T)`` with
   ``phi = F_j^T z`` and ``g = (1 - sqrt(s'_j / s_j)) / s_j`` (Potter's square-root update, so that
   a draw ``m_j + F_j e`` needs no factorisation).

One pass is approximate, and depends on the order of the rows: curvatures stay where they were first
taken, and blocks forget what assortments tell of two LLMs together. :func:`relinearised` mends
both, with the Laplace fit of all rows so far and its marginal covariances. Done whenever the number
of rows has grown by a constant factor it costs a constant number of row visits per row.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.choice import ChoiceData, normaliser
from cqbayes.density import fast
from cqbayes.errors import InputError
from cqbayes.inference import Engine, InferenceInfo, Status, laplace
from cqbayes.posterior import Gaussian, Posterior
from cqbayes.preference import PreferenceModel, Sizes, layout, sizes_of

NEWTON_STEPS = 4


class OnlineGaussian(Posterior):
    """Independent Gaussians, one per LLM: means ``[llm, feature]`` and square roots."""

    location: Float[Array, "llm feature"]
    factor: Float[Array, "llm feature feature"]
    model: PreferenceModel = eqx.field(static=True)
    sizes: Sizes = eqx.field(static=True)

    def draw(self, key: PRNGKeyArray, spread: float | Array = 1.0) -> Any:
        noise = jax.random.normal(key, self.location.shape, self.location.dtype)
        weights = self.location + spread * jnp.einsum("jkl,jl->jk", self.factor, noise)
        return _linear(self.model).to_params(weights)

    def draw_vector(self, key: PRNGKeyArray) -> Float[Array, " parameter"]:
        # In the order of the model's own layout: a linear model's sites are its params.
        return ravel_pytree(self.draw(key))[0]

    def mean(self) -> Any:
        return _linear(self.model).to_params(self.location)

    def draws(self, key: PRNGKeyArray, num_draws: int) -> Float[Array, "chain draw parameter"]:
        return jax.vmap(self.draw_vector)(jax.random.split(key, num_draws))[None]


def _linear(model: PreferenceModel) -> Any:
    if model.linear is None or model.linear.prior_sd is None or not fast(model):
        raise InputError(
            "engine online: expected a disjoint linear model such as disjoint_mnl; "
            "use laplace or nuts for this one"
        )
    return model.linear


def prior(model: PreferenceModel, sizes: Sizes) -> OnlineGaussian:
    """The prior as an online Gaussian.

    Raises:
        InputError: if the model's utilities are not disjoint and linear.
    """
    deviation = _linear(model).prior_sd(sizes)
    factor = jnp.broadcast_to(jnp.diag(deviation), (sizes.num_llms, *jnp.diag(deviation).shape))
    location = jnp.zeros(factor.shape[:2])
    return OnlineGaussian(location=location, factor=factor, model=model, sizes=sizes)


def _row_moments(
    mean: Float[Array, " slate"],
    variance: Float[Array, " slate"],
    shown: Bool[Array, " slate"],
    taken: Bool[Array, " slate"],
    weight: Float[Array, ""],
) -> tuple[Float[Array, " slate"], Float[Array, " slate"]]:
    """Mean and marginal variances of the utilities after one row, by Laplace at its mode.

    With ``p_j`` the choice probabilities, the negative log-density has gradient
    ``w (p - [y]) + (u - a) / s`` and Hessian ``D - w p p^T``, ``D = diag(w p + 1 / s)``; by
    Sherman and Morrison its inverse is ``D^-1 + w D^-1 p p^T D^-1 / (1 - w p^T D^-1 p)``.
    """
    precision = 1 / variance

    def inverse_curvature(utility: Array) -> tuple[Array, Array, Array]:
        share = normaliser(utility, shown).shares
        diagonal = 1 / (weight * share + precision)
        along = diagonal * share
        scale = weight / (1 - weight * (share @ along))
        return share, diagonal, jnp.sqrt(scale) * along

    def step(utility: Array, _: None) -> tuple[Array, None]:
        share, diagonal, along = inverse_curvature(utility)
        slope = weight * (taken - share) - (utility - mean) * precision
        move = diagonal * slope + along * (along @ slope)
        # At most two units of log-odds at once: the logistic's curvature changes on that scale.
        return utility + jnp.clip(move, -2, 2), None

    utility, _ = jax.lax.scan(step, mean, length=NEWTON_STEPS, unroll=True)
    _, diagonal, along = inverse_curvature(utility)
    return utility, diagonal + along**2


def update_row(
    posterior: OnlineGaussian,
    context: Float[Array, " dim"],
    offered: Bool[Array, " llm"],
    choice: Int[Array, ""],
    weight: Float[Array, ""],
    slate_size: int | None = None,
) -> OnlineGaussian:
    """One row, touching only the blocks of the LLMs that it offers.

    Nothing changes, bit for bit, where ``weight`` is 0, an LLM is not offered, or the row offers
    more LLMs than ``slate_size`` (all of them where absent).
    """
    z = _linear(posterior.model).features(context)
    llm = first_offered(offered, slate_size or offered.size)
    shown = offered[llm] & (jnp.arange(llm.size) < jnp.sum(offered))
    blocks = posterior.factor[llm]
    # One product a block: as one einsum or sum over all it is several times as slow on CPUs.
    phi = jnp.stack([z @ block for block in blocks])
    variance = jnp.sum(phi**2, axis=-1)
    learns = (weight > 0) & (jnp.sum(offered) <= llm.size)
    shown = shown & learns & (variance > 0)
    safe = jnp.where(shown, variance, 1)
    mean = posterior.location[llm] @ z
    utility, shrunk = _row_moments(mean, safe, shown, shown & (llm == choice - 1), weight)
    # A prior so wide that rounding eats the curvature: the row is passed over, not spread as NaN.
    shown = shown & jnp.isfinite(utility) & (shrunk > 0)
    direction = jnp.einsum("jkl,jl->jk", blocks, phi)
    gain = jnp.where(shown, (utility - mean) / safe, 0)
    root = jnp.where(shown, (1 - jnp.sqrt(shrunk / safe)) / safe, 0)
    # Added, so that a place that is not filled changes nothing wherever it points.
    location = posterior.location.at[llm].add(gain[:, None] * direction)
    shrinkage = (root[:, None] * direction)[:, :, None] * phi[:, None, :]
    factor = posterior.factor.at[llm].add(-shrinkage)
    return eqx.tree_at(lambda p: (p.location, p.factor), posterior, (location, factor))


def first_offered(offered: Bool[Array, " llm"], count: int) -> Int[Array, " slate"]:
    """The first ``count`` LLMs that are offered, then any."""
    places = []
    for _ in range(count):
        places.append(jnp.argmax(offered))
        offered = offered & (jnp.arange(offered.size) != places[-1])
    return jnp.stack(places)


def update(
    posterior: OnlineGaussian, data: ChoiceData, slate_size: int | None = None
) -> OnlineGaussian:
    """All rows of ``data`` in their order, one pass.

    Args:
        posterior: before.
        data: the rows.
        slate_size: most LLMs that a row offers, known beforehand, so that the others' blocks are
            never touched; rows that offer more teach nothing. All LLMs where absent.
    """
    rows = data.cleared()
    columns = (rows.context, rows.offered, rows.choice, rows.weight)

    def one(posterior: OnlineGaussian, row: tuple[Array, Array, Array, Array]):
        return update_row(posterior, *row, slate_size), None

    if data.num_obs == 1:
        return one(posterior, jax.tree.map(lambda column: column[0], columns))[0]
    return jax.lax.scan(one, posterior, columns)[0]


def relinearised(
    posterior: OnlineGaussian, data: ChoiceData
) -> tuple[OnlineGaussian, Bool[Array, ""]]:
    """The blocks of the Laplace fit to ``data``, which are all rows so far; and whether it is good.

    Where the Laplace fit fails the posterior stays as it was.
    """
    form = layout(posterior.model, posterior.sizes)
    weights = _linear(posterior.model).weights
    with jax.ensure_compile_time_eval():
        # Which parameter is which weight: a linear model's sites are its params.
        place = np.asarray(weights(form.params(jnp.arange(form.size, dtype=float))), int)
    begin = jnp.zeros(form.size).at[place].set(posterior.location)
    start = Gaussian(
        location=begin, factor=jnp.eye(form.size), model=posterior.model, sizes=posterior.sizes
    )
    found, info = laplace.fit(jax.random.key(0), posterior.model, data, start)
    rows = found.factor[place]
    covariance = jnp.einsum("jap,jbp->jab", rows, rows)
    factor = jnp.linalg.cholesky(covariance)
    good = (info.status == Status.OK) & jnp.isfinite(factor).all()
    return eqx.tree_at(
        lambda p: (p.location, p.factor),
        posterior,
        (
            jnp.where(good, found.location[place], posterior.location),
            jnp.where(good, factor, posterior.factor),
        ),
    ), good


def fit(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    growth: float = 1.05,
    first: int = 32,
) -> tuple[OnlineGaussian, InferenceInfo]:
    """What the online Gaussian is after all rows; uses neither randomness nor ``start``.

    A relinearisation leaves nothing of what was before it, so that of all only the last is made.
    To go on from an online Gaussian with new rows, call :func:`update`.

    Args:
        key, model, data, start: as in every engine.
        growth: factor by which rows grow between two relinearisations; 0 for none, one pass.
        first: rows before the first one.
    """
    begin = prior(model, sizes_of(data))
    end = last_end(data.num_obs, growth, first)
    head, tail = (jax.tree.map(lambda c, i=i: c[i], data) for i in (slice(end), slice(end, None)))
    good = jnp.array(True)
    if end:
        begin, good = relinearised(begin, head)
        begin = jax.lax.cond(good, lambda p: p, lambda p: update(p, head), begin)
    posterior = update(begin, tail) if end < data.num_obs else begin
    finite = jnp.isfinite(posterior.location).all() & jnp.isfinite(posterior.factor).all()
    # Rows whose numbers overflow are passed over: if all were, nothing has been learnt.
    rows = data.cleared()
    learnt = jnp.any(posterior.location != 0) | ~(jnp.any(rows.offered) & jnp.any(rows.context))
    failures = [Status.NOT_FINITE, Status.NOT_CONVERGED]
    status = jnp.select([~finite | ~learnt, ~good], failures, Status.OK)
    stats = {"rows": jnp.sum(data.weight > 0), "relinearised_at": jnp.array(end)}
    return posterior, InferenceInfo("online", status, stats)


def last_end(num_obs: int, growth: float, first: int) -> int:
    """Rows at the last relinearisation, or 0: the largest ``first growth^k`` up to ``num_obs``."""
    if growth != 0 and growth <= 1:
        raise InputError(f"growth: expected a factor above 1, or 0 for none, got {growth}")
    if first < 1:
        raise InputError(f"first: expected at least one row, got {first}")
    if not growth or num_obs < first:
        return 0
    steps = math.floor(math.log(num_obs / first) / math.log(growth) + 1e-9)
    return int(first * growth**steps)


ENGINE = Engine(fit)

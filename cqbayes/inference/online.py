"""Online Gaussian: one row at a time, at constant cost, one block per LLM.

The posterior is kept as independent Gaussians ``w_j ~ Normal(m_j, F_j F_j^T)``, one per LLM, over
the features ``z(x)`` of a disjoint linear model. A row touches ``w_j`` only through the utilities
``u_j = w_j . z``, which are a priori independent with mean ``a_j = m_j . z`` and variance
``s_j = |F_j^T z|^2``. So the row's posterior is a problem in the offered utilities alone:

1. its mode ``u* = argmax log P(y | u, S) - sum_j (u_j - a_j)^2 / (2 s_j)``, an implicit step and
   not a linearised one, found however far away it is: all utilities follow from one number, the
   log-partition, which is found by Newton steps between bounds;
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

What the blocks are worth together, ``check`` tells: the Pareto k-hat of importance ratios against
the density of all rows. Blocks know nothing of how LLMs are correlated, which many LLMs in one
assortment make them: then each LLM's own parameters can be right where k-hat is poor.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.choice.data import ChoiceData, Situation
from cqbayes.errors import InputError
from cqbayes.inference import laplace
from cqbayes.inference.engine import Engine
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.online_gaussian import (
    OnlineGaussian,
    _linear,
    blocks_along,
    potter_update,
    prior,
)
from cqbayes.posterior.posteriors import Gaussian, Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

MOST_STEPS = 16  # ordinary rows take three or four; variances of 1e6 and means of 20, eight


def _omega(z: Array, steps: int) -> Array:
    """Wright's omega function, ``omega + log omega = z``: a start within 16%, then quartic steps.

    Fritsch, Shafer and Crowley (1973), as Lawrence, Corless and Jeffrey (2012) have it.
    """
    least = jnp.finfo(z.dtype).tiny
    low = jnp.exp(jnp.minimum(z, 1))
    omega = jnp.where(z < 1, low / (1 + 0.76 * low), z - jnp.log(jnp.maximum(z, 1)))
    omega = jnp.maximum(omega, least)
    for _ in range(steps):
        residual = z - omega - jnp.log(omega)
        above = 1 + omega
        twice = 2 * above * (above + 2 / 3 * residual)
        moved = 1 + residual / above * (twice - residual) / (twice - 2 * residual)
        omega = jnp.maximum(omega * moved, least)
    return omega


class _Search(NamedTuple):
    """For the log-partition: the guess, its bounds, and how far the last step went."""

    partition: Array
    low: Array
    high: Array
    moved: Array
    step: Array


class _Shares(NamedTuple):
    """What a log-partition says of the LLMs, ``[slate]`` each."""

    share: Array
    residual: Array  # [y] - p, without the cancellation in 1 - p where the utility is held loosely
    stiffness: Array  # 1 / (1 + w s p)


def _row_moments(
    mean: Float[Array, " slate"],
    variance: Float[Array, " slate"],
    shown: Bool[Array, " slate"],
    taken: Bool[Array, " slate"],
    weight: Float[Array, ""],
) -> tuple[Float[Array, " slate"], Float[Array, " slate"]]:
    """Gains ``(u* - a) / s`` and marginal variances of the utilities after one row, by Laplace.

    At the mode ``u_j = a_j + w s_j ([y = j] - p_j)``. With ``L`` the log-partition, ``p_j = exp(u_j
    - L)`` and Wright's ``omega(z) + log omega(z) = z`` that is

    ``w s_j p_j = omega(a_j + w s_j [y = j] + log(w s_j) - L)``,   ``exp(-L) + sum_j p_j(L) = 1``,

    one equation in ``L >= 0``. Its left side falls and is convex: Newton steps end left of the root
    from everywhere, and are lower bounds. Those on the logarithms of what was not taken and of
    ``1 - p_y`` are nearly straight where that is far from straight, and are taken between bounds.

    Minus the slope at the root is ``c = exp(-L) + sum_j p_j t_j``, ``t_j = 1 / (1 + w s_j p_j)``;
    the curvature is diagonal plus rank one, and by Sherman and Morrison the variances are
    ``s_j t_j (1 + w s_j t_j p_j^2 / c)``. No term is negative: nothing cancels.
    """
    kind = jnp.finfo(mean.dtype)
    least = kind.tiny / kind.eps  # no quotient of what is at least this overflows
    stretch = weight * variance
    known = mean + jnp.where(taken, stretch, 0) + jnp.log(stretch)
    mine, others = taken.astype(mean.dtype), (shown & ~taken).astype(mean.dtype)
    retried = ~jnp.any(taken)

    def shares(partition: Array, steps: int) -> _Shares:
        omega = _omega(known - partition, steps)
        share = omega / stretch
        moved = (partition + jnp.log(share) - mean) / stretch
        lacking = jnp.where(stretch < 1, 1 - share, moved)
        return _Shares(share, jnp.where(taken, lacking, -share), 1 / (1 + omega))

    def sides(partition: Array, at: _Shares) -> tuple[Array, Array, Array, Array]:
        """What was not taken and ``1 - p_y`` (1 for a retry), and how they fall and rise."""
        none, bent = jnp.exp(-partition), at.share * at.stiffness
        columns = jnp.stack([at.share * others, bent * others, at.residual * mine, bent * mine])
        rest, falls, lacking, rises = jnp.sum(columns, axis=1)
        lacking = jnp.where(retried, 1, lacking)
        return jnp.maximum(none + rest, least), none + falls, jnp.maximum(lacking, least), rises

    def unfinished(at: _Search) -> Array:
        return (at.step < MOST_STEPS) & (at.moved > kind.eps**0.5)

    def iterate(at: _Search) -> _Search:
        partition, low, high, _, step = at
        rest, falls, lacking, rises = sides(partition, shares(partition, 1))
        over = rest - lacking
        high = jnp.where(over < 0, jnp.minimum(high, partition), high)
        slope = jnp.maximum(falls + rises, least)
        low = jnp.maximum(low, jnp.minimum(partition + over / slope, high))
        to_rest = jnp.log(rest / lacking) / jnp.maximum(rises / lacking + falls / rest, least)
        found = jnp.maximum(partition + to_rest, low)
        found = jnp.where(found > high, (low + high) / 2, found)
        moved = jnp.abs(found - partition) / (1 + found)
        return _Search(found, low, high, moved, step + 1)

    # Where one of the shares alone is 1, or a retry is certain: the sum is then 1 or more.
    begin = jnp.max(jnp.where(shown, mean - jnp.where(taken, 0, stretch), 0), initial=0)
    far = jnp.full_like(begin, jnp.inf)
    first = _Search(begin, begin, far, far, jnp.array(0))
    partition = jax.lax.while_loop(unfinished, iterate, first).partition
    at = shares(partition, 2)
    _, falls, _, rises = sides(partition, at)
    slope = jnp.maximum(falls + rises, least)
    spread = 1 + stretch * at.stiffness * at.share**2 / slope
    return weight * at.residual, jnp.minimum(1, at.stiffness * spread) * variance


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
    return _row(posterior, context, offered, choice, weight, slate_size)[0]


def _row(
    posterior: OnlineGaussian,
    context: Float[Array, " dim"],
    offered: Bool[Array, " llm"],
    choice: Int[Array, ""],
    weight: Float[Array, ""],
    slate_size: int | None,
) -> tuple[OnlineGaussian, Bool[Array, ""]]:
    """:func:`update_row`, and whether the row was passed over though it says something."""
    z = _linear(posterior.model).features(Situation(context))
    llm = first_offered(offered, slate_size or offered.size)
    learns = (weight > 0) & (jnp.sum(offered) <= llm.size)
    shown = offered[llm] & (jnp.arange(llm.size) < jnp.sum(offered)) & learns
    along = blocks_along(posterior.location, posterior.factor, llm, z)
    mean, variance = along.mean, along.variance
    # A variance of 0 learns nothing; what overflows is passed over, not spread as NaN.
    usable = shown & (variance > 0) & jnp.isfinite(variance) & jnp.isfinite(mean)
    safe, begin = jnp.where(usable, variance, 1), jnp.where(usable, mean, 0)
    scale = jnp.where(learns, weight, 1)
    taken = usable & (llm == choice - 1)
    slope, shrunk = _row_moments(begin, safe, usable, taken, scale)
    good = usable & jnp.isfinite(slope) & (shrunk > 0)
    passed_over = jnp.any(shown & ~good) & jnp.any(z != 0)
    gain = jnp.where(good, slope, 0)
    shrinkage = jnp.where(good, (1 - jnp.sqrt(shrunk / safe)) / safe, 0)
    moved = potter_update(posterior.location, posterior.factor, along, gain, shrinkage)
    after = eqx.tree_at(lambda p: (p.location, p.factor), posterior, moved)
    return after, passed_over


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
    return _pass(posterior, data, slate_size)[0]


def _pass(
    posterior: OnlineGaussian, data: ChoiceData, slate_size: int | None = None
) -> tuple[OnlineGaussian, Int[Array, ""]]:
    """:func:`update`, and how many rows were passed over."""
    rows = data.cleared()
    columns = (rows.context, rows.offered, rows.choice, rows.weight)

    def one(posterior: OnlineGaussian, row: tuple[Array, Array, Array, Array]):
        return _row(posterior, *row, slate_size)

    if data.num_obs == 1:
        posterior, passed_over = one(posterior, jax.tree.map(lambda column: column[0], columns))
    else:
        posterior, passed_over = jax.lax.scan(one, posterior, columns)
    return posterior, jnp.sum(passed_over)


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
    posterior = prior(model, sizes_of(data))
    end = last_end(data.num_obs, growth, first)
    head, tail = (jax.tree.map(lambda c, i=i: c[i], data) for i in (slice(end), slice(end, None)))
    good, none = jnp.array(True), jnp.array(0)
    passed_over = none
    if end:
        posterior, good = relinearised(posterior, head)
        posterior, passed_over = jax.lax.cond(
            good, lambda p: (p, none), lambda p: _pass(p, head), posterior
        )
    if end < data.num_obs:
        posterior, more = _pass(posterior, tail)
        passed_over = passed_over + more
    finite = jnp.isfinite(posterior.location).all() & jnp.isfinite(posterior.factor).all()
    failures = [Status.NOT_FINITE, Status.NOT_CONVERGED]
    status = jnp.select([~finite | (passed_over > 0), ~good], failures, Status.OK)
    stats = {
        "rows": jnp.sum(data.weight > 0),
        "relinearised_at": jnp.array(end),
        "passed_over": passed_over,
    }
    return posterior, InferenceInfo("online", status, stats)


def check(
    key: PRNGKeyArray,
    posterior: OnlineGaussian,
    info: InferenceInfo,
    model: PreferenceModel,
    data: ChoiceData,
    num_draws: int = laplace.NUM_DRAWS,
) -> tuple[OnlineGaussian, InferenceInfo]:
    """k-hat of the Gaussian against the density of all rows. The Gaussian stays as it is.

    Args:
        key, posterior, info, model, data: as in every engine.
        num_draws: draws of the Gaussian that k-hat is found from.
    """
    laplace.check_num_draws(info.engine, num_draws)
    if not info.ok:
        return posterior, info
    noise = jax.random.normal(key, (num_draws, posterior.location.size))
    found = laplace.pareto_smoothed(laplace.log_ratios(noise, posterior, data))
    good = found.khat < laplace.khat_limit(num_draws)
    status = jnp.array(Status.OK if good else Status.POOR_APPROXIMATION)
    return posterior, InferenceInfo(info.engine, status, info.stats | found.stats)


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


ENGINE = Engine(fit, check)

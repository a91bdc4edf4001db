"""Memory: an LLM can answer a query, or cannot, and mostly that stays.

For a query with log-odds of ability ``u_j`` (:mod:`cqbayes.models.ability_mnl` has their form)::

    d ~ Normal(0, hardness),       P(c_j = 1) = sigmoid(u_j + d)
    an answer alone is taken       with probability can if c_j = 1, cannot if c_j = 0
    c_j stays with probability persists while the query waits, else it is drawn at each attempt

After ``n_j`` vain answers, given ``d``, with ``s = sigmoid(u_j + d)`` and ``p = cannot + (can -
cannot) s``::

    W_j(n) = persists (s (1 - can)^n + (1 - s) (1 - cannot)^n) + (1 - persists) (1 - p)^n
    P(j is taken | n) = 1 - E_d[W_j(n_j + 1) / W_j(n_j)],     d weighed by prod_m W_m(n_m)

so that failures of others speak through ``d``, and all attempts of a query together have the
marginal probability of the model. With ``persists = 0``, ``hardness = 0``, ``can = 1`` and ``cannot
= 0`` nothing is remembered: the multinomial logit of :mod:`cqbayes.choice.mnl`. Answers that failed
beside others count as if each had been offered alone.

Source: ours; guess and slip of item response theory (Barton and Lord, 1981), with a random effect
of the query integrated as in Bock and Aitkin (1981).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
MOST_FAILURES = 63  # of one LLM that are told apart
LEAST = 1e-15  # of what many failures leave, where ability never stays
MOST = 40.0  # log-odds from which on an LLM can, or cannot, for sure


def received(
    ability: Float[Array, "*batch"], can: Array | float, cannot: Array | float
) -> Float[Array, "*batch"]:
    """Log-odds that an answer is taken: ``logit(cannot + (can - cannot) sigmoid(ability))``.

    Example:
        >>> [round(float(u), 3) for u in received(jnp.array([-1e4, 0.0, 1e4]), 0.9, 0.1)]
        [-2.197, 0.0, 2.197]
    """
    odds = jnp.exp(jnp.clip(ability, -MOST, MOST))
    return jnp.log((cannot + can * odds) / ((1 - cannot) + (1 - can) * odds))


def certain_recall(can: Array, cannot: Array) -> Array:
    """``log((1 - cannot) / (1 - can))``: how far one vain answer lowers log-odds of ability."""
    return jnp.log1p(-cannot) - jnp.log1p(-can)


def recalled_utility(
    ability: Float[Array, " llm"],
    failures: Int[Array, " llm"],
    can: Array | float,
    cannot: Array | float,
    hardness: Array | float,
    persists: Array | float,
) -> Float[Array, " llm"]:
    """Log-odds that each LLM's answer is taken, after these failures; ``d`` by 15 nodes.

    More than 63 vain answers of one LLM say no more than 63.

    Example:
        >>> failures = jnp.array([1, 0])
        >>> u = recalled_utility(jnp.zeros(2), failures, 0.9, 0.1, hardness=0.0, persists=1.0)
        >>> [round(float(p), 3) for p in jax.nn.sigmoid(u)]
        [0.18, 0.5]
    """
    success, failure = after_failures(
        ability[:, None] + hardness * jnp.asarray(NODES, ability.dtype),
        failures[:, None],
        can,
        cannot,
        persists,
    )
    weight = success + failure
    history = jnp.sum(jnp.where(failures[:, None] > 0, jnp.log(weight), 0), axis=0)
    node = jax.nn.softmax(jnp.asarray(np.log(WEIGHTS), ability.dtype) + history)
    return jnp.log(success / weight @ node) - jnp.log(failure / weight @ node)


def after_failures(
    ability: Float[Array, "*batch"],
    failures: Int[Array, "*batch"],
    can: Array | float,
    cannot: Array | float,
    persists: Array | float,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """``W(n) - W(n + 1)`` and ``W(n + 1)``, both divided by ``(1 - cannot)^n``, given ``d``."""
    real = ability.dtype
    ability = jnp.clip(ability, -MOST, MOST)
    able, unable = jax.nn.sigmoid(ability), jax.nn.sigmoid(-ability)
    taken, ratio = cannot + (can - cannot) * able, jnp.asarray((1 - can) / (1 - cannot), real)
    # What the failures leave of three cases: it can, it cannot, and ability does not stay.
    still = persists * able * _power(jnp.broadcast_to(ratio, failures.shape), failures)
    never = persists * unable
    anew = (1 - persists) * jnp.maximum(_power(unable + ratio * able, failures), LEAST)
    vain = (1 - cannot) * unable + (1 - can) * able  # and not 1 - taken, which is rounded
    success = still * can + never * cannot + anew * taken
    return success, still * (1 - can) + never * (1 - cannot) + anew * vain


@jax.custom_jvp
def _power(base: Float[Array, "*batch"], n: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """``base ** n`` for whole numbers up to 63, by squares: logarithms cost more."""
    n = jnp.minimum(n, MOST_FAILURES)
    found = jnp.ones(jnp.broadcast_shapes(base.shape, n.shape), base.dtype)
    for bit in range(6):
        found = jnp.where((n >> bit) & 1, found * base, found)
        base = base * base
    return found


@_power.defjvp
def _power_slope(at: tuple, along: tuple) -> tuple:
    base, n = at
    found = _power(base, n)
    least = jnp.finfo(base.dtype).tiny
    return found, jnp.minimum(n, MOST_FAILURES) * found / jnp.maximum(base, least) * along[0]


def kept_utility(
    key: PRNGKeyArray,
    ability: Float[Array, " llm"],
    can: Array | float,
    cannot: Array | float,
    hardness: Array | float,
    persists: Array | float,
) -> Float[Array, " llm"]:
    """Log-odds that one query keeps while it waits: whether each LLM can answer it is drawn.

    For an LLM whose ability does not persist, they are those of the average over its draws.
    """
    hard_key, able_key, stays_key = jax.random.split(key, 3)
    moved = ability + hardness * jax.random.normal(hard_key, (), ability.dtype)
    able = jax.random.bernoulli(able_key, jax.nn.sigmoid(moved))
    stays = jax.random.bernoulli(stays_key, persists, moved.shape)
    return received(jnp.where(stays, jnp.where(able, MOST, -MOST), moved), can, cannot)

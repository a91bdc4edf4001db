"""Assortments: sets of LLMs that answer a query, and the best of them."""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from cqbayes.choice.mnl import departure_probability, normaliser
from cqbayes.errors import InputError

TINY = 1e-30
MOST_ASSORTMENTS = 10_000  # that may be enumerated


def checked_offers(
    slate_size: int,
    values: Float[np.ndarray | Array, " llm"] | None = None,
    num_llms: int | None = None,
) -> Float[Array, " llm"] | None:
    """The values as an array, after checks of the values and the slate size.

    Args:
        slate_size: most LLMs that answer one query.
        values: worth of each LLM's answer; None is returned as None.
        num_llms: number of LLMs, if known.

    Raises:
        InputError: for a slate that cannot be filled, or if the values are not one number in [0, 1]
            for each LLM.

    Example:
        >>> checked_offers(2, np.array([0.25, 1.0])).tolist()
        [0.25, 1.0]
    """
    check_slate(slate_size, num_llms)
    if values is None or isinstance(values, Tracer):
        return values
    given = np.asarray(values, float)
    if given.ndim != 1 or num_llms not in (None, given.size):
        wanted = "LLM" if num_llms is None else f"of {num_llms} LLMs"
        raise InputError(f"values: expected one for each {wanted}, got {given.shape}")
    wrong = given[~((given >= 0) & (given <= 1))]
    if wrong.size:
        raise InputError(
            f"values: expected numbers in [0, 1] (quality minus price), got {wrong[0]:g}"
        )
    return jnp.asarray(given, float)


def check_slate(slate_size: int, num_llms: int | None = None) -> None:
    """Raises InputError for a slate size that the LLMs cannot fill."""
    if num_llms is None and slate_size < 1:
        raise InputError(f"slate size: expected at least 1, got {slate_size}")
    if num_llms is not None and not 1 <= slate_size <= num_llms:
        raise InputError(
            f"slate size: expected 1 to {num_llms} (the number of LLMs), got {slate_size}"
        )


def every_assortment(
    who: str, num_llms: int, slate_size: int, smaller: bool = False
) -> Bool[np.ndarray, "assortment llm"]:
    """All assortments of ``slate_size`` LLMs; with ``smaller``, first all smaller assortments.

    Args:
        who: name of the caller, for the error message.
        num_llms: number of LLMs to choose from.
        slate_size: number of LLMs in an assortment.
        smaller: whether to include assortments of fewer LLMs, which can be best if answers have
            values.

    Raises:
        InputError: if there are more than ``MOST_ASSORTMENTS`` assortments.

    Example:
        >>> every_assortment("example", 3, 2).astype(int).tolist()
        [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    counts = range(1, slate_size + 1) if smaller else [slate_size]
    count = sum(comb(num_llms, size) for size in counts)
    if count > MOST_ASSORTMENTS:
        raise InputError(
            f"{who}: expected at most {MOST_ASSORTMENTS} assortments to enumerate, "
            f"got {count} ({slate_size} of {num_llms} LLMs); use a smaller slate size"
        )
    members = [chosen for size in counts for chosen in combinations(range(num_llms), size)]
    assortments = np.zeros((count, num_llms), bool)
    for row, chosen in zip(assortments, members, strict=True):
        row[list(chosen)] = True
    return assortments


def value(
    utility: Float[Array, "*batch llm"],
    offered: Bool[Array, "*batch llm"],
    values: Float[Array, " llm"] | None = None,
) -> Float[Array, "*batch"]:
    """``v(x, S)``: the departure probability, or ``sum_{j in S} w_j P(j | x, S)`` with values."""
    if values is None:
        return departure_probability(utility, offered)
    shares = normaliser(utility, offered).shares
    return jnp.sum(jnp.where(offered, shares * values, 0), axis=-1)


def best_assortment(
    utility: Float[Array, "*batch llm"],
    slate_size: int,
    values: Float[Array, " llm"] | None = None,
) -> tuple[Bool[Array, "*batch llm"], Float[Array, "*batch"]]:
    """The assortment of at most ``slate_size`` LLMs that maximises ``v(x, S)``.

    Without values, ``v`` is the departure probability. It grows with ``sum_{m in S} exp(u_m)``, so
    the best ``S`` holds the ``slate_size`` highest utilities. With values, ``v`` is the expected
    reward ``sum_{j in S} w_j P(j | x, S)``, and :func:`best_reward` finds the best ``S``. Of LLMs
    that tie, the first is taken.

    Returns:
        The assortment, and the log-odds of its ``v``. The log-odds order queries as ``v`` does, and
        do not saturate.

    Raises:
        InputError: for a slate that cannot be filled, or if there is not one value for each LLM.

    Example:
        >>> import jax.numpy as jnp
        >>> best_assortment(jnp.array([0.0, 2.0, 1.0]), 2)[0].tolist()
        [False, True, True]
        >>> best_assortment(jnp.array([0.0, 2.0, 1.0]), 2, jnp.array([1.0, 0.1, 0.9]))[0].tolist()
        [True, False, True]
    """
    check_slate(slate_size, utility.shape[-1])
    if values is not None:
        if values.shape != utility.shape[-1:]:
            raise InputError(
                f"values: expected one for each of {utility.shape[-1]} LLMs, got {values.shape}"
            )
        offered, reward = best_reward(utility, slate_size, values)
        return offered, jnp.log(reward + TINY) - jnp.log(jnp.maximum(1 - reward, TINY))
    # slate_size passes of argmax: users are shown few answers, so this is far cheaper than a sort.
    llms = jnp.arange(utility.shape[-1])
    offered = jnp.zeros(utility.shape, bool)
    score = jnp.full(utility.shape[:-1], -jnp.inf, utility.dtype)
    for _ in range(slate_size):
        left = jnp.where(offered, -jnp.inf, utility)
        offered = offered | (llms == jnp.argmax(left, axis=-1)[..., None])
        score = jnp.logaddexp(score, jnp.max(left, axis=-1))
    return offered, score


def best_reward(
    utility: Float[Array, "*batch llm"], slate_size: int, values: Float[Array, " llm"]
) -> tuple[Bool[Array, "*batch llm"], Float[Array, "*batch"]]:
    """The assortment of highest expected reward, and that reward.

    The reward is the largest ``z`` for which ``sum_{j in S} exp(u_j)(w_j - z) >= z``, where ``S``
    holds the ``slate_size`` largest positive terms. The search starts from ``z = 0``, finds that
    ``S``, and takes the reward of ``S`` as the next ``z``, until ``z`` grows no more (Dinkelbach's
    method for fractions). A few steps are enough. An assortment is never empty: if no LLM is worth
    offering, it holds the LLM of highest utility.

    Args:
        utility: log-odds of each LLM's answer against a retry.
        slate_size: most LLMs.
        values: worth of an answer that is taken, in [0, 1].
    """
    llms = jnp.arange(utility.shape[-1])

    def best_for(z: Array) -> tuple[Array, Array]:
        # Logarithms of gains keep their order also for utilities that are far apart.
        spare = values - z[..., None]
        gain = jnp.where(spare > 0, utility + jnp.log(jnp.maximum(spare, TINY)), -jnp.inf)
        gain = jnp.where(jnp.any(spare > 0, axis=-1, keepdims=True), gain, utility)
        offered = jnp.zeros(utility.shape, bool)
        for place in range(slate_size):
            left = jnp.where(offered, -jnp.inf, gain)
            pick = llms == jnp.argmax(left, axis=-1)[..., None]
            offered = offered | (pick if place == 0 else pick & (spare > 0) & ~offered)
        return offered, value(utility, offered, values)

    def improves(carry: tuple[Array, Array, Array]) -> Array:
        _, _, improved = carry
        return improved

    # The best assortment so far is kept: at the last z it would be found again up to rounding.
    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        offered, z, _ = carry
        rival, reward = best_for(z)
        better = reward > z
        kept = jnp.where(better[..., None], rival, offered)
        return kept, jnp.where(better, reward, z), jnp.any(better)

    zero = jnp.zeros(utility.shape[:-1], utility.dtype)
    offered, z, _ = jax.lax.while_loop(improves, improve, (*best_for(zero), jnp.array(True)))
    return offered, z

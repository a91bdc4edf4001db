"""Which LLMs should answer a query."""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from cqbayes.choice import departure_probability, normaliser
from cqbayes.errors import InputError

TINY = 1e-30
MOST_ASSORTMENTS = 10_000  # that are enumerated


def checked_offers(
    slate_size: int,
    values: Float[np.ndarray | Array, " llm"] | None = None,
    num_llms: int | None = None,
) -> Float[Array, " llm"] | None:
    """The values as an array, with them and the slate refused where they make no sense.

    Args:
        slate_size: most LLMs that answer one query.
        values: worth of each LLM's answer; None passes.
        num_llms: how many LLMs there are, where that is known.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not one in [0, 1] for each
            LLM.

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
    if not ((given >= 0) & (given <= 1)).all():
        raise InputError("values: expected numbers in [0, 1] (quality minus price), got others")
    return jnp.asarray(given, float)


def check_slate(slate_size: int, num_llms: int | None = None) -> None:
    """Refuses slates that cannot be filled."""
    if num_llms is None and slate_size < 1:
        raise InputError(f"slate size: expected at least 1, got {slate_size}")
    if num_llms is not None and not 1 <= slate_size <= num_llms:
        raise InputError(
            f"slate size: expected 1 to {num_llms} (the number of LLMs), got {slate_size}"
        )


def every_assortment(
    who: str, num_llms: int, slate_size: int, smaller: bool = False
) -> Bool[np.ndarray, "assortment llm"]:
    """All assortments of ``slate_size`` LLMs, after all of fewer where ``smaller``.

    Args:
        who: asks, for the message.
        num_llms, slate_size: of how many, how many.
        smaller: whether a slate need not be full, as where answers have values.

    Raises:
        InputError: for more than ``MOST_ASSORTMENTS`` of them.

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

    Without values ``v`` is the departure probability, which grows with
    ``sum_{m in S} exp(u_m)``, so that the best ``S`` holds the ``slate_size`` highest utilities.
    With them it is the expected reward ``sum_{j in S} w_j P(j | x, S)``, and the best ``S`` is that
    of :func:`best_reward`. Ties go to the LLM that comes first.

    Returns:
        The assortment, and the log-odds of its ``v``, which order queries as ``v`` does and do
        not saturate.

    Raises:
        InputError: for a slate that cannot be filled, or values that are not one for each LLM.

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
    # slate_size passes of argmax: for the few answers that a user is shown this is far cheaper
    # than a sort.
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

    The reward is the largest ``z`` for which ``sum_{j in S} exp(u_j)(w_j - z) >= z``, ``S`` the
    ``slate_size`` largest positive terms. Starting from ``z = 0``, the reward of that ``S`` is a
    better ``z``, until it is its own: Dinkelbach's method for fractions, which ends after as many
    steps as assortments improve, a handful. An assortment is never empty: where nothing is worth
    offering it holds the LLM of highest utility.

    Args:
        utility: log-odds of each LLM's answer against a retry.
        slate_size: most LLMs.
        values: worth of an answer that is taken, in [0, 1].
    """
    llms = jnp.arange(utility.shape[-1])

    def best_for(z: Array) -> tuple[Array, Array]:
        # Gains in logarithms, whose order survives utilities that are far apart.
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

    # What was found is kept, not sought again: at its own z it gains nothing, to rounding.
    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        offered, z, _ = carry
        rival, reward = best_for(z)
        better = reward > z
        kept = jnp.where(better[..., None], rival, offered)
        return kept, jnp.where(better, reward, z), jnp.any(better)

    zero = jnp.zeros(utility.shape[:-1], utility.dtype)
    offered, z, _ = jax.lax.while_loop(improves, improve, (*best_for(zero), jnp.array(True)))
    return offered, z

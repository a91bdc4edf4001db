"""Which LLMs should answer a query."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cqbayes.choice import departure_probability, normaliser

TINY = 1e-30


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

    Example:
        >>> import jax.numpy as jnp
        >>> best_assortment(jnp.array([0.0, 2.0, 1.0]), 2)[0].tolist()
        [False, True, True]
        >>> best_assortment(jnp.array([0.0, 2.0, 1.0]), 2, jnp.array([1.0, 0.1, 0.9]))[0].tolist()
        [True, False, True]
    """
    if values is not None:
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

"""Which LLMs should answer a query."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def best_assortment(
    utility: Float[Array, "*batch llm"], slate_size: int
) -> tuple[Bool[Array, "*batch llm"], Float[Array, "*batch"]]:
    """The assortment of at most ``slate_size`` LLMs with the highest departure probability.

    ``p(x, S)`` grows with ``sum_{m in S} exp(u_m)``, so the best ``S`` holds the ``slate_size``
    highest utilities. Ties go to the LLM that comes first.

    Returns:
        The assortment, and its score ``log sum_{m in S} exp(u_m)``, the log-odds that the query
        departs, which orders queries as ``p(x, S)`` does and does not saturate.

    Example:
        >>> import jax.numpy as jnp
        >>> best_assortment(jnp.array([0.0, 2.0, 1.0]), 2)[0].tolist()
        [False, True, True]
    """
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

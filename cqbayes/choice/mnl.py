"""The multinomial-logit likelihood with retrial.

A user who is shown the answers of an assortment ``S`` takes one of them or retries. A retry is the
outside option, with utility 0::

    P(y = j     | x, S) = exp(u_j) / (1 + sum_{m in S} exp(u_m))      j in S
    P(y = retry | x, S) = 1        / (1 + sum_{m in S} exp(u_m))

Outcomes are coded 0 for a retry and ``j + 1`` for taking LLM ``j``'s answer (LLMs count from 0).
Models of what a log hides have one more outcome, -1 for silence (:mod:`cqbayes.choice.channels`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import promote_shapes, validate_sample


class Normaliser(NamedTuple):
    """``peak = max(0, max_S u)``, ``odds_j = exp(u_j - peak)`` and ``excess = total - 1``.

    The LLMs are the last axis of ``odds``, unless :func:`normaliser` got another ``axis``.
    ``total = exp(-peak) + sum_{j in S} odds_j``, so that ``log Z = peak + log1p(excess)`` and
    ``P(j) = odds_j / total``. The three parts are kept apart for precision: differences of large
    utilities are taken before anything is rounded, and a departure probability close to 0 keeps its
    digits.
    """

    peak: Array
    odds: Array
    excess: Array

    @property
    def log_total(self) -> Array:
        return jnp.log1p(self.excess)

    @property
    def log_partition(self) -> Array:
        return self.peak + self.log_total

    @property
    def shares(self) -> Array:
        """Choice probabilities of the LLMs; 0 where not offered."""
        return self.odds / (1 + self.excess)[..., None]


def normaliser(utility: Array, offered: Array, axis: int = -1) -> Normaliser:
    """The parts of which all choice probabilities are made; ``axis`` is the axis of the LLMs."""
    inside = jnp.where(offered, utility, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(inside, axis=axis, initial=0, keepdims=True))
    odds = jnp.where(offered, jnp.exp(jnp.where(offered, utility - peak, 0)), 0)
    excess = jnp.expm1(-peak.squeeze(axis)) + jnp.sum(odds, axis=axis)
    return Normaliser(peak.squeeze(axis), odds, excess)


def log_partition(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch"]:
    """``log(1 + sum_{m in S} exp(u_m)) = -log P(retry | x, S)``.

    Value and gradient are finite for utilities up to +-1e4 in float32 and float64. For an empty
    assortment both are exactly 0.
    """
    return normaliser(utility, offered).log_partition


def log_probability(
    utility: Float[Array, "*batch llm"],
    offered: Bool[Array, "*batch llm"],
    choice: Int[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """``log P(y = choice | u, S)``; minus infinity for an LLM that was not offered.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(log_probability(jnp.zeros(1), jnp.array([True]), jnp.array(0))), 4)
        -0.6931
    """
    # A sum over a one-hot mask: its gradient is a product, where an index would scatter.
    chosen = offered & (jnp.arange(utility.shape[-1]) == choice[..., None] - 1)
    possible = (choice == 0) | jnp.any(chosen, axis=-1)
    value = jnp.sum(jnp.where(chosen, utility, 0), axis=-1)
    at = normaliser(utility, offered)
    return jnp.where(possible, value - at.peak - at.log_total, -jnp.inf)


def log_probabilities(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch outcome"]:
    """Log-probabilities of all ``1 + num_llms`` outcomes; minus infinity where not offered."""
    retry = jnp.zeros_like(utility[..., :1])
    inside = jnp.where(offered, utility, -jnp.inf)
    at = normaliser(utility, offered)
    shifted = jnp.concatenate([retry, inside], axis=-1) - at.peak[..., None]
    return shifted - at.log_total[..., None]


def departure_probability(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch"]:
    """``p(x, S) = 1 - P(retry | x, S)``: probability that the query leaves the queue answered."""
    return -jnp.expm1(-log_partition(utility, offered))


class MNL(Distribution):
    """Multinomial logit with retrial as a NumPyro distribution over ``{0, ..., num_llms}``.

    Args:
        utility: ``[*batch, llm]`` log-odds against a retry.
        offered: ``[*batch, llm]`` which LLMs answer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> MNL(jnp.zeros((4, 3)), jnp.ones((4, 3), bool)).sample(jax.random.key(0)).shape
        (4,)
    """

    arg_constraints = {  # noqa: RUF012  (NumPyro's own convention)
        "utility": constraints.real_vector,
        "offered": constraints.independent(constraints.boolean, 1),
    }
    pytree_data_fields = ("utility", "offered")

    def __init__(self, utility: Array, offered: Array, *, validate_args: bool | None = None):
        self.utility: Any
        self.offered: Any
        self.utility, self.offered = promote_shapes(utility, offered)
        batch = jnp.broadcast_shapes(jnp.shape(utility), jnp.shape(offered))[:-1]
        super().__init__(batch_shape=batch, event_shape=(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # pyright: ignore
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, jnp.shape(self.utility)[-1])

    @property
    def log_probs(self) -> Float[Array, "*batch outcome"]:
        """Log-probabilities of every outcome, the retry first."""
        return log_probabilities(*jnp.broadcast_arrays(self.utility, self.offered))

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        shape = jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        num_llms = jnp.shape(self.utility)[-1]
        return log_probability(
            jnp.broadcast_to(self.utility, (*shape, num_llms)),
            jnp.broadcast_to(self.offered, (*shape, num_llms)),
            jnp.broadcast_to(value, shape),
        )

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        return jax.random.categorical(key, self.log_probs, shape=sample_shape + self.batch_shape)

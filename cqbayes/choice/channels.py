"""What a log shows of a choice: a channel between what users do and what is seen.

A log hides some choices and records others wrongly. A channel is a matrix ``C`` of rates, one row
for what a user did and one column for what the log shows: a retry, an acceptance, or one of several
**signs**, which name no LLM. The first sign is silence; a next request may be another::

    C = [[P(retry | retry), P(taken | retry), P(silence | retry), P(sign 2 | retry), ...],
         [P(retry | taken), P(taken | taken), P(silence | taken), P(sign 2 | taken), ...]]

    P(retry seen) = C_00 P(retry) + C_10 sum_j P(j)                P: the multinomial logit
    P(j seen)     = C_01 P(retry) / |S| + C_11 P(j)                j in S
    P(sign k)     = C_0,k+1 P(retry) + C_1,k+1 sum_j P(j)          k = 1, 2, ...; its code is -k

A retry that is seen as an acceptance is logged as the acceptance of an offered answer, of each with
the same probability. A third row says what is seen where no LLM was offered: a retry for sure, or
what a channel says. Channels can follow one another, in any order: :func:`followed_by`.

Whatever is seen, its probability is ``a P(retry) + b sum_{j in T} P(j)`` for a set ``T`` of LLMs,
the ratio of two sums of exponentials. Both are taken relative to their own largest term: value and
derivatives are finite for utilities up to +-1e4, and an outcome that cannot happen has minus
infinity, and gradient zero, not NaN.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from cqbayes.choice.mnl import Normaliser, normaliser

HIGHEST = 30.0  # log-odds by which an outcome of rate zero may exceed those that are possible
Rates = Float[Array, "3 seen"]  # a retry, an acceptance, nothing offered; seen so (and signs)


def channel_rates(
    retry: Sequence[Any], taken: Sequence[Any], nothing: Sequence[Any] | None = None
) -> Rates:
    """The matrix of a channel from its rows, each of a retry, an acceptance and signs seen.

    Example:
        >>> channel_rates(retry=(0.75, 0, 0.25), taken=(0, 1, 0)).tolist()
        [[0.75, 0.0, 0.25], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if nothing is None:
        nothing = (1, *[0] * (len(retry) - 1))
    return jnp.array([retry, taken, nothing], float)


def followed_by(first: Rates, then: Rates) -> Rates:
    """The channel that shows through ``then`` what ``first`` shows; signs stay what they are.

    Example:
        >>> leaves = channel_rates(retry=(0.5, 0, 0.5), taken=(0, 1, 0))
        >>> followed_by(leaves, channel_rates(retry=(1, 0, 0), taken=(0, 0.25, 0.75))).tolist()
        [[0.5, 0.0, 0.5], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]]
    """
    # Written out: on accelerators a matrix product would be rounded.
    through = jnp.sum(first[:, :2, None] * then[:2], axis=1)
    through = through.at[2].set(first[2, 0] * then[2])
    own = first.at[:, :2].set(0)
    size = max(first.shape[1], then.shape[1])
    one, other = (jnp.pad(x, [(0, 0), (0, size - x.shape[1])]) for x in (through, own))
    return one + other


@partial(jax.jit, static_argnames="axis", inline=True)
def seen_log_probability(
    rates: Rates,
    utility: Float[Array, "*batch llm"],
    offered: Bool[Array, "*batch llm"],
    seen: Int[Array, "*batch"],
    axis: int = -1,
) -> Float[Array, "*batch"]:
    """Log-probability that the log shows ``seen``; minus infinity for what is no label.

    Args:
        rates: the channel.
        utility: log-odds of each LLM's answer against a retry.
        offered: which LLMs answer.
        seen: 0 for a retry, ``j + 1`` for LLM ``j``'s answer, ``-k`` for sign ``k``.
        axis: the axis of the LLMs in ``utility`` and ``offered``.
    """
    llm = jax.lax.broadcasted_iota(jnp.int32, utility.shape, axis % utility.ndim)
    label = jnp.expand_dims(seen, axis)
    signs = rates.shape[-1] - 2
    mine = offered & (((label <= 0) & (label >= -signs)) | (label == llm + 1))
    column = jnp.where(seen < 0, jnp.clip(1 - seen, 0, signs + 1), jnp.minimum(seen, 1))

    def rate(done: int) -> Array:
        # Written out: a look-up in a table is slower here, and so is its derivative.
        found = jnp.where(column == 0, rates[done, 0], rates[done, 1])
        for k in range(2, signs + 2):
            found = jnp.where(column == k, rates[done, k], found)
        return found

    # One in |S| if an answer is seen, all of S if not, and none for an LLM that was not offered.
    size = jnp.sum(offered, axis=axis)
    spread = jnp.sum(mine, axis=axis) / jnp.maximum(size, 1)
    nothing = jnp.where(seen >= -signs, rate(2), 0)
    retried = jnp.where(size > 0, spread * rate(0), nothing)
    return _log_ratio(retried, rate(1), utility, mine, axis, normaliser(utility, offered, axis))


def _log_ratio(
    retry: Float[Array, "*batch"],
    taken: Float[Array, "*batch"],
    utility: Float[Array, "*batch llm"],
    among: Bool[Array, "*batch llm"],
    axis: int,
    of_all: Normaliser,
) -> Float[Array, "*batch"]:
    """``log(retry + taken sum_{among} exp(u))``, minus the log-partition of all outcomes.

    Differences of peaks are taken before anything is rounded.
    """
    # The highest term of a rate above zero. Terms of rate zero may be higher; they count in
    # derivatives with respect to the rate, up to a bound that nothing overflows from.
    inside = jnp.where(among & jnp.expand_dims(taken > 0, axis), utility, -jnp.inf)
    outside = jnp.where(retry > 0, 0, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.maximum(jnp.max(inside, axis=axis), outside))
    peak = jnp.where(peak > -jnp.inf, peak, 0)
    above = jnp.minimum(jnp.where(among, utility - jnp.expand_dims(peak, axis), 0), HIGHEST)
    odds = jnp.where(among, jnp.exp(above), 0)
    total = retry * jnp.exp(jnp.minimum(-peak, HIGHEST)) + taken * jnp.sum(odds, axis=axis)
    possible = total > 0
    log_total = jnp.log(jnp.where(possible, total, 1))
    return jnp.where(possible, log_total - of_all.log_total + (peak - of_all.peak), -jnp.inf)


class Seen(Distribution):
    """What a log shows, as a NumPyro distribution: a retry 0, LLM ``j`` as ``j + 1``, signs -k.

    Args:
        utility: ``[*batch, llm]`` log-odds against a retry.
        offered: ``[*batch, llm]`` which LLMs answer.
        rates: the channel.
        signs: how many signs are among the outcomes: 0, or all of the channel.

    Example:
        >>> rates = channel_rates(retry=(0.5, 0, 0.5), taken=(0, 1, 0))
        >>> law = Seen(jnp.zeros(1), jnp.array([True]), rates, signs=1)
        >>> [round(float(p), 3) for p in jnp.exp(law.log_probs)]
        [0.25, 0.5, 0.25]
    """

    arg_constraints = {  # noqa: RUF012  (NumPyro's own convention)
        "utility": constraints.real_vector,
        "offered": constraints.independent(constraints.boolean, 1),
    }
    pytree_data_fields = ("utility", "offered", "rates")
    pytree_aux_fields = ("signs",)

    def __init__(
        self,
        utility: Float[Array, "*batch llm"],
        offered: Bool[Array, "*batch llm"],
        rates: Rates,
        signs: int = 0,
        *,
        validate_args: bool | None = None,
    ):
        self.utility: Any
        self.offered: Any
        self.utility, self.offered = promote_shapes(utility, offered)
        self.rates: Any = rates
        self.signs = signs
        batch = jnp.broadcast_shapes(jnp.shape(utility), jnp.shape(offered))[:-1]
        super().__init__(batch_shape=batch, event_shape=(), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # pyright: ignore
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(-self.signs, jnp.shape(self.utility)[-1])

    @property
    def log_probs(self) -> Float[Array, "*batch outcome"]:
        """Log-probabilities of all outcomes: the retry, the LLMs, and last the signs."""
        utility, offered = jnp.broadcast_arrays(self.utility, self.offered)
        at = jax.tree.map(lambda x: x[..., None], normaliser(utility, offered))
        # As in seen_log_probability, of all LLMs at once: a sum over each alone.
        spread = self.rates[0, 1] / jnp.maximum(jnp.sum(offered, axis=-1, keepdims=True), 1)
        alone = utility[..., None], offered[..., None]
        taken = _log_ratio(spread, self.rates[1, 1], *alone, -1, at)
        retry, *signs = (
            self.log_prob(jnp.full(self.batch_shape, -k))[..., None] for k in range(self.signs + 1)
        )
        return jnp.concatenate([retry, jnp.where(offered, taken, -jnp.inf), *signs], axis=-1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        shape = jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        num_llms = jnp.shape(self.utility)[-1]
        return seen_log_probability(
            self.rates,
            jnp.broadcast_to(self.utility, (*shape, num_llms)),
            jnp.broadcast_to(self.offered, (*shape, num_llms)),
            jnp.broadcast_to(value, shape),
        )

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        index = jax.random.categorical(key, self.log_probs, shape=sample_shape + self.batch_shape)
        num_llms = jnp.shape(self.utility)[-1]
        return jnp.where(index <= num_llms, index, num_llms - index)

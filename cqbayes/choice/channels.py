"""What a log shows of a choice: channels on the log-probabilities of outcomes.

A log hides some choices and records others wrongly. Each such channel ``C`` maps the probabilities
of what users do to the probabilities of what the log shows::

    P(seen = s) = sum_y C(s | y) P(y)        y, s in {retry, LLM 0, ..., LLM n - 1, silence}

Channels can be applied one after another, in any order. Everything is computed with
log-probabilities: an outcome that cannot happen has minus infinity, and gradient zero, not NaN.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from cqbayes.choice.data import SILENCE


class Outcomes(Distribution):
    """A NumPyro distribution over labelled outcomes: a retry 0, LLM ``j`` as ``j + 1``, silence -1.

    Args:
        log_probs: ``[*batch, outcome]``: first the retry, then the LLMs, and last silence if
            ``silence`` is True; minus infinity is allowed.
        silence: whether the last outcome is silence.

    Example:
        >>> law = Outcomes(jnp.log(jnp.array([0.5, 0.25, 0.0, 0.25])), silence=True)
        >>> [round(float(law.log_prob(seen)), 3) for seen in (0, 1, 2, -1)]
        [-0.693, -1.386, -inf, -1.386]
    """

    arg_constraints = {"log_probs": constraints.dependent}  # noqa: RUF012  (NumPyro's convention)
    pytree_data_fields = ("log_probs",)
    pytree_aux_fields = ("silence",)

    def __init__(
        self,
        log_probs: Float[Array, "*batch outcome"],
        silence: bool = False,
        *,
        validate_args: bool | None = None,
    ):
        self.log_probs: Any = log_probs
        self.silence = silence
        super().__init__(jnp.shape(log_probs)[:-1], validate_args=validate_args)

    @property
    def _num_labels(self) -> int:
        """Number of labels other than silence."""
        return self.log_probs.shape[-1] - self.silence

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # pyright: ignore
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(SILENCE if self.silence else 0, self._num_labels - 1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-probability of labels; minus infinity for a number that is no label."""
        shape = jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        labels = jnp.append(jnp.arange(self._num_labels), jnp.array([SILENCE] * self.silence, int))
        # A sum over a one-hot mask: its gradient is a product, where an index would scatter.
        seen = labels == jnp.broadcast_to(value, shape)[..., None]
        found = jnp.sum(jnp.where(seen, self.log_probs, 0), axis=-1)
        return jnp.where(jnp.any(seen, axis=-1), found, -jnp.inf)

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        assert key is not None
        index = jax.random.categorical(key, self.log_probs, shape=sample_shape + self.batch_shape)
        return jnp.where(index < self._num_labels, index, SILENCE)


class LogShares(NamedTuple):
    """Log-probabilities of a retry, of each LLM's answer, and of silence."""

    retry: Float[Array, "*batch"]
    taken: Float[Array, "*batch llm"]
    silent: Float[Array, "*batch"] | None

    def joined(self) -> Outcomes:
        """The distribution with these log-probabilities."""
        ends = [] if self.silent is None else [self.silent[..., None]]
        columns = jnp.concatenate([self.retry[..., None], self.taken, *ends], axis=-1)
        return Outcomes(columns, silence=self.silent is not None)


def log_shares(law: Any, num_llms: int) -> LogShares:
    """Log-probabilities of a distribution of choices, an :class:`Outcomes` or an MNL, by part."""
    columns = law.log_probs
    silent = columns[..., -1] if columns.shape[-1] > 1 + num_llms else None
    return LogShares(columns[..., 0], columns[..., 1 : 1 + num_llms], silent)


def log_sum(*terms: Array) -> Array:
    """``log sum_i exp(t_i)`` of several arrays, element by element; see :func:`log_total`."""
    return log_total(jnp.stack(jnp.broadcast_arrays(*terms), axis=-1))


def log_total(terms: Float[Array, "*batch term"]) -> Float[Array, "*batch"]:
    """``log sum_i exp(t_i)`` over the last axis.

    If all terms are minus infinity, the result is minus infinity with gradient zero.
    """
    possible = jnp.any(terms > -jnp.inf, axis=-1)
    # Masked before the sum: the derivative of log at 0 is infinite, and 0 times infinity is NaN.
    safe = jnp.where(possible[..., None], terms, 0)
    return jnp.where(possible, jax.nn.logsumexp(safe, axis=-1), -jnp.inf)

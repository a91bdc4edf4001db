"""What a log shows of a choice: channels on the log-probabilities of its outcomes.

A log hides some choices and garbles others. Each such mechanism maps the probabilities of what
users do to those of what is seen::

    P(seen = s) = sum_y C(s | y) P(y)        y, s in {retry, LLM 0, ..., LLM n - 1, silence}

and so does one after another: mechanisms compose in any order. All is done on log-probabilities,
where an outcome that cannot happen is minus infinity and has gradient zero, not NaN.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from cqbayes.choice import SILENCE


class Outcomes(Distribution):
    """A NumPyro distribution over labelled outcomes: a retry 0, LLM ``j`` as ``j + 1``, silence -1.

    Args:
        log_probs: ``[*batch, outcome]``, of a retry first, then of the LLMs, and of silence last
            if there is any; minus infinity is allowed.
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
        """Labels that are not silence."""
        return self.log_probs.shape[-1] - self.silence

    @constraints.dependent_property(is_discrete=True, event_dim=0)  # pyright: ignore
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(SILENCE if self.silence else 0, self._num_labels - 1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Minus infinity for what is not an outcome."""
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
        """The distribution that has them."""
        ends = [] if self.silent is None else [self.silent[..., None]]
        columns = jnp.concatenate([self.retry[..., None], self.taken, *ends], axis=-1)
        return Outcomes(columns, silence=self.silent is not None)


def log_shares(law: Any, num_llms: int) -> LogShares:
    """The parts of a distribution of choices: :class:`cqbayes.choice.MNL` or :class:`Outcomes`."""
    columns = law.log_probs
    silent = columns[..., -1] if columns.shape[-1] > 1 + num_llms else None
    return LogShares(columns[..., 0], columns[..., 1 : 1 + num_llms], silent)


def log_sum(*terms: Array) -> Array:
    """``log sum_i exp(t_i)`` of arrays of one shape, see :func:`log_total`."""
    return log_total(jnp.stack(jnp.broadcast_arrays(*terms), axis=-1))


def log_total(terms: Float[Array, "*batch term"]) -> Float[Array, "*batch"]:
    """``log sum_i exp(t_i)`` over the last axis.

    Where all terms are minus infinity so is the result, and its gradient is zero.
    """
    possible = jnp.any(terms > -jnp.inf, axis=-1)
    # Masked before the sum: the derivative of log at 0 would be infinite, and 0 times it NaN.
    safe = jnp.where(possible[..., None], terms, 0)
    return jnp.where(possible, jax.nn.logsumexp(safe, axis=-1), -jnp.inf)

"""Choice data and the multinomial-logit likelihood with retrial: the only likelihood code here.

A user who is shown the answers of an assortment ``S`` takes one or retries; retrying is the outside
option, with utility 0::

    P(y = j     | x, S) = exp(u_j) / (1 + sum_{m in S} exp(u_m))      j in S
    P(y = retry | x, S) = 1        / (1 + sum_{m in S} exp(u_m))

Outcomes are coded 0 for a retry and ``j + 1`` for taking LLM ``j``'s answer (LLMs count from 0).
Models of what a log hides know a further one, -1 for silence (:mod:`cqbayes.outcomes`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from cqbayes.errors import InputError

SILENCE = -1
MOST_LEVELS = 10_000_000  # of users or blocks of time: more is a code that was not made for this


class Situation(NamedTuple):
    """What is known of a service before its outcome: all that a utility may depend on.

    Columns that the data lack are None.

    Attributes:
        context: the query's embedding ``[dim]``.
        attributes: what is known of each LLM's answer, such as price or latency
            ``[llm, attribute]``.
        user: who asks, from 0.
        attempt: 1 for the first service of a query, 2 for the next, and so on.
        time: which block of time, from 0.
    """

    context: Float[Array, "*batch dim"]
    attributes: Float[Array, "*batch llm attribute"] | None = None
    user: Int[Array, "*batch"] | None = None
    attempt: Int[Array, "*batch"] | None = None
    time: Int[Array, "*batch"] | None = None


OPTIONAL = Situation._fields[1:]


class ChoiceData(eqx.Module):
    """Logged services, one row each.

    ``choice`` is 0 for a retry, ``j + 1`` for taking LLM ``j``'s answer, and -1 for silence, where
    neither was seen. ``weight`` multiplies a row's log-likelihood; 0 masks a padded or idle row
    exactly, whatever stands in its other columns. The optional columns are those of
    :class:`Situation`.
    Build it from untrusted arrays with :func:`choice_data`.
    """

    context: Float[Array, "obs dim"]
    offered: Bool[Array, "obs llm"]
    choice: Int[Array, " obs"]
    weight: Float[Array, " obs"]
    attributes: Float[Array, "obs llm attribute"] | None = None
    user: Int[Array, " obs"] | None = None
    attempt: Int[Array, " obs"] | None = None
    time: Int[Array, " obs"] | None = None
    num_users: int = eqx.field(static=True, default=0)
    num_times: int = eqx.field(static=True, default=0)

    @property
    def num_obs(self) -> int:
        return self.context.shape[0]

    @property
    def dim(self) -> int:
        return self.context.shape[-1]

    @property
    def num_llms(self) -> int:
        return self.offered.shape[-1]

    @property
    def situation(self) -> Situation:
        return Situation(*(getattr(self, name) for name in Situation._fields))

    def cleared(self) -> "ChoiceData":
        """The same data with rows of weight zero replaced by rows that offer nothing.

        A weight of zero alone would still let a NaN in a padded row through, since 0 * NaN is NaN.
        """
        live = self.weight > 0

        def clear(column: Array) -> Array:
            shape = (-1,) + (1,) * (column.ndim - 1)
            return jnp.where(live.reshape(shape), column, jnp.zeros((), column.dtype))

        rows = jax.tree.map(clear, self)
        if rows.attempt is None:
            return rows
        return eqx.tree_at(lambda d: d.attempt, rows, jnp.maximum(rows.attempt, 1))

    def only(self, columns: Sequence[str]) -> "ChoiceData":
        """The same data without the optional columns that are not named."""
        kept = {name: getattr(self, name) for name in columns}
        return ChoiceData(
            self.context,
            self.offered,
            self.choice,
            self.weight,
            **kept,
            num_users=self.num_users if "user" in columns else 0,
            num_times=self.num_times if "time" in columns else 0,
        )


def choice_data(
    context: Any,
    offered: Any,
    choice: Any,
    weight: Any = None,
    *,
    attributes: Any = None,
    user: Any = None,
    attempt: Any = None,
    time: Any = None,
) -> ChoiceData:
    """Checks arrays and makes :class:`ChoiceData` of them.

    Args:
        context: embeddings ``[obs, dim]``, finite.
        offered: the assortments ``[obs, llm]``, boolean (or 0 and 1).
        choice: ``[obs]`` integers: 0 for a retry, ``j + 1`` for LLM ``j``, which must be offered,
            and -1 for silence.
        weight: ``[obs]`` finite and not negative; 1 where absent.
        attributes: of the LLMs, ``[obs, llm, attribute]``, or ``[llm, attribute]`` where they are
            the same in all rows.
        user: ``[obs]`` integers from 0.
        attempt: ``[obs]`` integers from 1.
        time: ``[obs]`` integers from 0, blocks of time such as weeks.

    Raises:
        InputError: names the first column and row that is wrong.

    Example:
        >>> choice_data([[0.6, 0.8]], [[True, True]], [2]).num_llms
        2
    """
    context = _numeric("context", context, 2)
    if context.shape[1] == 0:
        raise InputError("context: expected at least one dimension, got none; give a constant one")
    offered = _array("offered", offered)
    if offered.ndim != 2 or len(offered) != len(context):
        raise InputError(
            f"offered: expected booleans of shape ({len(context)}, num_llms) to go with context "
            f"of shape {context.shape}, got shape {offered.shape}"
        )
    if offered.dtype != bool:
        if not np.isin(offered, (0, 1)).all():
            raise InputError("offered: expected only True and False (or 1 and 0)")
        offered = offered.astype(bool)
    if offered.shape[1] == 0:
        raise InputError("offered: expected at least one LLM, got none")
    choice = _array("choice", choice)
    if choice.shape != context.shape[:1] or not np.issubdtype(choice.dtype, np.integer):
        raise InputError(
            f"choice: expected {len(context)} integers, got {choice.dtype} of shape {choice.shape}"
        )
    weight = np.ones(len(context)) if weight is None else _numeric("weight", weight, 1)
    if weight.shape != choice.shape:
        raise InputError(f"weight: expected shape {choice.shape}, got {weight.shape}")
    _reject("weight", weight < 0, weight, "a weight of at least 0")
    num_llms = offered.shape[1]
    expected = f"0 (retry) to {num_llms}, or {SILENCE} (silence)"
    _reject("choice", (choice < SILENCE) | (choice > num_llms), choice, expected)
    taken = np.take_along_axis(offered, np.maximum(choice, 1)[:, None] - 1, axis=1)[:, 0]
    _reject("choice", (choice > 0) & ~taken, choice, "0 (retry) or an LLM that was offered")
    real = jnp.result_type(float)
    if attributes is not None:
        attributes = jnp.asarray(_attributes(attributes, offered.shape), real)
    counts = {
        name: None if column is None else _whole(name, column, len(context), least)
        for name, column, least in (("user", user, 0), ("attempt", attempt, 1), ("time", time, 0))
    }
    return ChoiceData(
        context=jnp.asarray(context, real),
        offered=jnp.asarray(offered),
        choice=jnp.asarray(choice, jnp.int32),
        weight=jnp.asarray(weight, real),
        attributes=attributes,
        **{name: None if c is None else jnp.asarray(c, jnp.int32) for name, c in counts.items()},
        num_users=_levels(counts["user"]),
        num_times=_levels(counts["time"]),
    )


def _attributes(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = _numeric("attributes", values, np.ndim(values))
    if values.ndim == 2:
        values = np.broadcast_to(values, (shape[0], *values.shape))
    if values.ndim != 3 or values.shape[:2] != shape or values.shape[2] == 0:
        raise InputError(
            f"attributes: expected shape ({shape[0]}, {shape[1]}, num_attributes) or "
            f"({shape[1]}, num_attributes), got {values.shape}"
        )
    return values


def _whole(name: str, values: Any, num_obs: int, least: int) -> np.ndarray:
    values = _array(name, values)
    if values.shape != (num_obs,) or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"{name}: expected {num_obs} integers, got {values.dtype} of shape {values.shape}; "
            "pandas.factorize makes codes of names"
        )
    _reject(name, (values < least) | (values > MOST_LEVELS), values, f"{least} to {MOST_LEVELS}")
    return values


def _levels(codes: np.ndarray | None) -> int:
    return 0 if codes is None or codes.size == 0 else int(codes.max()) + 1


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(f"{name}: expected rows of one length, got a ragged list") from None


def _numeric(name: str, values: Any, ndim: int) -> np.ndarray:
    if np.ma.isMaskedArray(values) or _array(name, values).dtype.kind in "cMm":
        raise InputError(f"{name}: expected plain numbers, got masked, complex or dates") from None
    try:
        # As it will be computed with: what overflows there is not finite either.
        with np.errstate(over="ignore"):
            array = np.asarray(values, dtype=np.float64).astype(jnp.result_type(float))
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: expected numbers in {ndim} dimension(s), got other values"
        ) from None
    if array.ndim != ndim:
        raise InputError(f"{name}: expected {ndim} dimension(s), got shape {array.shape}")
    finite = np.isfinite(array).all(axis=tuple(range(1, ndim)))
    _reject(name, ~finite, None, "finite numbers")
    return array


def _reject(name: str, bad: Any, values: np.ndarray | None, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        came = "NaN or infinity" if values is None else values[row]
        raise InputError(f"{name}: expected {expected}, got {came} in row {row}")


class Normaliser(NamedTuple):
    """``peak = max(0, max_S u)``, ``odds_j = exp(u_j - peak)`` and ``excess = total - 1``.

    The LLMs are the last axis of ``odds`` unless :func:`normaliser` was told otherwise.
    ``total = exp(-peak) + sum_{j in S} odds_j``, so that ``log Z = peak + log1p(excess)`` and
    ``P(j) = odds_j / total``. Apart, so that differences of large utilities are taken before
    anything is rounded, and a departure probability that is close to 0 keeps its digits.
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
    """What all probabilities of a choice are made of; ``axis`` is that of the LLMs."""
    inside = jnp.where(offered, utility, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(inside, axis=axis, initial=0, keepdims=True))
    odds = jnp.where(offered, jnp.exp(jnp.where(offered, utility - peak, 0)), 0)
    excess = jnp.expm1(-peak.squeeze(axis)) + jnp.sum(odds, axis=axis)
    return Normaliser(peak.squeeze(axis), odds, excess)


def log_partition(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch"]:
    """``log(1 + sum_{m in S} exp(u_m))``, minus the log-probability of a retry.

    Finite in value and gradient for utilities up to +-1e4 in float32 and float64; exactly 0, with
    gradient 0, for an empty assortment.
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
    """``p(x, S) = 1 - P(retry | x, S)``: the query is answered and leaves the queue."""
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

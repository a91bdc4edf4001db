"""Choice data and the multinomial-logit likelihood with retrial: the only likelihood code here.

A user who is shown the answers of an assortment ``S`` takes one or retries; retrying is the outside
option, with utility 0::

    P(y = j     | x, S) = exp(u_j) / (1 + sum_{m in S} exp(u_m))      j in S
    P(y = retry | x, S) = 1        / (1 + sum_{m in S} exp(u_m))

Outcomes are coded 0 for a retry and ``j + 1`` for taking LLM ``j``'s answer (LLMs count from 0).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from cqbayes.errors import InputError


class ChoiceData(eqx.Module):
    """Logged services, one row each.

    ``weight`` multiplies a row's log-likelihood; 0 masks a padded or idle row exactly, whatever
    stands in its other columns. Build it from untrusted arrays with :func:`choice_data`.
    """

    context: Float[Array, "obs dim"]
    offered: Bool[Array, "obs llm"]
    choice: Int[Array, " obs"]
    weight: Float[Array, " obs"]

    @property
    def num_obs(self) -> int:
        return self.context.shape[0]

    @property
    def dim(self) -> int:
        return self.context.shape[-1]

    @property
    def num_llms(self) -> int:
        return self.offered.shape[-1]

    def cleared(self) -> "ChoiceData":
        """The same data with rows of weight zero replaced by rows that offer nothing.

        A weight of zero alone would still let a NaN in a padded row through, since 0 * NaN is NaN.
        """
        live = self.weight > 0
        return ChoiceData(
            context=jnp.where(live[..., None], self.context, 0),
            offered=self.offered & live[..., None],
            choice=jnp.where(live, self.choice, 0),
            weight=jnp.where(live, self.weight, 0),
        )


def choice_data(context: Any, offered: Any, choice: Any, weight: Any = None) -> ChoiceData:
    """Checks arrays and makes :class:`ChoiceData` of them.

    Args:
        context: embeddings ``[obs, dim]``, finite.
        offered: the assortments ``[obs, llm]``, boolean (or 0 and 1).
        choice: ``[obs]`` integers: 0 for a retry, ``j + 1`` for LLM ``j``, which must be offered.
        weight: ``[obs]`` finite and not negative; 1 where absent.

    Raises:
        InputError: names the first column and row that is wrong.

    Example:
        >>> choice_data([[0.6, 0.8]], [[True, True]], [2]).num_llms
        2
    """
    context = _numeric("context", context, 2)
    offered = np.asarray(offered)
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
    choice = np.asarray(choice)
    if choice.shape != context.shape[:1] or not np.issubdtype(choice.dtype, np.integer):
        raise InputError(
            f"choice: expected {len(context)} integers, got {choice.dtype} of shape {choice.shape}"
        )
    weight = np.ones(len(context)) if weight is None else _numeric("weight", weight, 1)
    if weight.shape != choice.shape:
        raise InputError(f"weight: expected shape {choice.shape}, got {weight.shape}")
    _reject("weight", weight < 0, weight, "a weight of at least 0")
    num_llms = offered.shape[1]
    _reject("choice", (choice < 0) | (choice > num_llms), choice, f"0 (retry) to {num_llms}")
    taken = np.take_along_axis(offered, np.maximum(choice, 1)[:, None] - 1, axis=1)[:, 0]
    _reject("choice", (choice > 0) & ~taken, choice, "0 (retry) or an LLM that was offered")
    real = jnp.result_type(float)
    return ChoiceData(
        context=jnp.asarray(context, real),
        offered=jnp.asarray(offered),
        choice=jnp.asarray(choice, jnp.int32),
        weight=jnp.asarray(weight, real),
    )


def _numeric(name: str, values: Any, ndim: int) -> np.ndarray:
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


def _normaliser(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """``m = max(0, max_S u)`` and ``log(exp(-m) + sum_{j in S} exp(u_j - m))``.

    Apart, so that differences of large utilities are taken before anything is rounded.
    """
    inside = jnp.where(offered, utility, -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(inside, axis=-1, initial=0))
    shifted = jnp.where(offered, utility - peak[..., None], 0)
    total = jnp.sum(jnp.where(offered, jnp.exp(shifted), 0), axis=-1)
    # expm1 and log1p keep the digits of a departure probability that is close to 0.
    return peak, jnp.log1p(jnp.expm1(-peak) + total)


def log_partition(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch"]:
    """``log(1 + sum_{m in S} exp(u_m))``, minus the log-probability of a retry.

    Finite in value and gradient for utilities up to +-1e4 in float32 and float64; exactly 0, with
    gradient 0, for an empty assortment.
    """
    peak, log_total = _normaliser(utility, offered)
    return peak + log_total


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
    peak, log_total = _normaliser(utility, offered)
    return jnp.where(possible, value - peak - log_total, -jnp.inf)


def log_probabilities(
    utility: Float[Array, "*batch llm"], offered: Bool[Array, "*batch llm"]
) -> Float[Array, "*batch outcome"]:
    """Log-probabilities of all ``1 + num_llms`` outcomes; minus infinity where not offered."""
    retry = jnp.zeros_like(utility[..., :1])
    inside = jnp.where(offered, utility, -jnp.inf)
    peak, log_total = _normaliser(utility, offered)
    return jnp.concatenate([retry, inside], axis=-1) - peak[..., None] - log_total[..., None]


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

    @property
    def mean(self) -> Array:
        raise NotImplementedError("the outcomes of a choice are labels: they have no mean")

    @property
    def variance(self) -> Array:
        raise NotImplementedError("the outcomes of a choice are labels: they have no variance")

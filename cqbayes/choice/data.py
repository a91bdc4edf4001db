"""Choice data: one row for each service of a query, and the checks of arrays from outside.

A row says who could be chosen (``offered``), in which situation (``context`` and optional columns),
and what the user did (``choice``).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cqbayes.errors import InputError

SILENCE = -1
MOST_SIGNS = 16
MOST_LEVELS = 10_000_000  # of users or blocks of time: a larger code is surely a mistake


class Situation(NamedTuple):
    """What is known of a service before its outcome: all that a utility may depend on.

    A column that the data do not have is None.

    Attributes:
        context: the query's embedding ``[dim]``.
        attributes: attributes of each LLM's answer, such as price or latency
            ``[llm, attribute]``.
        user: code of the user, from 0.
        attempt: 1 for the first service of a query, 2 for the next, and so on.
        time: code of the block of time, from 0.
        failures: vain answers of each LLM to this query so far ``[llm]``.
    """

    context: Float[Array, "*batch dim"]
    attributes: Float[Array, "*batch llm attribute"] | None = None
    user: Int[Array, "*batch"] | None = None
    attempt: Int[Array, "*batch"] | None = None
    time: Int[Array, "*batch"] | None = None
    failures: Int[Array, "*batch llm"] | None = None


OPTIONAL = Situation._fields[1:]


class ChoiceData(eqx.Module):
    """Logged services, one row each.

    ``choice`` is 0 for a retry, ``j + 1`` for taking LLM ``j``'s answer, -1 for silence: the log
    shows neither; and ``-k`` for sign ``k`` of the model's channel. ``weight`` multiplies a row's
    log-likelihood. A weight of 0 masks a padded or idle row exactly, whatever its other columns
    hold. The optional columns are those of :class:`Situation`; ``terms`` are the same rows in the
    layout of a fast likelihood (:func:`cqbayes.posterior.log_densities.with_terms`).
    :func:`choice_data` checks untrusted arrays and makes ``ChoiceData``.
    """

    context: Float[Array, "obs dim"]
    offered: Bool[Array, "obs llm"]
    choice: Int[Array, " obs"]
    weight: Float[Array, " obs"]
    attributes: Float[Array, "obs llm attribute"] | None = None
    user: Int[Array, " obs"] | None = None
    attempt: Int[Array, " obs"] | None = None
    time: Int[Array, " obs"] | None = None
    failures: Int[Array, "obs llm"] | None = None
    terms: Any = None
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
        """The same data, with every row of weight zero replaced by a row that offers nothing.

        A weight of zero is not enough: if a padded row holds NaN, 0 * NaN is NaN.
        """
        live = self.weight > 0

        def clear(column: Array) -> Array:
            shape = (-1,) + (1,) * (column.ndim - 1)
            return jnp.where(live.reshape(shape), column, jnp.zeros((), column.dtype))

        rows = jax.tree.map(clear, self.without_terms())
        if rows.attempt is None:
            return rows
        return eqx.tree_at(lambda d: d.attempt, rows, jnp.maximum(rows.attempt, 1))

    def without_terms(self) -> "ChoiceData":
        """The same data as rows alone, of which some can be picked."""
        return eqx.tree_at(lambda d: d.terms, self, None, is_leaf=lambda x: x is None)

    def only(self, columns: Sequence[str]) -> "ChoiceData":
        """The same data with only those optional columns that ``columns`` names."""
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

    def merged(self, multiple: int = 1) -> "ChoiceData":
        """The same data with rows that are alike as one row, of their joint weight.

        The likelihood is the same, in less time where contexts repeat. Rows of weight 0 are left
        out, but for those at the end that fill up the number of rows to a multiple: functions
        that were compiled for data of one shape are then there for others. The order is another
        one.

        Example:
            >>> data = choice_data([[1.0], [2.0], [1.0]], [[True]] * 3, [1, 0, 1])
            >>> found = data.merged()
            >>> found.context[:, 0].tolist(), found.weight.tolist()
            ([2.0, 1.0], [1.0, 2.0])
        """
        live = np.flatnonzero(np.asarray(self.weight) > 0)
        alike = eqx.tree_at(lambda d: d.weight, self, jnp.ones_like(self.weight))
        columns = [np.asarray(x)[live] for x in jax.tree.leaves(alike)]
        flat = [np.ascontiguousarray(x.reshape(len(live), -1)) for x in columns]
        cells = np.concatenate([x.view(np.uint8).reshape(len(live), -1) for x in flat], axis=1)
        key = np.ascontiguousarray(cells).view(np.dtype((np.void, cells.shape[1])))[:, 0]
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        weight = np.bincount(group, np.asarray(self.weight, np.float64)[live], len(first))
        short = -len(first) % multiple
        rows = np.append(live[first], np.full(short, live[0]))
        weight = jnp.asarray(np.append(weight, np.zeros(short)), self.weight.dtype)
        found = jax.tree.map(lambda column: column[rows], self)
        return eqx.tree_at(lambda d: d.weight, found, weight)


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
    failures: Any = None,
) -> ChoiceData:
    """:class:`ChoiceData` made of arrays, after checks.

    Args:
        context: embeddings ``[obs, dim]``, finite.
        offered: the assortments ``[obs, llm]``, boolean (or 0 and 1).
        choice: ``[obs]`` integers: 0 for a retry, ``j + 1`` for LLM ``j``, which must be offered,
            -1 for silence, and ``-k`` for sign ``k`` of the model's channel.
        weight: ``[obs]`` finite and not negative; 1 if absent.
        attributes: attributes of the LLMs, ``[obs, llm, attribute]``, or ``[llm, attribute]`` if
            they are the same in all rows.
        user: ``[obs]`` integers from 0.
        attempt: ``[obs]`` integers from 1.
        time: ``[obs]`` integers from 0, blocks of time such as weeks.
        failures: ``[obs, llm]`` integers from 0: how often each LLM answered this query in vain
            before. The attempt number, where absent, follows from it if one LLM is offered a time.

    Raises:
        InputError: for a wrong array; the message names the column and its first wrong row.

    Example:
        >>> choice_data([[0.6, 0.8]], [[True, True]], [2]).num_llms
        2
    """
    context = _numeric("context", context, 2)
    if context.shape[1] == 0:
        raise InputError("context: expected at least one dimension, got none; pass ones")
    offered = _array("offered", offered)
    if offered.ndim != 2 or len(offered) != len(context):
        raise InputError(
            f"offered: expected booleans of shape ({len(context)}, num_llms) to go with context "
            f"of shape {context.shape}, got shape {offered.shape}"
        )
    if offered.dtype != bool:
        if not np.isin(offered, (0, 1)).all():
            raise InputError("offered: expected only True and False (or 1 and 0), got other values")
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
    expected = f"0 (retry) to {num_llms}, or {SILENCE} (silence) to {-MOST_SIGNS} (other signs)"
    _reject("choice", (choice < -MOST_SIGNS) | (choice > num_llms), choice, expected)
    taken = np.take_along_axis(offered, np.maximum(choice, 1)[:, None] - 1, axis=1)[:, 0]
    _reject("choice", (choice > 0) & ~taken, choice, "0 (retry) or an LLM that was offered")
    real = jnp.result_type(float)
    if attributes is not None:
        attributes = jnp.asarray(_attributes(attributes, offered.shape), real)
    if failures is not None:
        failures = _counts(failures, offered.shape)
        if attempt is None and (offered.sum(axis=1) <= 1).all():
            attempt = 1 + failures.sum(axis=1)
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
        failures=None if failures is None else jnp.asarray(failures, jnp.int32),
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


def _counts(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = _array("failures", values)
    if values.shape != shape or not np.issubdtype(values.dtype, np.integer):
        raise InputError(
            f"failures: expected integers of shape {shape}, one for each LLM in each row, got "
            f"{values.dtype} of shape {values.shape}"
        )
    bad = ((values < 0) | (values > MOST_LEVELS)).any(axis=1)
    _reject("failures", bad, values, f"0 to {MOST_LEVELS}")
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
        raise InputError(
            f"{name}: expected plain numbers, got masked values, complex numbers or dates"
        ) from None
    try:
        # In the precision of later computations: a number that overflows there is not finite.
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

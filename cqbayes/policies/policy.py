"""What a policy is: a record of pure functions over pytrees."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cqbayes.choice.assortments import best_assortment
from cqbayes.environments.environment import Action, Observation
from cqbayes.errors import InputError


class Policy(NamedTuple):
    """A routing and scheduling rule.

    Attributes:
        init: ``key -> state``.
        select: ``(key, state, observation) -> Action``; ignored when nothing waits.
        update: ``(key, state, rows) -> state``, with the outcome as :class:`ChoiceData`.
        refit: ``(key, state, history) -> state`` or None: called by the driver between segments
            with all rows so far, for posteriors too costly to update in every round.
        refit_after: ``rounds -> rounds after which to refit``, or None where the driver decides;
            see :mod:`cqbayes.policies.wrappers.refit`.
    """

    init: Callable[[PRNGKeyArray], Any]
    select: Callable[[PRNGKeyArray, Any, Observation], Action]
    update: Callable[[PRNGKeyArray, Any, Any], Any]
    refit: Callable[[PRNGKeyArray, Any, Any], Any] | None = None
    refit_after: Callable[[int], Sequence[int]] | None = None


def check_not_negative(name: str, **settings: float | Array) -> None:
    """Refuses settings that must be numbers of at least 0.

    Raises:
        InputError: names the first setting that is not.
    """
    for setting, value in settings.items():
        if not isinstance(value, Tracer) and not 0 <= value < float("inf"):
            raise InputError(
                f"{name}: expected {setting} to be a number of at least 0, got {value!r}"
            )


def stateless(select: Callable[[PRNGKeyArray, Any, Observation], Action]) -> Policy:
    """A policy that does not learn."""
    return Policy(init=_no_state, select=select, update=_no_update)


def _no_state(key: PRNGKeyArray) -> tuple[()]:
    return ()


def _no_update(key: PRNGKeyArray, state: Any, rows: Any) -> Any:
    return state


def best_pair(
    utility: Float[Array, "room llm"],
    seen: Observation,
    slate_size: int,
    values: Float[Array, " llm"] | None = None,
) -> Action:
    """The waiting query and assortment with the highest ``v(x, S)``, with priorities considered.

    ``v`` is the departure probability, or with ``values`` the expected reward. Queries are compared
    by the log-odds of ``v`` plus their priority.
    """
    offered, score = best_assortment(utility, slate_size, values)
    if seen.priority is not None:
        score = score + seen.priority
    query = jnp.argmax(jnp.where(seen.waiting, score, -jnp.inf))
    return Action(query, offered[query])


def random_pair(
    uniforms: Float[Array, " llm_and_one"], seen: Observation, slate_size: int
) -> Action:
    """A waiting query and an assortment of ``slate_size`` LLMs, both uniformly at random.

    One uniform number picks the query, whatever the size of the waiting room, so that a larger
    room leaves every choice as it was; the others rank the LLMs.
    """
    offered, _ = best_assortment(uniforms[1:], slate_size)
    if seen.servable is None:
        place = jnp.floor(uniforms[0] * seen.queue_length).astype(jnp.int32)
        return Action(jnp.clip(place, 0, jnp.maximum(seen.queue_length - 1, 0)), offered)
    rank = jnp.cumsum(seen.waiting)
    wanted = jnp.minimum(jnp.floor(uniforms[0] * rank[-1]) + 1, rank[-1])
    return Action(jnp.argmax(rank == wanted).astype(jnp.int32), offered)


def oldest(seen: Observation) -> Int[Array, ""]:
    """Place of the query that has waited longest, among those that can be served."""
    return jnp.argmax(jnp.where(seen.waiting, seen.wait, -1))

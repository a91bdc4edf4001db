"""Policies: which waiting query to serve next, and which LLMs should answer it.

A policy is a record of pure functions over pytrees. Each file makes one; wrappers compose.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.assortment import best_assortment
from cqbayes.belief import Belief
from cqbayes.environments import Population
from cqbayes.preference import Sizes


class Observation(NamedTuple):
    """All that a policy may see. Waiting queries fill the first ``queue_length`` places.

    Attributes:
        round: the current round, counted from 1.
        queue_length: how many queries wait.
        context: their embeddings ``[room, dim]``; what stands in free places means nothing.
        identity: which query of the population each one is ``[room]``.
        wait: rounds since arrival ``[room]``.
        attempts: services so far ``[room]``.
    """

    round: Int[Array, ""]
    queue_length: Int[Array, ""]
    context: Float[Array, "room dim"]
    identity: Int[Array, " room"]
    wait: Int[Array, " room"]
    attempts: Int[Array, " room"]

    @property
    def waiting(self) -> Bool[Array, " room"]:
        return jnp.arange(self.context.shape[0]) < self.queue_length

    def among(self, places: int) -> "Observation":
        """Only the first ``places`` of the room (of many rooms, where axis 0 counts seeds)."""
        return self._replace(
            **{
                name: getattr(self, name)[:, :places]
                for name in ("context", "identity", "wait", "attempts")
            }
        )


class Action(NamedTuple):
    """Serve the query in place ``query`` with the LLMs ``offered``."""

    query: Int[Array, ""]
    offered: Bool[Array, " llm"]


class Policy(NamedTuple):
    """A routing and scheduling rule.

    Attributes:
        init: ``key -> state``.
        select: ``(key, state, observation) -> Action``; ignored when nothing waits.
        update: ``(key, state, rows) -> state``, with the outcome as :class:`ChoiceData`.
        refit: ``(key, state, history) -> state`` or None: called by the driver between segments
            with all rows so far, for posteriors too costly to update in every round.
    """

    init: Callable[[PRNGKeyArray], Any]
    select: Callable[[PRNGKeyArray, Any, Observation], Action]
    update: Callable[[PRNGKeyArray, Any, Any], Any]
    refit: Callable[[PRNGKeyArray, Any, Any], Any] | None = None


class Setup(NamedTuple):
    """What a policy's ``build`` may use: how policies are made by name.

    ``truth`` is None except for policies whose file says ``NEEDS_TRUTH = True``.
    """

    sizes: Sizes
    slate_size: int
    belief: Belief
    truth: Population | None = None


def stateless(select: Callable[[PRNGKeyArray, Any, Observation], Action]) -> Policy:
    """A policy that does not learn."""
    return Policy(init=_no_state, select=select, update=_no_update)


def _no_state(key: PRNGKeyArray) -> tuple[()]:
    return ()


def _no_update(key: PRNGKeyArray, state: Any, rows: Any) -> Any:
    return state


def best_pair(
    utility: Float[Array, "room llm"], waiting: Bool[Array, " room"], slate_size: int
) -> Action:
    """The waiting query and assortment of highest departure probability."""
    offered, score = best_assortment(utility, slate_size)
    query = jnp.argmax(jnp.where(waiting, score, -jnp.inf))
    return Action(query, offered[query])


def random_pair(
    uniforms: Float[Array, " llm_and_one"], queue_length: Int[Array, ""], slate_size: int
) -> Action:
    """A waiting query and an assortment of ``slate_size`` LLMs, both uniformly at random.

    One uniform number picks the query, whatever the size of the waiting room, so that a larger
    room leaves every choice as it was; the others rank the LLMs.
    """
    place = jnp.floor(uniforms[0] * queue_length).astype(jnp.int32)
    offered, _ = best_assortment(uniforms[1:], slate_size)
    return Action(jnp.clip(place, 0, jnp.maximum(queue_length - 1, 0)), offered)

"""Policies: which waiting query to serve next, and which LLMs should answer it.

A policy is a record of pure functions over pytrees. Each file makes one; wrappers compose.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.assortment import best_assortment
from cqbayes.belief import Belief
from cqbayes.environments import Population
from cqbayes.errors import InputError
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
        servable: which of the waiting queries can be served now ``[room]``: not those in orbit, or
            in a service that must not be interrupted. None where all can.
        priority: added to the log-odds by which queries are compared ``[room]``, by wrappers such
            as :mod:`cqbayes.policies.aging`. None where there is none.
    """

    round: Int[Array, ""]
    queue_length: Int[Array, ""]
    context: Float[Array, "room dim"]
    identity: Int[Array, " room"]
    wait: Int[Array, " room"]
    attempts: Int[Array, " room"]
    servable: Bool[Array, " room"] | None = None
    priority: Float[Array, " room"] | None = None

    @property
    def waiting(self) -> Bool[Array, " room"]:
        """Which places hold a query that can be served now."""
        taken = jnp.arange(self.context.shape[0]) < self.queue_length
        return taken if self.servable is None else taken & self.servable

    def alone(self, place: Int[Array, ""]) -> "Observation":
        """A room of one: only the query in ``place``."""
        one = self._rooms(lambda column: column[place][None])
        return one._replace(queue_length=jnp.minimum(self.queue_length, 1))

    def brought_forward(self, place: Int[Array, ""]) -> "Observation":
        """The same room with the query of ``place`` in the first place as well."""
        return self._rooms(lambda column: column.at[0].set(column[place]))

    def _rooms(self, pick: Callable[[Array], Array]) -> "Observation":
        names = ("context", "identity", "wait", "attempts", "servable", "priority")
        there = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return self._replace(**{name: pick(column) for name, column in there.items()})


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
        refit_after: ``rounds -> rounds after which to refit``, or None where the driver says so;
            see :mod:`cqbayes.policies.refit`.
    """

    init: Callable[[PRNGKeyArray], Any]
    select: Callable[[PRNGKeyArray, Any, Observation], Action]
    update: Callable[[PRNGKeyArray, Any, Any], Any]
    refit: Callable[[PRNGKeyArray, Any, Any], Any] | None = None
    refit_after: Callable[[int], Sequence[int]] | None = None


class Setup(NamedTuple):
    """What a policy's ``build`` may use: how policies are made by name.

    Attributes:
        sizes: numbers of LLMs and context dimensions.
        slate_size: most LLMs that answer one query.
        belief: how a Bayesian policy keeps its posterior.
        truth: None except for policies whose file says ``NEEDS_TRUTH = True``.
        values: worth of each LLM's answer when it is taken ``[llm]``, in [0, 1]: quality minus
            price. None for 1 each, where expected reward is departure probability.
        horizon: rounds of the run, for policies that need to know it.
    """

    sizes: Sizes
    slate_size: int
    belief: Belief
    truth: Population | None = None
    values: Float[Array, " llm"] | None = None
    horizon: int | None = None


def check_not_negative(name: str, **settings: float | Array) -> None:
    """Refuses settings that must be numbers of at least 0.

    Raises:
        InputError: names the first that is not.
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
    """The waiting query and assortment of highest ``v(x, S)``, priorities considered.

    ``v`` is the departure probability, or with ``values`` the expected reward. Queries are compared
    by its log-odds, to which a priority is added.
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

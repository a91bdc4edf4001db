"""Records of environments: observations and actions of policies, true utilities, metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Observation(NamedTuple):
    """All that a policy may see. Waiting queries fill the first ``queue_length`` places.

    Attributes:
        round: the current round, counted from 1.
        queue_length: how many queries wait.
        context: embeddings of the waiting queries ``[room, dim]``; free places hold no meaning.
        identity: number of each waiting query in the population ``[room]``.
        wait: rounds since arrival ``[room]``.
        attempts: services so far ``[room]``.
        failures: how often each LLM answered each query in vain ``[room, llm]``; None where it is
            not known.
        servable: which waiting queries can be served now ``[room]``: not queries in orbit, and
            only queries in service if services must not be interrupted. None if all can be served.
        priority: a number that wrappers such as :mod:`cqbayes.policies.wrappers.aging` add to the
            log-odds by which queries are compared ``[room]``. None if there is no such wrapper.
    """

    round: Int[Array, ""]
    queue_length: Int[Array, ""]
    context: Float[Array, "room dim"]
    identity: Int[Array, " room"]
    wait: Int[Array, " room"]
    attempts: Int[Array, " room"]
    failures: Int[Array, "room llm"] | None = None
    servable: Bool[Array, " room"] | None = None
    priority: Float[Array, " room"] | None = None

    @property
    def waiting(self) -> Bool[Array, " room"]:
        """Which places hold a query that can be served now."""
        taken = jnp.arange(self.context.shape[0]) < self.queue_length
        return taken if self.servable is None else taken & self.servable

    def alone(self, place: Int[Array, ""]) -> "Observation":
        """The observation of a room with only the query in ``place``."""
        one = self._rooms(lambda column: column[place][None])
        return one._replace(queue_length=jnp.minimum(self.queue_length, 1))

    def brought_forward(self, place: Int[Array, ""]) -> "Observation":
        """The same room, with a copy of the query in ``place`` in the first place."""
        return self._rooms(lambda column: column.at[0].set(column[place]))

    def _rooms(self, pick: Callable[[Array], Array]) -> "Observation":
        names = (
            "context",
            "identity",
            "wait",
            "attempts",
            "failures",
            "servable",
            "priority",
        )
        there = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return self._replace(**{name: pick(column) for name, column in there.items()})


class Action(NamedTuple):
    """Serve the query in place ``query`` with the LLMs ``offered``."""

    query: Int[Array, ""]
    offered: Bool[Array, " llm"]


class Query(NamedTuple):
    """One query: its embedding ``[dim]``, and its number in the population."""

    context: Float[Array, "*room dim"]
    identity: Int[Array, "*room"]


class Population(NamedTuple):
    """Users' queries and their true utilities. Policies do not see them; only the oracle does.

    Attributes:
        draw: ``key -> Query``, the next arrival.
        utility: ``Query -> [llm]``, true log-odds that each answer is taken rather than retried.
        cost: ``Query -> [llm]``, dollars that each answer costs; None if not known.
        linear: ``Query -> [llm]``, log-odds by the best linear parameter, which separate the cost
            of misspecification from the cost of learning (:mod:`cqbayes.environments.best_linear`).
            None if not needed. For linear utilities of your own, pass ``linear=utility``.
    """

    draw: Callable[[PRNGKeyArray], Query]
    utility: Callable[[Query], Float[Array, " llm"]]
    cost: Callable[[Query], Float[Array, " llm"]] | None = None
    linear: Callable[[Query], Float[Array, " llm"]] | None = None


class Survey(NamedTuple):
    """Measurements over all waiting queries, before a query is served.

    Attributes:
        best: ``max_{x', S'} v(x', S')`` over the queries that can be served.
        oldest: rounds since the arrival of the oldest waiting query.
        servable: number of queries that can be served now.
    """

    best: Float[Array, ""]
    oldest: Int[Array, ""]
    servable: Int[Array, ""]


class Metrics(NamedTuple):
    """Measurements of one round (of one service, if a round has several).

    Measurements of the service are 0 or False if no query is served.

    Attributes:
        queue_length: number of waiting queries at the start of the round, with those in orbit.
        servable: number of waiting queries that could be served.
        served: whether a query was served.
        departed: whether the user of the served query took an answer.
        abandoned: how many queries lost patience and left at the end of the round.
        arrived: how many queries arrived at the end of the round.
        offered: which LLMs answered ``[llm]``.
        departure_probability: true ``p(x, S)`` of the service.
        value: true ``v(x, S)``: the departure probability, or the expected reward if answers have
            values.
        best_for_query: ``max_S' v(x, S')`` for the query that was served.
        linear_for_query: true ``v`` of the assortment that the best linear parameter would offer
            for this query; NaN in all rounds if that parameter is not known.
        best_waiting: ``max_{x', S'} v(x', S')`` over all queries that could be served.
        wait: rounds between arrival and departure, in rounds with a departure.
        attempts: number of services of the departing query.
        oldest: rounds since the arrival of the oldest waiting query.
        cost: dollars spent on the answers.
    """

    queue_length: Int[Array, "..."]
    servable: Int[Array, "..."]
    served: Bool[Array, "..."]
    departed: Bool[Array, "..."]
    abandoned: Int[Array, "..."]
    arrived: Int[Array, "..."]
    offered: Bool[Array, "..."]
    departure_probability: Float[Array, "..."]
    value: Float[Array, "..."]
    best_for_query: Float[Array, "..."]
    linear_for_query: Float[Array, "..."]
    best_waiting: Float[Array, "..."]
    wait: Int[Array, "..."]
    attempts: Int[Array, "..."]
    oldest: Int[Array, "..."]
    cost: Float[Array, "..."]


class Environment(NamedTuple):
    """An environment in which queries wait, as a record of pure functions.

    Attributes:
        init: ``room -> state``, with places for ``room`` waiting queries.
        observe: ``state -> Observation``, all that a policy may see.
        survey: ``state -> Survey``, measurements over all waiting queries.
        among: ``(state, places) -> state`` with only the first places of the waiting room; enough
            for ``observe`` and ``survey`` if no other place is taken.
        chance: ``key -> chance``, all random numbers of a round, drawn before the policy acts:
            policies with the same keys meet the same arrivals and the same luck.
        step: ``(chance, state, action, survey) -> (state, rows, metrics)``, deterministic.
        grow: ``(state, room) -> state`` with a larger room and nothing else changed.
        overflowed: ``state -> bool``: True if an arrival found no place; the caller must then throw
            the state away.
        num_llms: number of LLMs.
        slate_size: most LLMs that answer one query.
        services: services in a round; each service is a step.
    """

    init: Callable[[int], Any]
    observe: Callable[[Any], Any]
    survey: Callable[[Any], Survey]
    among: Callable[[Any, int], Any]
    chance: Callable[[PRNGKeyArray], Any]
    step: Callable[[Any, Any, Any, Survey], tuple[Any, Any, Metrics]]
    grow: Callable[[Any, int], Any]
    overflowed: Callable[[Any], Bool[Array, ""]]
    num_llms: int
    slate_size: int
    services: int = 1

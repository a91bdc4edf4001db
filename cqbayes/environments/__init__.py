"""Environments: the retrial queue, and where the truth about its users comes from."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class Query(NamedTuple):
    """One query: its embedding ``[dim]``, and which of the population it is."""

    context: Float[Array, "*room dim"]
    identity: Int[Array, "*room"]


class Population(NamedTuple):
    """Who asks, and what they truly think. Policies do not see it; the oracle is built with it.

    Attributes:
        draw: ``key -> Query``, the next arrival.
        utility: ``Query -> [llm]``, true log-odds that each answer is taken rather than retried.
        cost: ``Query -> [llm]``, dollars that each answer costs; None where nothing is known.
    """

    draw: Callable[[PRNGKeyArray], Query]
    utility: Callable[[Query], Float[Array, " llm"]]
    cost: Callable[[Query], Float[Array, " llm"]] | None = None


class Metrics(NamedTuple):
    """What is measured in one round. Everything is 0 or False in a round that serves nothing.

    Attributes:
        queue_length: queries waiting at the start of the round.
        served: whether a query was served.
        departed: whether its user took an answer.
        arrived: whether a query arrived at the end of the round.
        offered: which LLMs answered ``[llm]``.
        departure_probability: true ``p(x, S)`` of the service.
        best_for_query: ``max_S' p(x, S')`` for the query that was served.
        best_waiting: ``max_{x', S'} p(x', S')`` over all queries that waited.
        wait: rounds between arrival and departure, in rounds with a departure.
        attempts: services that the departing query took.
        oldest: rounds since the arrival of the oldest waiting query.
        cost: dollars spent on the answers.
    """

    queue_length: Int[Array, "..."]
    served: Bool[Array, "..."]
    departed: Bool[Array, "..."]
    arrived: Bool[Array, "..."]
    offered: Bool[Array, "..."]
    departure_probability: Float[Array, "..."]
    best_for_query: Float[Array, "..."]
    best_waiting: Float[Array, "..."]
    wait: Int[Array, "..."]
    attempts: Int[Array, "..."]
    oldest: Int[Array, "..."]
    cost: Float[Array, "..."]


class Environment(NamedTuple):
    """A world in which queries wait.

    Attributes:
        init: ``room -> state``, with places for ``room`` waiting queries.
        observe: ``state -> Observation``, all that a policy may see.
        chance: ``key -> chance``, all that is random in a round, drawn before anybody acts: all
            policies that share keys meet the same arrivals and the same luck.
        step: ``(chance, state, action) -> (state, rows, metrics)``, deterministic.
        grow: ``(state, room) -> state`` with a larger room and nothing else changed.
        overflowed: ``state -> bool``: an arrival found no place; the state is to be thrown away.
        num_llms: how many LLMs there are.
        slate_size: most LLMs that answer one query.
    """

    init: Callable[[int], Any]
    observe: Callable[[Any], Any]
    chance: Callable[[PRNGKeyArray], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any, Metrics]]
    grow: Callable[[Any, int], Any]
    overflowed: Callable[[Any], Bool[Array, ""]]
    num_llms: int
    slate_size: int

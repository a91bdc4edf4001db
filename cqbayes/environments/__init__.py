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
        linear: ``Query -> [llm]``, log-odds by the best linear parameter, against which learning is
            told apart from misspecification (:mod:`cqbayes.environments.best_linear`); None where
            nobody asks. A linear truth that :mod:`cqbayes.environments.synthetic` has not made may
            say so with ``linear=utility``.
    """

    draw: Callable[[PRNGKeyArray], Query]
    utility: Callable[[Query], Float[Array, " llm"]]
    cost: Callable[[Query], Float[Array, " llm"]] | None = None
    linear: Callable[[Query], Float[Array, " llm"]] | None = None


class Survey(NamedTuple):
    """What is measured over all who wait, before anybody is served.

    Attributes:
        best: ``max_{x', S'} v(x', S')`` over the queries that can be served.
        oldest: rounds since the arrival of the oldest waiting query.
        servable: how many queries can be served now.
    """

    best: Float[Array, ""]
    oldest: Int[Array, ""]
    servable: Int[Array, ""]


class Metrics(NamedTuple):
    """What is measured in one round (or service, where a round has several).

    What concerns the service is 0 or False where nothing is served.

    Attributes:
        queue_length: queries waiting at the start of the round, those in orbit among them.
        servable: those of them that could be served.
        served: whether a query was served.
        departed: whether its user took an answer.
        abandoned: how many queries lost patience and left at the end of the round.
        arrived: how many queries arrived at the end of the round.
        offered: which LLMs answered ``[llm]``.
        departure_probability: true ``p(x, S)`` of the service.
        value: true ``v(x, S)``: the same, or the expected reward where answers have values.
        best_for_query: ``max_S' v(x, S')`` for the query that was served.
        linear_for_query: true ``v`` of what the best linear parameter would have offered it; NaN
            in all rounds where that is not known.
        best_waiting: ``max_{x', S'} v(x', S')`` over all queries that could be served.
        wait: rounds between arrival and departure, in rounds with a departure.
        attempts: services that the departing query took.
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
    """A world in which queries wait.

    Attributes:
        init: ``room -> state``, with places for ``room`` waiting queries.
        observe: ``state -> Observation``, all that a policy may see.
        survey: ``state -> Survey``, what is measured over all who wait.
        among: ``(state, places) -> state`` that shows only the first places of the waiting room,
            enough for the two above where no more are taken.
        chance: ``key -> chance``, all that is random in a round, drawn before anybody acts: all
            policies that share keys meet the same arrivals and the same luck.
        step: ``(chance, state, action, survey) -> (state, rows, metrics)``, deterministic.
        grow: ``(state, room) -> state`` with a larger room and nothing else changed.
        overflowed: ``state -> bool``: an arrival found no place; the state is to be thrown away.
        num_llms: how many LLMs there are.
        slate_size: most LLMs that answer one query.
        services: services a round; each is a step.
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

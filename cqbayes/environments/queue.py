"""The retrial queue: discrete rounds, one preemptive service a round, Bernoulli arrivals.

In a round: the policy picks one waiting query and an assortment; the outcome is drawn; a taken
answer departs the query, a retry leaves it waiting; with probability ``arrival_rate`` a query
arrives, to be served from the next round on::

    Q(t + 1) = Q(t) - D(t) + A(t)
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.assortment import best_assortment
from cqbayes.choice import ChoiceData, departure_probability, log_probabilities
from cqbayes.environments import Environment, Metrics, Population, Query
from cqbayes.errors import InputError
from cqbayes.policies import Action, Observation


class Waiting(NamedTuple):
    """Waiting queries, one per place. The first ``queue_length`` places are taken, in no order."""

    context: Float[Array, "room dim"]
    identity: Int[Array, " room"]
    utility: Float[Array, "room llm"]
    best: Float[Array, " room"]
    arrived: Int[Array, " room"]
    attempts: Int[Array, " room"]


class Chance(NamedTuple):
    """What a round has in store: two uniform numbers, and who asks if somebody does."""

    outcome: Float[Array, ""]
    arrival: Float[Array, ""]
    query: Query


class QueueState(NamedTuple):
    round: Int[Array, ""]
    queue_length: Int[Array, ""]
    waiting: Waiting
    overflowed: Bool[Array, ""]


def capacity(population: Population, slate_size: int = 1, num_queries: int = 8_192) -> Array:
    """The arrival rate at which even the oracle's queue just fails to be stable.

    A query keeps its context when it is asked again, so with the best assortment it takes
    ``1 / p*(x)`` services on average, and the server keeps up below ``1 / E[1 / p*(x)]`` arrivals
    a round, ``p*(x) = max_S p(x, S)``. The mean is over ``num_queries`` simulated arrivals.
    """
    queries = jax.vmap(population.draw)(jax.random.split(jax.random.key(1), num_queries))
    utility = jax.vmap(population.utility)(queries)
    offered, _ = best_assortment(utility, slate_size)
    return 1 / jnp.mean(1 / departure_probability(utility, offered))


def retrial_queue(
    population: Population, arrival_rate: float | Array, slate_size: int = 1
) -> Environment:
    """The retrial queue over a population.

    Args:
        population: who asks, and what they truly think.
        arrival_rate: probability of an arrival in a round, in [0, 1].
        slate_size: most LLMs that answer one query: what regret is measured against.

    Raises:
        InputError: for an arrival rate outside [0, 1], or a slate larger than the LLMs.
    """
    num_llms = eqx.filter_eval_shape(_draw_with_utility, population, jax.random.key(0))[1].shape[-1]
    check_slate(slate_size, num_llms)
    if not isinstance(arrival_rate, Tracer):
        check_rate(np.asarray(arrival_rate))
    return Environment(
        init=Partial(_init, population),
        observe=_observe,
        chance=Partial(_chance, population),
        step=Partial(_step, population, jnp.asarray(arrival_rate, float), slate_size),
        grow=_grow,
        overflowed=_overflowed,
        num_llms=num_llms,
        slate_size=slate_size,
    )


def check_rate(arrival_rate: np.ndarray) -> None:
    """Refuses what is not a probability."""
    wrong = arrival_rate[~((arrival_rate >= 0) & (arrival_rate <= 1))]
    if wrong.size:
        raise InputError(
            f"arrival rate: expected a probability per round in [0, 1], got {wrong.flat[0]:.3g}"
        )


def check_slate(slate_size: int, num_llms: int) -> None:
    """Refuses slates that cannot be filled."""
    if not 1 <= slate_size <= num_llms:
        raise InputError(
            f"slate size: expected 1 to {num_llms} (the number of LLMs), got {slate_size}"
        )


def _draw_with_utility(population: Population, key: PRNGKeyArray) -> tuple[Query, Array]:
    query = population.draw(key)
    return query, population.utility(query)


def _init(population: Population, room: int) -> QueueState:
    query, utility = eqx.filter_eval_shape(_draw_with_utility, population, jax.random.key(0))
    return QueueState(
        round=jnp.array(1, jnp.int32),
        queue_length=jnp.array(0, jnp.int32),
        waiting=Waiting(
            context=jnp.zeros((room, *query.context.shape), query.context.dtype),
            identity=jnp.zeros(room, jnp.int32),
            utility=jnp.zeros((room, *utility.shape), utility.dtype),
            best=jnp.zeros(room, utility.dtype),
            arrived=jnp.zeros(room, jnp.int32),
            attempts=jnp.zeros(room, jnp.int32),
        ),
        overflowed=jnp.array(False),
    )


def _overflowed(state: QueueState) -> Bool[Array, ""]:
    return state.overflowed


def _grow(state: QueueState, room: int) -> QueueState:
    def pad(column: Array) -> Array:
        return jnp.pad(column, [(0, room - column.shape[0])] + [(0, 0)] * (column.ndim - 1))

    return state._replace(waiting=jax.tree.map(pad, state.waiting))


def _observe(state: QueueState) -> Observation:
    return Observation(
        round=state.round,
        queue_length=state.queue_length,
        context=state.waiting.context,
        identity=state.waiting.identity,
        wait=state.round - state.waiting.arrived,
        attempts=state.waiting.attempts,
    )


def _chance(population: Population, key: PRNGKeyArray) -> Chance:
    luck_key, query_key = jax.random.split(key)
    outcome, arrival = jax.random.uniform(luck_key, (2,))
    return Chance(outcome, arrival, population.draw(query_key))


def _step(
    population: Population,
    arrival_rate: Float[Array, ""],
    slate_size: int,
    chance: Chance,
    state: QueueState,
    action: Action,
) -> tuple[QueueState, ChoiceData, Metrics]:
    places = state.waiting
    busy = state.queue_length > 0
    served = jax.tree.map(lambda column: column[action.query], places)
    offered = action.offered & busy

    choice = _outcome(served.utility, offered, chance.outcome)
    departed = choice > 0
    arrived = chance.arrival < arrival_rate
    query, utility = chance.query, population.utility(chance.query)
    best_offered, _ = best_assortment(utility, slate_size)
    newcomer = Waiting(
        context=query.context,
        identity=query.identity,
        utility=utility,
        best=departure_probability(utility, best_offered),
        arrived=state.round,
        attempts=jnp.array(0, jnp.int32),
    )
    retried = served._replace(attempts=served.attempts + busy)
    room = places.arrived.shape[0]
    left = state.queue_length - departed
    # The last query moves into the place that is left empty, so that the queue stays dense. Each
    # column is written at two places at most: the cost does not depend on the queue's length.
    last = jax.tree.map(lambda column: column[jnp.maximum(left, 0) % room], places)
    filling = _select(departed, last, retried)
    places = jax.tree.map(lambda column, row: column.at[action.query].set(row), places, filling)
    end = jnp.minimum(left, room - 1)
    overflows = arrived & (left >= room)
    joining = _select(arrived & ~overflows, newcomer, jax.tree.map(lambda c: c[end], places))
    places = jax.tree.map(lambda column, row: column.at[end].set(row), places, joining)

    before = jnp.arange(room) < state.queue_length
    probability = departure_probability(served.utility, offered)
    cost = (
        0.0 if population.cost is None else population.cost(Query(served.context, served.identity))
    )
    metrics = Metrics(
        queue_length=state.queue_length,
        served=busy,
        departed=departed,
        arrived=arrived,
        offered=offered,
        departure_probability=probability,
        best_for_query=jnp.where(busy, served.best, 0),
        best_waiting=jnp.max(jnp.where(before, state.waiting.best, 0)),
        wait=jnp.where(departed, state.round - served.arrived, 0),
        attempts=jnp.where(departed, served.attempts + 1, 0),
        oldest=jnp.max(jnp.where(before, state.round - state.waiting.arrived, 0)),
        cost=jnp.sum(jnp.where(offered, cost, 0.0)),
    )
    row = ChoiceData(
        context=served.context[None],
        offered=offered[None],
        choice=choice[None],
        weight=busy.astype(served.context.dtype)[None],
        attempt=(served.attempts + 1)[None],
    )
    next_state = QueueState(
        round=state.round + 1,
        queue_length=left + arrived,
        waiting=places,
        overflowed=state.overflowed | overflows,
    )
    return next_state, row, metrics


def _outcome(
    utility: Float[Array, " llm"], offered: Bool[Array, " llm"], luck: Float[Array, ""]
) -> Int[Array, ""]:
    """The choice decided by one uniform number: an answer is taken if it is below ``p(x, S)``.

    Policies that share the number are coupled: who offers the better assortment departs the query
    whenever the other one does.
    """
    ends = jnp.cumsum(jnp.exp(log_probabilities(utility, offered)[1:]))
    return jnp.where(luck < ends[-1], jnp.sum(luck >= ends) + 1, 0).astype(jnp.int32)


def _select(condition: Bool[Array, ""], yes: Waiting, no: Waiting) -> Waiting:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)

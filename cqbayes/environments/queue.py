"""The retrial queue: discrete rounds, one preemptive service a round, Bernoulli arrivals.

In a round, the policy picks one waiting query and an assortment, and the outcome is drawn. If an
answer is taken, the query departs; after a retry it waits on. With probability ``arrival_rate`` a
new query arrives, which can be served from the next round on::

    Q(t + 1) = Q(t) - D(t) - L(t) + A(t)

``Q`` is the queue length, ``D`` departures, ``L`` queries that lost patience, ``A`` arrivals.
:class:`cqbayes.environments.rules.Rules` has generalisations, all of them off by default.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cqbayes.choice.assortments import best_assortment, checked_offers, value
from cqbayes.choice.data import ChoiceData
from cqbayes.choice.mnl import departure_probability, normaliser
from cqbayes.environments.environment import (
    Action,
    Environment,
    Metrics,
    Observation,
    Population,
    Query,
    Survey,
)
from cqbayes.environments.load import check_rate
from cqbayes.environments.places import Place, blank_place, draw_with_utility, pack, unpack, width
from cqbayes.environments.rules import Arrivals, Rules, check_arrivals, check_rules
from cqbayes.environments.synthetic import is_linear
from cqbayes.errors import InputError

NEVER = np.iinfo(np.int32).max


class Chance(NamedTuple):
    """All random numbers of a round, and the queries that arrive if there are arrivals."""

    outcome: Float[Array, ""]
    arrival: Float[Array, ""]
    query: Query  # [most arrivals a round]
    delay: Float[Array, ""] | None
    patience: Float[Array, " arrival"] | None
    orbit: PRNGKeyArray | None


class QueueState(NamedTuple):
    """State of the queue: waiting queries fill the first ``queue_length`` rows, in no order.

    A row holds the numbers of one :class:`Place` side by side, so that one write moves a query.
    """

    round: Int[Array, ""]
    service: Int[Array, ""]
    queue_length: Int[Array, ""]
    rows: Float[Array, "room number"]
    overflowed: Bool[Array, ""]


class _World(NamedTuple):
    """Population, arrivals and values of a queue."""

    population: Population
    arrivals: Float[Array, ""] | Int[Array, " round"]  # a rate, or counts
    values: Float[Array, " llm"] | None


def retrial_queue(
    population: Population,
    arrival_rate: float | Array | None = None,
    slate_size: int = 1,
    *,
    values: Float[Array, " llm"] | None = None,
    rules: Rules = Rules(),  # noqa: B008  (immutable)
    arrivals: Arrivals | None = None,
) -> Environment:
    """The retrial queue over a population.

    Args:
        population: the users' queries and true utilities.
        arrival_rate: probability of an arrival in a round, in [0, 1].
        slate_size: most LLMs that answer one query; regret compares with the best such slate.
        values: worth of each LLM's answer when it is taken, in [0, 1]. Routing and matching regret
            are then regret of expected reward. Each is 1 if absent.
        rules: generalisations of the plain queue.
        arrivals: number of arrivals in each round, instead of ``arrival_rate``;
            :mod:`cqbayes.environments.traffic` makes them from a trace. A longer run starts them
            again from the beginning.

    Raises:
        InputError: for an arrival rate outside [0, 1], arrivals that are negative or more than
            their ``most``, a slate of more LLMs than there are, values outside [0, 1], or rules
            that are out of range or contradict each other.
    """
    num_llms = eqx.filter_eval_shape(draw_with_utility, population, jax.random.key(0))[1].shape[-1]
    values = checked_offers(slate_size, values, num_llms)
    check_rules(rules)
    if (arrival_rate is None) == (arrivals is None):
        came = "neither" if arrivals is None else "both"
        raise InputError(
            f"retrial_queue: expected an arrival rate or a trace of arrivals, got {came}"
        )
    if arrivals is not None:
        check_arrivals(arrivals)
        most, incoming = max(arrivals.most, 1), arrivals.counts
    else:
        most, incoming = 1, jnp.asarray(arrival_rate, float)
        if not isinstance(arrival_rate, Tracer):
            check_rate(np.asarray(arrival_rate))
    world = _World(population, incoming, values)
    return Environment(
        init=Partial(_init, world, rules),
        observe=Partial(_observe, world, rules),
        survey=Partial(_survey, world, rules),
        among=_among,
        chance=Partial(_chance, world, rules, most),
        step=Partial(_step, world, rules, slate_size),
        grow=_grow,
        overflowed=_overflowed,
        num_llms=num_llms,
        slate_size=slate_size,
        services=rules.services,
    )


def _init(world: _World, rules: Rules, room: int) -> QueueState:
    blank = blank_place(world.population, rules)
    return QueueState(
        round=jnp.array(1, jnp.int32),
        service=jnp.array(0, jnp.int32),
        queue_length=jnp.array(0, jnp.int32),
        rows=jnp.zeros((room, width(blank)), blank.context.dtype),
        overflowed=jnp.array(False),
    )


def _overflowed(state: QueueState) -> Bool[Array, ""]:
    return state.overflowed


def _grow(state: QueueState, room: int) -> QueueState:
    return state._replace(rows=jnp.pad(state.rows, [(0, room - state.rows.shape[0]), (0, 0)]))


def _among(state: QueueState, places: int) -> QueueState:
    return state._replace(rows=state.rows[:places])


def _servable(rules: Rules, state: QueueState, places: Place) -> Bool[Array, " room"] | None:
    """Which queries can be served now, or None if all can."""
    if places.returns is None:
        return None
    present = jnp.arange(state.rows.shape[0]) < state.queue_length
    ready = present & (places.returns <= state.round)
    if rules.preemptive:
        return ready
    begun = ready & (places.attempts > 0)
    return jnp.where(jnp.any(begun), begun, ready)


def _observe(world: _World, rules: Rules, state: QueueState) -> Observation:
    places = unpack(state.rows, blank_place(world.population, rules))
    return Observation(
        round=state.round,
        queue_length=state.queue_length,
        context=places.context,
        identity=places.identity,
        wait=state.round - places.arrived,
        attempts=places.attempts,
        failures=places.failures,
        servable=_servable(rules, state, places),
    )


def _survey(world: _World, rules: Rules, state: QueueState) -> Survey:
    places = unpack(state.rows, blank_place(world.population, rules))
    present = jnp.arange(state.rows.shape[0]) < state.queue_length
    servable = _servable(rules, state, places)
    ready = present if servable is None else present & servable
    return Survey(
        best=jnp.max(jnp.where(ready, places.best, 0)),
        oldest=jnp.max(jnp.where(present, state.round - places.arrived, 0)),
        servable=jnp.sum(ready) if servable is not None else state.queue_length,
    )


def _chance(world: _World, rules: Rules, most: int, key: PRNGKeyArray) -> Chance:
    luck_key, query_key = jax.random.split(key)
    luck = jax.random.uniform(luck_key, (3,))
    if most == 1:
        query = jax.tree.map(lambda x: x[None], world.population.draw(query_key))
    else:
        query = jax.vmap(world.population.draw)(jax.random.split(query_key, most))
    patience_key, orbit_key = jax.random.split(jax.random.fold_in(key, 1))
    return Chance(
        outcome=luck[0],
        arrival=luck[1],
        query=query,
        delay=luck[2] if rules.retrial_delay and rules.preemptive else None,
        patience=None if rules.patience is None else jax.random.uniform(patience_key, (most,)),
        orbit=orbit_key if rules.blocked else None,
    )


def _newcomers(world: _World, rules: Rules, slate_size: int, now: Array, chance: Chance) -> Place:
    """The queries that may arrive in this round, ``[most]``."""
    query = chance.query
    utility = jax.vmap(world.population.utility)(query)
    best = _best_value(utility, utility, slate_size, world.values)
    whole = jnp.zeros(best.shape, jnp.int32)
    linear = None
    if world.population.linear is not None:
        believed = jax.vmap(world.population.linear)(query)
        linear = _best_value(believed, utility, slate_size, world.values)
    return Place(
        context=query.context,
        utility=utility,
        best=best,
        linear=linear,
        identity=query.identity,
        arrived=whole + now,
        attempts=whole,
        failures=jnp.zeros(utility.shape, jnp.int32),
        returns=whole + now + 1 if rules.absent or not rules.preemptive else None,
        leaves=None
        if rules.patience is None or chance.patience is None
        else now + _geometric(chance.patience, rules.patience),
    )


def _best_value(believed: Array, utility: Array, slate_size: int, values: Array | None) -> Array:
    """True ``v`` of the assortments that are best under the utilities ``believed``."""
    offered, _ = best_assortment(believed, slate_size, values)
    return value(utility, offered, values)


def _geometric(luck: Array, mean: float) -> Int[Array, "..."]:
    """Geometric numbers of rounds, from 1 on, with the given mean, from uniform ``luck``."""
    if mean == 1:
        return jnp.ones(luck.shape, jnp.int32)
    rounds = jnp.ceil(jnp.log1p(-luck) / np.log1p(-1 / mean))
    return jnp.clip(rounds, 1, NEVER // 2).astype(jnp.int32)


def _step(
    world: _World,
    rules: Rules,
    slate_size: int,
    chance: Chance,
    state: QueueState,
    action: Action,
    survey: Survey,
) -> tuple[QueueState, ChoiceData, Metrics]:
    blank, room = blank_place(world.population, rules), state.rows.shape[0]
    now = state.round
    busy = survey.servable > 0
    last_service = state.service == rules.services - 1
    row = state.rows[action.query]
    served = unpack(row, blank)
    offered = action.offered & busy

    choice = _outcome(served.utility, offered, chance.outcome)
    departed = choice > 0
    tried = served._replace(
        attempts=served.attempts + busy, failures=served.failures + offered.astype(jnp.int32)
    )
    if tried.returns is not None:
        back = now + _away(rules, chance)
        tried = tried._replace(returns=jnp.where(busy, back, tried.returns))
    left = state.queue_length - departed
    # The last query moves into the empty place, so that the queue stays dense: the cost of a round
    # does not depend on the queue length.
    filling = jnp.where(departed, state.rows[jnp.maximum(left, 0) % room], pack(tried))
    rows = state.rows.at[action.query].set(filling)
    if rules.blocked:
        rows = jnp.where(last_service, _sent_away(rules, chance, now, rows, blank), rows)
    abandoned = jnp.array(0, jnp.int32)
    if rules.patience is not None:
        rows, stayed = _without_the_impatient(rules, now, rows, left, blank)
        abandoned = jnp.where(last_service, left - stayed, 0)
        left = left - abandoned

    arrived = _arrivals(world, now, chance) * last_service
    newcomers = pack(_newcomers(world, rules, slate_size, now, chance))
    # Queries that do not arrive, or find no free place, are not written.
    position = jnp.arange(newcomers.shape[0])
    place = jnp.where(position < arrived, left + position, room)
    rows = rows.at[place].set(newcomers, mode="drop")

    cost = 0.0
    if world.population.cost is not None:
        cost = world.population.cost(Query(served.context, served.identity))
    achieved = departure_probability(served.utility, offered)
    best = jnp.where(busy, served.best, 0)
    metrics = Metrics(
        queue_length=state.queue_length,
        servable=survey.servable,
        served=busy,
        departed=departed,
        abandoned=abandoned,
        arrived=arrived,
        offered=offered,
        departure_probability=achieved,
        value=achieved if world.values is None else value(served.utility, offered, world.values),
        best_for_query=best,
        linear_for_query=_linear_value(world.population, served, best, busy),
        best_waiting=survey.best,
        wait=jnp.where(departed, now - served.arrived, 0),
        attempts=jnp.where(departed, served.attempts + 1, 0),
        oldest=survey.oldest,
        cost=jnp.sum(jnp.where(offered, cost, 0.0)),
    )
    observed = ChoiceData(
        context=served.context[None],
        offered=offered[None],
        choice=choice[None],
        weight=busy.astype(served.context.dtype)[None],
        attempt=(served.attempts + 1)[None],
        failures=served.failures[None],
    )
    next_state = QueueState(
        round=now + last_service,
        service=jnp.where(last_service, 0, state.service + 1),
        queue_length=left + arrived,
        rows=rows,
        overflowed=state.overflowed | (left + arrived > room),
    )
    return next_state, observed, metrics


def _linear_value(population: Population, served: Place, best: Array, busy: Array) -> Array:
    """``v`` of the assortment that the best linear parameter would offer; NaN if not known."""
    if served.linear is not None:
        return jnp.where(busy, served.linear, 0)
    return best if is_linear(population) else jnp.full_like(best, jnp.nan)


def _arrivals(world: _World, now: Array, chance: Chance) -> Int[Array, ""]:
    """How many queries arrive at the end of the round."""
    if world.arrivals.ndim:
        return world.arrivals[(now - 1) % world.arrivals.shape[0]]
    return (chance.arrival < world.arrivals).astype(jnp.int32)


def _away(rules: Rules, chance: Chance) -> Int[Array, ""] | int:
    """Rounds from a retry until the query can be served again."""
    if chance.delay is None:
        return 1
    delay = _geometric(chance.delay, rules.retrial_delay)
    return delay if rules.blocked else 1 + delay


def _sent_away(rules: Rules, chance: Chance, now: Array, rows: Array, blank: Place) -> Array:
    """The rows, after all queries that were present and not served have gone into orbit."""
    places = unpack(rows, blank)
    assert places.returns is not None
    assert chance.orbit is not None
    luck = jax.random.uniform(chance.orbit, (rows.shape[0],))
    # The round of the next try, at which the server may be free or busy.
    again = now + _geometric(luck, rules.retrial_delay)
    turned_away = places.returns <= now
    return pack(places._replace(returns=jnp.where(turned_away, again, places.returns)))


def _without_the_impatient(
    rules: Rules, now: Array, rows: Array, queue_length: Array, blank: Place
) -> tuple[Array, Int[Array, ""]]:
    """The rows of the queries that stay, dense and in their order, and their number."""
    places = unpack(rows, blank)
    assert places.leaves is not None
    present = jnp.arange(rows.shape[0]) < queue_length
    gone = places.leaves <= now
    if not rules.preemptive:
        gone = gone & (places.attempts == 0)
    stays = present & ~gone
    return rows[jnp.argsort(~stays, stable=True)], jnp.sum(stays)


def _outcome(
    utility: Float[Array, " llm"], offered: Bool[Array, " llm"], luck: Float[Array, ""]
) -> Int[Array, ""]:
    """The choice, given a uniform number ``luck``: an answer is taken if ``luck < p(x, S)``.

    Two policies with the same ``luck`` are coupled: if the query departs with the worse assortment,
    it also departs with the better one.
    """
    ends = jnp.cumsum(normaliser(utility, offered).shares)
    return jnp.where(luck < ends[-1], jnp.sum(luck >= ends) + 1, 0).astype(jnp.int32)

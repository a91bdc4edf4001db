"""Generalisations of the queue: each against a Markov chain written apart, or Ciw, or a law."""

from collections.abc import Iterator
from itertools import product

import ciw
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import alike, binomial, stationary_law

from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Rules
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random
from cqbayes.policies.wrappers.fifo import fifo
from cqbayes.simulation.loop import simulate

SEEDS, ROUNDS, FORGOTTEN = 128, 6_000, 1_000


def run(key, service, arrival, rules, *, rounds=ROUNDS, policy=None):
    env = retrial_queue(alike(service), arrival, rules=rules)
    return simulate(key, policy or random(1), env, rounds * rules.services, num_seeds=SEEDS).metrics


def agrees(per_seed: np.ndarray, exact: float) -> bool:
    """Within 4 standard errors over seeds; prints how many."""
    error = per_seed.std(ddof=1) / np.sqrt(per_seed.size)
    print(f"{per_seed.mean():.4f} +- {error:.4f}, exactly {exact:.4f}")
    return bool(abs(per_seed.mean() - exact) < 4 * error)


@pytest.mark.parametrize(("services", "arrival", "service"), [(2, 0.7, 0.5), (3, 0.8, 0.3)])
def test_several_services_a_round(key, services, arrival, service):
    """``Q' = Q - Binomial(min(Q, m), p) + Bernoulli(rate)``."""

    def after(queue: int) -> Iterator[tuple[float, int]]:
        for done, share in binomial(min(queue, services), service):
            yield share * (1 - arrival), queue - done
            yield share * arrival, queue - done + 1

    law = stationary_law(0, after, lambda queue: min(queue, 60))
    metrics = run(key, service, arrival, Rules(services=services))
    queue = metrics.queue_length[:, FORGOTTEN * services :: services]
    assert agrees(queue.mean(axis=1), sum(share * state for state, share in law.items()))
    for length in range(6):
        assert agrees((queue == length).mean(axis=1), law[length])
    # Nobody is served twice in a round: as many services as queries, or as there are servers.
    served = metrics.served.reshape(SEEDS, -1, services).sum(axis=2)
    waiting = metrics.queue_length[:, ::services]
    np.testing.assert_array_equal(served, np.minimum(waiting, services))


def test_delayed_retrials(key):
    """Waiting and in orbit, together; and Little's law for the orbit."""
    arrival, service, delay = 0.3, 0.5, 4.0

    def after(state: tuple[int, int]) -> Iterator[tuple[float, tuple[int, int]]]:
        waiting, orbit = state
        outcomes = [(service, -1, 0), (1 - service, -1, 1)] if waiting else [(1.0, 0, 0)]
        for (share, leaves, joins), (back, chance) in product(outcomes, binomial(orbit, 1 / delay)):
            for arrives, odds in ((0, 1 - arrival), (1, arrival)):
                yield (
                    share * chance * odds,
                    (waiting + leaves + back + arrives, orbit - back + joins),
                )

    law = stationary_law((0, 0), after, lambda state: (min(state[0], 25), min(state[1], 12)))
    metrics = run(key, service, arrival, Rules(retrial_delay=delay))
    waiting = metrics.servable[:, FORGOTTEN:]
    orbit = metrics.queue_length[:, FORGOTTEN:] - waiting
    assert agrees(waiting.mean(axis=1), sum(share * n for (n, _), share in law.items()))
    assert agrees(orbit.mean(axis=1), sum(share * k for (_, k), share in law.items()))
    assert agrees(orbit.mean(axis=1), arrival * (1 - service) / service * delay)


def classical_retrial(arrival: float, service: float, delay: float, most: int) -> dict:
    """The law of (begun, just arrived, in orbit) of the classical retrial queue in rounds."""

    def after(state: tuple[int, int, int]) -> Iterator[tuple[float, tuple[int, int, int]]]:
        begun, fresh, orbit = state
        for tries, chance in [(0, 1.0)] if begun else binomial(orbit, 1 / delay):
            present = begun or fresh or tries
            outcomes = [(service, 0), (1 - service, 1)] if present else [(1.0, 0)]
            taken = 0 if begun or not present else 1
            for (share, busy), (arrives, odds) in product(
                outcomes, ((0, 1 - arrival), (1, arrival))
            ):
                yield share * chance * odds, (busy, arrives, orbit + fresh - taken)

    return stationary_law((0, 0, 0), after, lambda state: (*state[:2], min(state[2], most)))


def test_classical_retrial_queue(key):
    """No waiting room: who finds the server busy goes into orbit and tries again later."""
    arrival, service, delay = 0.2, 0.5, 4.0
    law = classical_retrial(arrival, service, delay, 40)
    rules = Rules(retrial_delay=delay, blocked=True, preemptive=False)
    metrics = run(key, service, arrival, rules)
    queue = metrics.queue_length[:, FORGOTTEN:]
    assert agrees(queue.mean(axis=1), sum(share * sum(state) for state, share in law.items()))
    for length in range(5):
        exact = sum(share for state, share in law.items() if sum(state) == length)
        assert agrees((queue == length).mean(axis=1), exact)


def test_short_rounds_make_the_classical_retrial_queue_of_the_textbooks():
    """M/M/1 with retrials (Falin and Templeton 1997): mean orbit rho (a + rho m) / ((1 - rho) m).

    ``a`` and ``m`` are the rates of arrivals and of retrials, services having rate 1.
    """
    rho, retrials = 0.5, 0.8
    exact = rho * (rho + rho * retrials) / ((1 - rho) * retrials)
    errors = []
    for step in (0.04, 0.02):
        law = classical_retrial(rho * step, step, 1 / (retrials * step), 40)
        orbit = sum(share * (fresh + orbit) for (_, fresh, orbit), share in law.items())
        errors.append(orbit - exact)
    assert abs(2 * errors[1] - errors[0]) < 0.01 * exact, "the limit of ever shorter rounds"


def test_impatience(key):
    """``Q'' = Q - D``, each of whom leaves with probability 1 / patience; then an arrival."""
    arrival, service, patience = 0.8, 0.5, 10.0

    def after(queue: int) -> Iterator[tuple[float, int]]:
        for done, share in binomial(min(queue, 1), service):
            for lost, chance in binomial(queue - done, 1 / patience):
                yield share * chance * (1 - arrival), queue - done - lost
                yield share * chance * arrival, queue - done - lost + 1

    law = stationary_law(0, after, lambda queue: min(queue, 40))
    metrics = run(key, service, arrival, Rules(patience=patience))
    queue = metrics.queue_length[:, FORGOTTEN:]
    assert agrees(queue.mean(axis=1), sum(share * state for state, share in law.items()))
    lost = sum(share * (n - service * (n > 0)) / patience for n, share in law.items())
    assert agrees(metrics.abandoned[:, FORGOTTEN:].mean(axis=1), lost)


def test_without_preemption_a_begun_query_is_served_until_it_departs(key):
    """Queries are alike: lengths are those of the plain queue; attempts come one after another."""
    arrival, service = 0.3, 0.5
    metrics = run(key, service, arrival, Rules(preemptive=False))
    exact = arrival * (1 - arrival) / (service - arrival)
    assert agrees(metrics.queue_length[:, FORGOTTEN:].mean(axis=1), exact)
    for served, departed, attempts in zip(
        metrics.served[:8], metrics.departed[:8], metrics.attempts[:8], strict=True
    ):
        ends = np.flatnonzero(departed)
        between = np.diff(np.concatenate([[0], np.cumsum(served)[ends]]))
        np.testing.assert_array_equal(attempts[ends], between)
    # With preemption and random service they do not.
    plain = run(key, service, arrival, Rules(), rounds=500)
    ends = np.flatnonzero(plain.departed[0])
    between = np.diff(np.concatenate([[0], np.cumsum(plain.served[0])[ends]]))
    assert (plain.attempts[0][ends] != between).any()


@pytest.mark.parametrize(("arrival", "service"), [(0.3, 0.5), (0.5, 0.6)])
def test_against_ciw(key, arrival, service):
    """The same queue by another simulator: mean waits and their spread."""
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Geometric(arrival)],
        service_distributions=[ciw.dists.Geometric(service)],
        number_of_servers=[1],
    )
    theirs = []
    for seed in range(32):
        ciw.seed(seed)
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_time(2_500)
        waits = [
            record.exit_date - record.arrival_date
            for record in simulation.get_all_records()
            if record.arrival_date > 300
        ]
        theirs.append([np.mean(waits), np.mean(np.square(waits))])
    metrics = run(key, service, arrival, Rules(), policy=fifo(random(1)), rounds=2_500)
    ours = []
    for wait, departed in zip(metrics.wait, metrics.departed, strict=True):
        gone = np.flatnonzero(departed)
        late = wait[gone][gone - wait[gone] > 300]
        ours.append([late.mean(), np.square(late).mean()])
    ours, theirs = np.array(ours), np.array(theirs)
    error = np.sqrt(ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()


@pytest.mark.parametrize(
    "rules",
    [
        Rules(services=2),
        Rules(retrial_delay=5.0),
        Rules(retrial_delay=3.0, blocked=True),
        Rules(retrial_delay=3.0, blocked=True, preemptive=False),
        Rules(patience=20.0),
        Rules(preemptive=False),
        Rules(services=2, preemptive=False, patience=30.0),
        Rules(services=3, retrial_delay=4.0, patience=30.0),
    ],
    ids=str,
)
def test_nobody_is_lost_or_made(key, rules):
    """Conservation in every round, whatever is switched on; and however large the room."""
    population = synthetic(jax.random.key(3))
    env = retrial_queue(population, 0.5, rules=rules)
    small, large = (
        simulate(key, oracle(population), env, 900, num_seeds=4, room=room).metrics
        for room in (8, 128)
    )
    for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True):
        np.testing.assert_array_equal(a, b)
    change = small.arrived - small.departed.astype(int) - small.abandoned
    np.testing.assert_array_equal(
        small.queue_length[:, 1:], np.cumsum(change, axis=1)[:, :-1], "Q(t + 1) = Q - D - L + A"
    )
    assert (small.servable <= small.queue_length).all()
    assert (small.served == (small.servable > 0)).all()
    assert small.departed.sum() > 100
    assert (small.best_waiting >= small.best_for_query - 1e-6).all()


def test_values_change_what_regret_is_measured_in(key):
    """``v`` is the expected reward, and the best of all assortments is better than any other."""
    population = synthetic(jax.random.key(3))
    values = jnp.array([0.2, 0.9, 0.5, 1.0, 0.0])
    env = retrial_queue(population, 0.4, 2, values=values)
    ours = simulate(key, oracle(population, 2, values=values), env, 800, num_seeds=4).metrics
    np.testing.assert_allclose(ours.value, ours.best_for_query, atol=1e-6)
    np.testing.assert_allclose(ours.value, ours.best_waiting, atol=1e-6)
    departures = simulate(key, oracle(population, 2), env, 800, num_seeds=4).metrics
    lost = departures.best_for_query - departures.value
    assert lost.min() > -1e-6
    assert lost.mean() > 0.01
    assert (departures.value <= departures.departure_probability + 1e-6).all()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Rules(services=0), "services: expected at least one in a round, got 0"),
        (Rules(retrial_delay=0.5), "retrial_delay: expected a mean of 1 round or more"),
        (Rules(retrial_delay=float("nan")), "retrial_delay: expected a mean of 1 round or more"),
        (Rules(patience=0.0), "patience: expected a mean of 1 round or more, got 0"),
        (Rules(blocked=True), "blocked: expected a retrial_delay"),
        (
            Rules(retrial_delay=2.0, preemptive=False),
            "preemptive: expected True with a retrial_delay, got False",
        ),
    ],
)
def test_rules_that_make_no_sense(rules, message):
    with pytest.raises(InputError, match=message):
        retrial_queue(synthetic(jax.random.key(0)), 0.5, rules=rules)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5], r"values: expected one for each of 5 LLMs, got \(1,\)"),
        ([0.5, 2.0, 0.1, 0.1, 0.1], r"values: expected numbers in \[0, 1\]"),
        ([0.5, np.nan, 0.1, 0.1, 0.1], r"values: expected numbers in \[0, 1\]"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        retrial_queue(synthetic(jax.random.key(0)), 0.5, values=np.array(values))

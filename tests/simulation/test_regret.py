"""Regret and its summaries, on traces whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.environments.best_linear import with_best_linear
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Rules
from cqbayes.environments.synthetic import synthetic
from cqbayes.errors import InputError
from cqbayes.policies.oracle import oracle
from cqbayes.policies.random import random
from cqbayes.simulation.comparison import Results, comparison_table
from cqbayes.simulation.loop import simulate
from cqbayes.simulation.regret import (
    decay_exponent,
    growth_exponent,
    over_seeds,
    performance,
    regrets,
)

LINEAR = synthetic(jax.random.key(1))
CURVED = LINEAR._replace(utility=lambda query: 2 * jnp.sin(4 * LINEAR.utility(query)))


@pytest.fixture(scope="module")
def traces():
    population = synthetic(jax.random.key(1))
    env = retrial_queue(population, 0.4)
    key = jax.random.key(2)
    return {
        name: simulate(key, policy, env, 600, num_seeds=5)
        for name, policy in (("oracle", oracle(population)), ("random", random(5)))
    }


def test_regret_is_the_definition(traces):
    curves = regrets(traces)
    assert curves["routing_regret"].dims == ("policy", "seed", "round")
    assert curves["routing_regret"].attrs["units"] == "departures"
    metrics = traces["random"].metrics
    seed, t = 3, 411
    lost = sum(
        float(metrics.best_for_query[seed, s]) - float(metrics.departure_probability[seed, s])
        for s in range(t)
    )
    got = curves["routing_regret"].sel(policy="random", seed=seed, round=t)
    assert float(got) == pytest.approx(lost, rel=1e-6)
    gap = metrics.queue_length - traces["oracle"].metrics.queue_length
    np.testing.assert_array_equal(curves["queue_length_regret"].sel(policy="random"), gap)


def test_rounds_that_are_kept(traces):
    keep = np.array([1, 20, 600])
    whole, few = regrets(traces), regrets(traces, keep=keep)
    for name in whole:
        np.testing.assert_array_equal(few[name], whole[name].sel(round=keep))


def test_rounds_of_several_services():
    """Regret is counted up to the last service of a round; a queue is as long as at its start."""
    population = synthetic(jax.random.key(1))
    env = retrial_queue(population, 0.8, rules=Rules(services=2))
    traces = {
        name: simulate(jax.random.key(2), policy, env, 400, num_seeds=2)
        for name, policy in (("oracle", oracle(population)), ("random", random(5)))
    }
    curves = regrets(traces).sel(policy="random")
    assert curves.sizes["round"] == 200
    metrics = traces["random"].metrics
    lost = (metrics.best_for_query - metrics.value).sum(axis=1)
    np.testing.assert_allclose(curves["routing_regret"].isel(round=-1), lost, rtol=1e-5)
    np.testing.assert_array_equal(curves["queue_length"], metrics.queue_length[:, ::2])


def test_routing_regret_is_misspecification_and_learning_cost(traces):
    curves = regrets(traces)
    np.testing.assert_allclose(
        curves["misspecification"] + curves["learning_cost"], curves["routing_regret"], atol=1e-3
    )
    assert (curves["misspecification"] == 0).all(), "the truth is linear"


def test_misspecification_is_unknown_where_nobody_has_fitted_the_best_linear_parameter():
    """Not zero, which would say that the truth is linear."""
    known = with_best_linear(CURVED)
    results = {}
    for name, population in (("unknown", CURVED), ("known", known)):
        env = retrial_queue(population, 0.3)
        trace = simulate(jax.random.key(2), oracle(population), env, 60, num_seeds=2)
        curves = regrets({"oracle": trace})
        assert not np.isnan(curves["routing_regret"]).any()
        results[name] = Results(curves, performance({"oracle": trace}), {})
    for name in ("misspecification", "learning_cost"):
        assert np.isnan(results["unknown"].curves[name]).all()
        assert not np.isnan(results["known"].curves[name]).any()
    assert "by learning" in comparison_table(results["known"])
    assert not {"by learning", "of a linear oracle"} & {*comparison_table(results["unknown"])}


def test_the_oracle_regrets_nothing_and_nobody_less(traces):
    curves = regrets(traces)
    for name in ("routing_regret", "matching_regret"):
        np.testing.assert_allclose(curves[name].sel(policy="oracle"), 0, atol=1e-3)
        assert (curves[name].diff("round") > -1e-6).all()
    assert (curves["matching_regret"] >= curves["routing_regret"] - 1e-6).all()


def test_traces_of_different_worlds_are_refused(traces):
    population = synthetic(jax.random.key(1))
    other = simulate(jax.random.key(3), random(5), retrial_queue(population, 0.4), 600, num_seeds=5)
    with pytest.raises(InputError, match="got others in other"):
        regrets({**traces, "other": other})
    with pytest.raises(InputError, match="expected a trace named 'oracle'"):
        regrets({"random": traces["random"]})


def test_performance_counts(traces):
    rows = performance(traces)
    metrics = traces["random"].metrics
    chosen = rows.sel(policy="random", seed=0)
    waits = metrics.wait[0][metrics.departed[0]]
    assert float(chosen["wait_max"]) == waits.max()
    assert float(chosen["wait_mean"]) == pytest.approx(waits.mean())
    assert float(chosen["departures"]) == metrics.departed[0].sum()
    # One LLM answers in each round that serves.
    assert float(chosen["utilisation"].sum()) == pytest.approx(metrics.served[0].mean())
    assert rows["seed"].values.tolist() == list(range(5))
    assert rows["llm"].values.tolist() == list(range(5))
    for values in rows.data_vars.values():
        assert values.attrs.keys() == {"long_name", "units"}


def test_performance_is_of_rounds_however_many_services_they_have():
    population = synthetic(jax.random.key(1), num_llms=2)
    env = retrial_queue(population, 0.9, rules=Rules(services=3))
    trace = simulate(jax.random.key(2), oracle(population), env, 1_200, num_seeds=2)
    rows = performance({"oracle": trace}).sel(policy="oracle")
    starts = trace.metrics.queue_length.reshape(2, 400, 3)[:, :, 0]
    np.testing.assert_allclose(rows["queue_length_mean"], starts.mean(axis=1))
    np.testing.assert_allclose(rows["queue_length_tail"], starts[:, -40:].mean(axis=1))
    answered = trace.metrics.offered.reshape(2, 400, 3, 2).any(axis=2)
    np.testing.assert_allclose(rows["utilisation"], answered.mean(axis=1))
    # Two services of one LLM in one round are one round in which it answered.
    assert (answered.sum(axis=(1, 2)) < trace.metrics.served.sum(axis=1)).all()


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_growth_exponent_of_a_power_law(power):
    rng = np.random.default_rng(0)
    t = np.arange(1, 20_001)
    steps = t**power - (t - 1.0) ** power  # they add up to t^power exactly
    noise = rng.normal(scale=0.3, size=(64, 20_000)) * np.sqrt(steps)
    found = growth_exponent(np.cumsum(steps + noise, axis=1))
    assert found.low < power < found.high
    assert found.high - found.low < 0.2


@pytest.mark.parametrize("num_seeds", [4, 24])
def test_growth_exponent_covers_at_its_nominal_rate(num_seeds):
    """95 percent intervals of 200 simulated studies: between 90 and 99 percent hold the truth."""
    rng = np.random.default_rng(1)
    t = np.arange(1, 401)
    steps = np.sqrt(t) - np.sqrt(t - 1.0)
    inside = 0
    for _ in range(200):
        scale = rng.gamma(8, 1 / 8, size=(num_seeds, 1))
        walk = np.cumsum(steps * (scale + rng.normal(scale=0.5, size=(num_seeds, 400))), axis=1)
        found = growth_exponent(walk)
        inside += found.low < 0.5 < found.high
    assert 0.9 <= inside / 200 <= 0.99


@pytest.mark.parametrize("power", [-0.25, -0.5])
def test_decay_exponent_of_a_power_law(power):
    rng = np.random.default_rng(0)
    t = np.arange(1, 20_001)
    found = decay_exponent(t**power + rng.normal(scale=0.5, size=(64, 20_000)))
    assert found.low < power < found.high
    assert found.high - found.low < 0.3


def test_growth_exponent_refuses_what_it_cannot_fit():
    with pytest.raises(InputError, match="at least 2 seeds"):
        growth_exponent(np.ones((1, 100)))
    with pytest.raises(InputError, match="positive mean regret"):
        growth_exponent(np.zeros((3, 100)))


def test_over_seeds():
    found = over_seeds(np.array([1.0, 2.0, 3.0, np.nan]))
    assert found.value == 2
    assert found.error == pytest.approx(1 / np.sqrt(3))
    assert np.isnan(over_seeds(np.array([np.nan])).value)

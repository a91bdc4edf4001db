"""Arrivals from traces: what is replayed is the trace, and what is resampled is made of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from cqbayes.environments.load import capacity, check_stable
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.rules import Arrivals
from cqbayes.environments.synthetic import synthetic
from cqbayes.environments.traffic import (
    arrivals_from_trace,
    block_bootstrap,
    check_times,
    read_trace,
)
from cqbayes.errors import InputError
from cqbayes.policies.oracle import oracle
from cqbayes.simulation.loop import simulate

SHARED = ROOT.parent / "shared" / "data" / "arrival_traces.parquet"


def _bursty(seed: int = 0, size: int = 4_000) -> np.ndarray:
    gaps = np.random.default_rng(seed).lognormal(sigma=1.5, size=size)
    return np.cumsum(gaps)


@pytest.mark.parametrize("rate", [0.05, 0.4, 1.3])
def test_rescaling_keeps_all_requests_and_meets_the_rate(rate):
    arrivals = arrivals_from_trace(_bursty(), rate)
    counts = np.asarray(arrivals.counts)
    assert counts.sum() == 4_000
    assert counts.max() == arrivals.most
    assert counts.mean() == pytest.approx(rate, rel=2e-3)


def test_a_queue_replays_the_trace_round_by_round(key):
    arrivals = arrivals_from_trace(_bursty(), 0.4)
    population = synthetic(jax.random.key(1))
    env = retrial_queue(population, arrivals=arrivals)
    metrics = simulate(key, oracle(population), env, 12_000, num_seeds=2, room=8).metrics
    length = arrivals.counts.size
    for seen in metrics.arrived:
        np.testing.assert_array_equal(seen[:length], arrivals.counts)
        np.testing.assert_array_equal(seen[length:], arrivals.counts[: 12_000 - length])
    change = metrics.arrived - metrics.departed.astype(int)
    np.testing.assert_array_equal(metrics.queue_length[:, 1:], np.cumsum(change, 1)[:, :-1])
    # Those who come together are different queries.
    rows = simulate(key, oracle(population), env, 500, record=True).choices()
    assert len(np.unique(np.asarray(rows.context)[:, 0])) > 50


def test_the_bootstrap_is_made_of_blocks_and_has_the_mean_of_the_trace(key):
    arrivals = arrivals_from_trace(_bursty(), 0.4)
    counts, block = np.asarray(arrivals.counts), 250
    many = block_bootstrap(key, arrivals, 4_000, 256, block)
    assert many.counts.shape == (256, 4_000)
    around = np.concatenate([counts, counts[:block]])
    windows = {around[i : i + block].tobytes() for i in range(counts.size)}
    for row in np.asarray(many.counts)[:20]:
        assert all(row[i : i + block].tobytes() in windows for i in range(0, 4_000, block))
    means = np.asarray(many.counts).mean(axis=1)
    assert abs(means.mean() - counts.mean()) < 4 * means.std(ddof=1) / 16
    assert len(np.unique(many.counts, axis=0)) == 256

    # Bursts inside of blocks stay: the variance of counts over 25 rounds is the trace's.
    def clumps(x):
        return x[..., : x.shape[-1] // 25 * 25].reshape(*x.shape[:-1], -1, 25).sum(-1).var(-1)

    ours = clumps(np.asarray(many.counts))
    assert abs(ours.mean() - clumps(counts)) < 4 * ours.std(ddof=1) / 16 + 0.05 * clumps(counts)
    poisson = np.random.default_rng(0).poisson(0.4, (256, 4_000))
    assert ours.mean() > 1.5 * clumps(poisson).mean()


def test_seeds_with_traces_of_their_own(key):
    population = synthetic(jax.random.key(1))
    many = block_bootstrap(key, arrivals_from_trace(_bursty(), 0.3), 400, 3)
    env = eqx.filter_vmap(
        lambda counts: retrial_queue(population, arrivals=many._replace(counts=counts))
    )(many.counts)
    trace = simulate(key, oracle(population), env, 400, num_seeds=3, env_per_seed=True)
    np.testing.assert_array_equal(trace.metrics.arrived, many.counts)


@pytest.mark.skipif(not SHARED.exists(), reason="shared/data/arrival_traces.parquet is not there")
@pytest.mark.parametrize(("name", "bursty"), [("azure2023_conv", False), ("azure2023_code", True)])
def test_real_traces(name, bursty, key):
    times = read_trace(SHARED, name)
    assert times[0] == 0
    gaps = np.diff(times)
    variation = gaps.std() / gaps.mean()
    assert (variation > 5) == bursty
    assert arrivals_from_trace(times, 0.4).counts.sum() == times.size
    assert block_bootstrap(key, arrivals_from_trace(times, 0.4), 2_000, 4).counts.shape == (
        4,
        2_000,
    )


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 2.0, 1.0], "times in order, row 2 is before row 1"),
        ([0.0, np.nan, 1.0], "finite times, row 1 is nan"),
        ([0.0, 1.0, np.inf], "finite times, row 2 is inf"),
        ([0.0], "at least two times"),
        ([3.0, 3.0], "times that differ"),
        ([*range(50), 200.0], "no gap over 20 s, got 151 s after row 49; cut the trace there"),
    ],
)
def test_bad_traces(times, message):
    with pytest.raises(InputError, match=message):
        check_times(np.array(times))
    with pytest.raises(InputError, match=message):
        arrivals_from_trace(np.array(times), 0.4)


@pytest.mark.parametrize(("hole", "noticed"), [(0, False), (15, False), (200, True), (1_800, True)])
def test_missing_stretches_of_steady_traffic(hole, noticed):
    """In mean gaps; 20,000 requests have lulls of a dozen."""
    times = np.cumsum(np.random.default_rng(3).exponential(size=20_000))
    times[11_000:] += hole
    if not noticed:
        check_times(times)
        return
    with pytest.raises(InputError, match=r"no gap over .* after row 10999; cut the trace there"):
        check_times(times)
    with pytest.raises(InputError, match=r"pass a larger longest_gap"):
        arrivals_from_trace(times, 0.4)
    assert arrivals_from_trace(times, 0.4, longest_gap=2_000.0).counts.sum() == 20_000


@pytest.mark.parametrize("holes", [1, 5])
def test_several_missing_stretches(holes):
    times = np.cumsum(np.random.default_rng(3).exponential(size=20_000))
    for place in range(1, holes + 1):
        times[3_000 * place :] += 1_000
    with pytest.raises(InputError, match="expected no gap over"):
        check_times(times)


def test_lulls_of_bursty_traffic_are_its_own():
    for seed in range(40):
        check_times(_bursty(seed))
    for size in (2, 5, 60):
        check_times(np.cumsum(np.random.default_rng(size).exponential(size=size)))


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_bad_rates(rate):
    with pytest.raises(InputError, match="arrival rate: expected a positive number"):
        arrivals_from_trace(_bursty(), rate)


def test_bad_files(tmp_path, key):
    path = tmp_path / "trace.parquet"
    with pytest.raises(InputError, match="expected a readable file"):
        read_trace(path)
    path.write_text("not Parquet")
    with pytest.raises(InputError, match="expected a Parquet file"):
        read_trace(path)
    pd.DataFrame({"seconds": [1.0]}).to_parquet(path)
    with pytest.raises(InputError, match="expected a column t_s"):
        read_trace(path)
    for wrong in (["1", "2"], pd.to_datetime(["2024-01-01", "2024-01-02"]), [True, False]):
        pd.DataFrame({"t_s": wrong}).to_parquet(path)
        with pytest.raises(InputError, match="expected numbers of seconds in column t_s, got "):
            read_trace(path)
    pd.DataFrame({"trace": ["a", "a", "b"], "t_s": [1.0, 2.0, 0.0]}).to_parquet(path)
    with pytest.raises(InputError, match="expected one of the traces a, b, got None"):
        read_trace(path)
    with pytest.raises(InputError, match="expected one of the traces a, b, got c"):
        read_trace(path, "c")
    pd.DataFrame({"trace": [1, 1, 2], "t_s": [1, 2, 0]}).to_parquet(path)
    with pytest.raises(InputError, match="expected one of the traces 1, 2, got 3"):
        read_trace(path, "3")
    assert read_trace(path, "1").tolist() == [0, 1]
    with pytest.raises(InputError, match="block: expected 1 to"):
        block_bootstrap(key, arrivals_from_trace(_bursty(), 0.4), 10, 2, 10**6)
    with pytest.raises(InputError, match="an arrival rate or a trace of arrivals, got both"):
        retrial_queue(synthetic(key), 0.3, arrivals=arrivals_from_trace(_bursty(), 0.4))


@pytest.mark.parametrize(
    ("counts", "most", "message"),
    [
        ([0, 2, 1], 1, r"counts from 0 to most \(1\), got 0 to 2"),
        ([0, -1, 1], 1, r"counts from 0 to most \(1\), got -1 to 1"),
        ([[0, 1]], 1, r"a count for each round, got shape \(1, 2\); .*filter_vmap"),
        ([], 1, r"a count for each round, got shape \(0,\)"),
    ],
)
def test_arrivals_that_no_queue_can_follow(counts, most, message, key):
    """More than there are places prepared for would wait as queries that nobody has asked."""
    with pytest.raises(InputError, match=message):
        retrial_queue(synthetic(key), arrivals=Arrivals(jnp.array(counts, jnp.int32), most))


def test_a_trace_in_which_nobody_comes(key):
    population = synthetic(key)
    env = retrial_queue(population, arrivals=Arrivals(jnp.zeros(5, jnp.int32), 0))
    assert not simulate(key, oracle(population), env, 12).metrics.served.any()


def test_the_rate_of_a_trace_is_compared_with_what_a_queue_can_carry(key):
    limit = capacity(synthetic(key))
    assert check_stable(arrivals_from_trace(_bursty(), float(limit) - 0.05).rate, limit) is None
    with pytest.raises(InputError, match="unstable load"):
        check_stable(arrivals_from_trace(_bursty(), float(limit) + 0.05).rate, limit)

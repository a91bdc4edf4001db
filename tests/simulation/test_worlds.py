"""Worlds by name: loads are checked, and arrivals are like a trace."""

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqbayes.errors import InputError
from cqbayes.policies.belief import belief_by_name
from cqbayes.policies.setup import Setup
from cqbayes.simulation.comparison import compare_policies
from cqbayes.simulation.worlds import WorldSettings, world_by_name


def test_worlds_by_name_are_checked():
    key, settings = jax.random.key(0), {"num_llms": 3, "dim": 2}

    def world(**more):
        wanted = WorldSettings(settings=settings, arrival_rate=0.99, **more)
        return world_by_name(key, wanted, num_seeds=2, rounds=10)[0]

    with pytest.raises(InputError, match="unstable load"):
        world()
    assert "unstable load" in str(world(unstable=True).warning)
    assert world(queue={"rules": {"services": 3}}).warning is None, "three times the capacity"
    assert world(queue={"rules": {"patience": 20.0}}).warning is None, "the impatient leave"


@pytest.mark.parametrize("data", ["synthetic", "paretobandit3"])
def test_worlds_with_a_trace(data, tmp_path):
    """Arrivals at the wanted rate, of every seed its own, and compared with what can be carried."""
    times = np.cumsum(np.random.default_rng(0).lognormal(sigma=1.0, size=4_000))
    settings = {"num_llms": 3, "dim": 2} if data == "synthetic" else {"dim": 4}
    trace = tmp_path / "trace.parquet"
    pq.write_table(pa.table({"t_s": times}), trace)

    def world(slack, **more):
        wanted = WorldSettings(data, settings, slack=slack, trace=trace, **more)
        return world_by_name(jax.random.key(0), wanted, num_seeds=3, rounds=3_000)

    found, sizes, rate = world(0.1)
    assert found.warning is None
    counts = np.asarray(found.arrivals.counts)
    assert counts.shape == (3, 3_000)
    assert counts.max() <= found.arrivals.most
    assert len(np.unique(counts, axis=0)) == 3
    assert counts.mean() == pytest.approx(rate, rel=0.1)
    with pytest.raises(InputError, match="unstable load"):
        world(-0.05)
    assert "unstable load" in str(world(-0.05, unstable=True)[0].warning)

    setup = Setup(sizes, 1, belief_by_name("online", sizes))
    both = {"oracle": ("oracle", setup), "random": ("random", setup)}
    results = compare_policies(jax.random.key(1), found, both, 200, 3)
    arrived = counts[:, :200].sum(axis=1)
    left = arrived - results.performance["departures"].sel(policy="oracle")
    assert (left >= results.curves["queue_length"].sel(policy="oracle")[:, -1] - 1).all()
    assert (left < arrived).all()

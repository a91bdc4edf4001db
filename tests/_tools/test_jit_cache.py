"""Compiled code is forgotten before a process runs out of memory maps."""

from pathlib import Path

import jax
import pytest

from cqbayes._tools import jit_cache as compiled
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import synthetic
from cqbayes.inference.infer import infer
from cqbayes.policies.random import random
from cqbayes.simulation import loop as simulate

linux = pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="no /proc/self/maps")


@linux
def test_forgets_only_where_there_is_much():
    double = jax.jit(lambda x: 2 * x)
    double(1.0)
    assert not compiled.forget_when_many()
    assert double._cache_size() == 1
    assert compiled.forget_when_many(most=1)
    assert double._cache_size() == 0
    assert double(1.0) == 2


@linux
def test_runs_forget_what_others_compiled(monkeypatch):
    """And are the same after it."""
    env = retrial_queue(synthetic(jax.random.key(0)), arrival_rate=0.3)

    def run():
        return simulate.simulate(jax.random.key(1), random(num_llms=5), env, 20)

    first = run()
    other = jax.jit(lambda x: 2 * x)
    other(1.0)
    monkeypatch.setattr(compiled.forget_when_many, "__defaults__", (1,))
    again = run()
    assert other._cache_size() == 0
    assert (first.metrics.queue_length == again.metrics.queue_length).all()


@linux
def test_fits_forget_what_others_compiled(monkeypatch, choices, disjoint_mnl):
    data, _ = choices(seed=0, num_obs=20)
    other = jax.jit(lambda x: 2 * x)
    other(1.0)
    monkeypatch.setattr(compiled.forget_when_many, "__defaults__", (1,))
    infer(jax.random.key(0), disjoint_mnl(), data, engine="online")
    assert other._cache_size() == 0

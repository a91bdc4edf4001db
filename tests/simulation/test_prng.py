"""Simulations' random numbers: JAX's own Threefry, block by block, and the laws they follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32 as jax_threefry
from scipy import stats

from cqbayes.simulation.prng import fast_key, threefry_2x32


def test_blocks_are_those_of_jax():
    key = jax.random.key_data(jax.random.key(7))
    counters = np.random.default_rng(0).integers(0, 2**32, (2, 500), dtype=np.uint32)
    ours = threefry_2x32(key, jnp.asarray(counters[0]), jnp.asarray(counters[1]))
    theirs = jax_threefry(key, jnp.asarray(counters.reshape(-1)))
    np.testing.assert_array_equal(jnp.concatenate(ours), theirs)


def test_known_answer():
    """From the authors' Random123: key and counter all zeros, all ones."""
    zeros, ones = jnp.zeros(2, jnp.uint32), jnp.full(2, 0xFFFFFFFF, jnp.uint32)
    assert [int(x) for x in threefry_2x32(zeros, zeros[0], zeros[1])] == [0x6B200159, 0x99BA4EFE]
    assert [int(x) for x in threefry_2x32(ones, ones[0], ones[1])] == [0x1CB996FC, 0xBB002BE7]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (7, 5)])
def test_all_of_jax_random_takes_these_keys(key, shape):
    fast = fast_key(key)
    assert jax.random.uniform(fast, shape).shape == shape
    assert jax.random.normal(fast, shape).shape == shape
    assert jax.random.randint(fast, shape, 0, 9).shape == shape
    assert jax.random.split(fast, 3).shape == (3,)
    assert jax.random.bits(fast, shape, jnp.uint8).dtype == jnp.uint8
    one, two = jax.vmap(lambda k: jax.random.normal(k, shape))(jax.random.split(fast))
    np.testing.assert_array_equal(one, jax.random.normal(jax.random.split(fast)[0], shape))
    assert not np.array_equal(one, two)


def test_uniform_independent_and_a_prefix_of_more(key):
    fast = fast_key(key)
    many = np.asarray(jax.random.uniform(fast, (100_000,)))
    assert stats.kstest(many, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 4 / np.sqrt(many.size)
    assert stats.kstest(np.asarray(jax.random.normal(fast, (100_000,))), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(jax.random.uniform(fast, (10,)), many[:10])
    rounds = jax.vmap(lambda t: jax.random.uniform(jax.random.fold_in(fast, t)))(jnp.arange(50_000))
    assert stats.kstest(np.asarray(rounds), "uniform").pvalue > 1e-3
    assert len(np.unique(rounds)) > 49_800

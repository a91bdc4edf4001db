"""Choice data: rows that are alike as one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cqbayes.posterior.log_densities import log_posterior
from cqbayes.preference import layout, load_model, sizes_of


def test_rows_that_are_alike_are_one_row_of_their_joint_weight(choices):
    """The likelihood is the same, whatever the parameters."""
    data, _ = choices(seed=0, num_obs=40)
    twice = jax.tree.map(lambda column: jnp.concatenate([column, column[::2]]), data)
    dead = eqx.tree_at(lambda d: d.weight, twice, twice.weight.at[3].set(0.0))
    merged = dead.merged(multiple=64)
    assert merged.num_obs == 64
    assert float(merged.weight.sum()) == float(dead.weight.sum())
    assert int((merged.weight > 0).sum()) <= 40
    model = load_model("disjoint_mnl")
    vector = jax.random.normal(jax.random.key(0), (layout(model, sizes_of(data)).size,))
    one, other = (log_posterior(model, rows)(vector) for rows in (dead, merged))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert float(log_posterior(model, data)(vector)) != pytest.approx(float(other))

"""The best linear parameter, against scikit-free regressions by SciPy, and as an oracle."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.optimize import minimize

from cqbayes.environments.best_linear import best_linear, with_best_linear
from cqbayes.environments.environment import Population, Query
from cqbayes.environments.queue import retrial_queue
from cqbayes.environments.synthetic import linear
from cqbayes.policies.linear_oracle import linear_oracle
from cqbayes.policies.oracle import oracle
from cqbayes.simulation.loop import simulate


def _curved(theta, query):
    """Not linear in the context: what is linear, and its square."""
    straight = theta @ query.context
    return straight + 1.5 * straight**2 - 1


def _population() -> Population:
    theta = jax.random.uniform(jax.random.key(4), (4, 3), minval=-2.0, maxval=2.0)
    return linear(theta)._replace(utility=Partial(_curved, theta))


def test_against_another_optimiser():
    rng = np.random.default_rng(0)
    context, chance = rng.normal(size=(400, 3)), rng.uniform(0.05, 0.95, size=(400, 2))
    ours = best_linear(jnp.asarray(context, jnp.float32), jnp.asarray(chance, jnp.float32))
    z = np.column_stack([np.ones(400), context])
    for j in range(2):

        def loss(w, p=chance[:, j]):
            u = z @ w
            return np.mean(np.logaddexp(0, u) - p * u) + 0.5e-4 * w @ w

        np.testing.assert_allclose(ours[j], minimize(loss, np.zeros(4)).x, atol=2e-3)


def test_a_linear_truth_is_found():
    population = with_best_linear(linear(jnp.array([[1.0, -2.0], [0.5, 0.3], [-1.0, 1.0]])))
    query = Query(jnp.array([0.3, -0.6]), jnp.array(0))
    np.testing.assert_allclose(population.linear(query), population.utility(query), atol=0.02)


def test_separable_answers_have_a_finite_parameter():
    context = jnp.linspace(-1, 1, 200)[:, None]
    chance = jnp.where(context > 0, 1.0, 0.0)
    assert np.isfinite(best_linear(context, chance)).all()


def test_misspecification_and_learning_cost_add_up_to_the_regret(key):
    """For the linear oracle itself all is misspecification; the oracle loses nothing."""
    population = with_best_linear(_population())
    env = retrial_queue(population, 0.5)
    metrics = simulate(key, linear_oracle(population), env, 800, num_seeds=4).metrics
    np.testing.assert_allclose(metrics.linear_for_query, metrics.value, atol=1e-6)
    assert (metrics.best_for_query - metrics.value).mean() > 0.005
    known = simulate(key, oracle(population), env, 800, num_seeds=4).metrics
    np.testing.assert_allclose(known.best_for_query, known.value, atol=1e-6)
    assert (known.linear_for_query <= known.best_for_query + 1e-6).all()

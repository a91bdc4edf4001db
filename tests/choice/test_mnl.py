"""The likelihood: against exact enumeration, at its limits, and as a NumPyro distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpyro.infer import Predictive
from scipy import stats

from cqbayes.choice.data import ChoiceData, choice_data
from cqbayes.choice.mnl import (
    MNL,
    departure_probability,
    log_partition,
    log_probabilities,
    log_probability,
)
from cqbayes.errors import InputError
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.preference import program

utilities_and_offers = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-30, 30), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


@given(utilities_and_offers)
@settings(max_examples=200, deadline=None)
def test_probabilities_are_the_formula(case):
    """Against exp(u) / (1 + sum exp(u)) in float64, which is safe at these sizes."""
    utility, offered = (np.asarray(part) for part in case)
    odds = np.exp(utility) * offered
    expected = np.concatenate([[1.0], odds]) / (1 + odds.sum())
    with jax.enable_x64(True):
        got = np.exp(log_probabilities(jnp.asarray(utility), jnp.asarray(offered)))
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-300)
        leaves = departure_probability(jnp.asarray(utility), jnp.asarray(offered))
        assert leaves == pytest.approx(odds.sum() / (1 + odds.sum()), rel=1e-12)
        single = [
            log_probability(jnp.asarray(utility), jnp.asarray(offered), jnp.asarray(y))
            for y in range(utility.size + 1)
        ]
        assert np.exp(single) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 88.0, 750.0, 1e4])
def test_finite_in_value_gradient_and_curvature(magnitude, x64):
    with jax.enable_x64(x64):
        for signs in ([1, 1, 1], [-1, -1, -1], [1, -1, 1]):
            utility = magnitude * jnp.asarray(signs, jnp.result_type(float))
            offered = jnp.array([True, True, False])
            for choice in range(3):
                row = (utility, offered, jnp.array(choice))
                assert np.isfinite(log_probability(*row))
                gradient = jax.grad(log_probability)(*row)
                assert np.isfinite(gradient).all()
                assert gradient[2] == 0
                assert np.isfinite(jax.hessian(log_probability)(*row)).all()
            exact = jax.grad(log_partition)(utility, offered)
            shares = jnp.exp(log_probabilities(utility, offered))[1:]
            np.testing.assert_allclose(exact, shares, atol=1e-6)


def test_small_departure_probability_keeps_its_digits():
    """1 - P(retry) would be 0 in float32 here."""
    got = departure_probability(jnp.array([-20.0]), jnp.array([True]))
    assert float(got) == pytest.approx(np.exp(-20.0), rel=1e-5)


def test_gradient_is_indicator_minus_share():
    """The closed form of the score: d log P(y) / d u_j = [y = j] - P(j)."""
    utility, offered = jnp.array([0.3, -1.2, 2.0]), jnp.array([True, False, True])
    for choice in (0, 1, 3):
        gradient = jax.grad(log_probability)(utility, offered, jnp.array(choice))
        shares = np.exp(log_probabilities(utility, offered))[1:]
        taken = np.arange(3) == choice - 1
        np.testing.assert_allclose(gradient, taken - shares, atol=1e-6)


def test_not_offered_is_impossible():
    utility, offered = jnp.zeros(2), jnp.array([True, False])
    assert log_probability(utility, offered, jnp.array(2)) == -np.inf


def test_empty_assortment_is_a_no_op():
    utility, nothing = jnp.array([3.0, 1e4]), jnp.zeros(2, bool)
    assert log_partition(utility, nothing) == 0
    assert log_probability(utility, nothing, jnp.array(0)) == 0
    assert departure_probability(utility, nothing) == 0
    np.testing.assert_array_equal(jax.grad(log_partition)(utility, nothing), 0)
    np.testing.assert_array_equal(jax.hessian(log_partition)(utility, nothing), 0)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_rows_of_weight_zero_are_exact_no_ops(disjoint_mnl, choices, junk):
    data, _ = choices(seed=0, num_obs=20)
    padded = ChoiceData(
        context=jnp.concatenate([data.context, jnp.full((3, data.dim), junk)]),
        offered=jnp.concatenate([data.offered, jnp.ones((3, data.num_llms), bool)]),
        choice=jnp.concatenate([data.choice, jnp.array([1, 2, 0])]),
        weight=jnp.concatenate([data.weight, jnp.zeros(3)]),
    )
    model = disjoint_mnl()
    vector = jnp.linspace(-1, 1, data.num_llms * (data.dim + 1))
    for derivative in (lambda f: f, jax.grad, jax.hessian):
        with_rows = derivative(log_posterior(model, padded))(vector)
        without = derivative(log_posterior(model, data))(vector)
        np.testing.assert_allclose(with_rows, without, rtol=2e-6, atol=2e-6)


def test_weights_count_rows(disjoint_mnl, choices):
    data, _ = choices(seed=1, num_obs=15)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), data)
    heavy = ChoiceData(data.context, data.offered, data.choice, 2 * data.weight)
    vector = jnp.linspace(-1, 1, data.num_llms * (data.dim + 1))
    got, expected = (log_posterior(disjoint_mnl(), d)(vector) for d in (heavy, twice))
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_distribution_samples_its_own_probabilities(key):
    """Chi-squared over 40,000 draws; a seed is fixed, so the test does not flicker."""
    utility, offered = jnp.array([0.5, -0.5, 1.5]), jnp.array([True, False, True])
    law = MNL(utility, offered)
    counts = np.bincount(np.asarray(law.sample(key, (40_000,))), minlength=4)
    assert counts[2] == 0
    shares = np.exp(np.asarray(law.log_probs, float))[[0, 1, 3]]
    expected = 40_000 * shares / shares.sum()
    assert stats.chisquare(counts[[0, 1, 3]], expected).pvalue > 1e-3


def test_distribution_keeps_numpyro_conventions():
    law = MNL(jnp.zeros((5, 1, 3)), jnp.ones((2, 3), bool), validate_args=True)
    assert law.batch_shape == (5, 2)
    assert law.event_shape == ()
    assert law.sample(jax.random.key(0), (7,)).shape == (7, 5, 2)
    assert law.log_prob(jnp.zeros((7, 5, 2), int)).shape == (7, 5, 2)
    with pytest.warns(UserWarning, match="Out-of-support"):
        law.log_prob(jnp.full((5, 2), 4))
    leaves, structure = jax.tree.flatten(law)
    assert jax.tree.unflatten(structure, leaves).batch_shape == (5, 2)
    assert law.expand((4, 5, 2)).batch_shape == (4, 5, 2)


def test_predictive_draws_choices_as_numpyro_users_expect(disjoint_mnl, choices, key):
    """Draws with parameters fixed at the truth have the true shares, within 4 standard errors."""
    data, weights = choices(seed=2, num_obs=50)
    params = {
        "intercept": jnp.tile(weights[None, :, 0], (2_000, 1)),
        "theta": jnp.tile(weights[None, :, 1:], (2_000, 1, 1)),
    }
    drawn = Predictive(program(disjoint_mnl()), params)(key, data, predict=True)["choice"]
    assert drawn.shape == (2_000, 50)
    utility = weights[:, 0] + np.asarray(data.context) @ weights[:, 1:].T
    odds = np.exp(utility) * np.asarray(data.offered)
    retry = 1 / (1 + odds.sum(axis=1))
    z = (np.mean(drawn == 0, axis=0) - retry) / np.sqrt(retry * (1 - retry) / 2_000)
    assert np.abs(z).max() < 4.5
    assert np.sqrt(np.mean(z**2)) < 1.4


GOOD = {
    "context": [[0.1, 0.2], [0.3, 0.4]],
    "offered": [[True, False], [True, True]],
    "choice": [1, 0],
    "weight": [1.0, 2.0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": [0.1, 0.2]}, "context: expected 2 dimension"),
        ({"context": [["a", "b"], ["c", "d"]]}, "context: expected numbers"),
        ({"context": [[0.1, np.nan], [0.3, 0.4]]}, "context: expected finite numbers.*row 0"),
        ({"context": [[0.1, 0.2], [np.inf, 0.4]]}, "context: expected finite numbers.*row 1"),
        ({"offered": [[True, False]]}, r"offered: expected booleans of shape \(2, num_llms\)"),
        ({"offered": [[2, 0], [1, 1]]}, "offered: expected only True and False"),
        ({"offered": np.zeros((2, 0), bool)}, "at least one LLM"),
        (
            {"choice": [2, 0]},
            "choice: expected 0 .retry. or an LLM that was offered, got 2 in row 0",
        ),
        (
            {"choice": [3, 0]},
            "choice: expected 0 .retry. to 2, or -1 .silence. to -16 .other signs., got 3 in row 0",
        ),
        ({"choice": [-17, 0]}, "got -17 in row 0"),
        ({"choice": [0.5, 0]}, "choice: expected 2 integers"),
        ({"choice": [1]}, "choice: expected 2 integers"),
        ({"weight": [1.0, -1.0]}, "weight: expected a weight of at least 0, got -1.0 in row 1"),
        ({"weight": [1.0, np.nan]}, "weight: expected finite numbers"),
        ({"weight": [1.0]}, r"weight: expected shape \(2,\)"),
    ],
)
def test_bad_input_is_named_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        choice_data(**{**GOOD, **change})
    assert "\n" not in str(caught.value)


def test_good_input_passes():
    data = choice_data(**GOOD)
    assert (data.num_obs, data.dim, data.num_llms) == (2, 2, 2)
    assert choice_data(np.zeros((0, 2)), np.zeros((0, 3), bool), np.zeros(0, int)).num_obs == 0

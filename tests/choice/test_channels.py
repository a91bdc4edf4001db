"""What a log shows: probabilities that sum to one, limits, sampling, derivatives, composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cqbayes.models.abandonment import abandonment
from cqbayes.models.disjoint_mnl import disjoint_mnl
from cqbayes.models.misclassified import misclassified
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cqbayes.choice.channels import Outcomes, log_sum, log_total
from cqbayes.choice.data import SILENCE
from cqbayes.choice.mnl import log_probabilities

LEFT, MISTAKEN = abandonment(), misclassified()
BOTH = {
    "mistaken after leaving": (
        misclassified(LEFT),
        lambda q, r, c, d: {
            "base": {"base": None, "leave": q, "acknowledged": r},
            "sensitivity": c,
            "specificity": d,
        },
    ),
    "leaving after mistaken": (
        abandonment(MISTAKEN),
        lambda q, r, c, d: {
            "base": {"base": None, "sensitivity": c, "specificity": d},
            "leave": q,
            "acknowledged": r,
        },
    ),
}
shares = st.floats(0.01, 0.99)
rows = st.tuples(
    st.lists(st.floats(-20, 20), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)


@pytest.mark.parametrize("order", BOTH)
@given(row=rows, each=st.tuples(shares, shares, shares, shares))
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one_in_any_order(order, row, each):
    model, params = BOTH[order]
    utility, offered = (np.asarray(part) for part in row)
    with jax.enable_x64(True):
        law = model.outcome(params(*each), jnp.asarray(utility), jnp.asarray(offered))
        found = np.exp(law.log_probs)
    assert model.silence
    assert found.shape == (utility.size + 2,)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found[1:-1][~offered] == 0).all()
    assert (found[1:-1][offered] > 0).all()


UTILITY = jnp.array([[0.3, -1.0, 2.0], [5.0, 0.0, -5.0], [1.0, 1.0, 1.0]])
OFFERED = jnp.array([[True, False, True], [True, True, True], [False, False, False]])


def matrix(model, params, utility, offered):
    """Probabilities of what is seen, ``[obs, seen]``."""
    return np.exp(np.asarray(model.outcome(params, utility, offered).log_probs, float))


def test_abandonment_is_the_formula():
    base = np.exp(np.asarray(log_probabilities(UTILITY, OFFERED), float))
    params = {"base": None, "leave": 0.3, "acknowledged": 0.6}
    seen = matrix(LEFT, params, UTILITY, OFFERED)
    np.testing.assert_allclose(seen[:2, 0], 0.7 * base[:2, 0], rtol=1e-5)
    np.testing.assert_allclose(seen[:, 1:-1], 0.6 * base[:, 1:], rtol=1e-5)
    silent = 0.3 * base[:, 0] + 0.4 * base[:, 1:].sum(axis=1)
    np.testing.assert_allclose(seen[:2, -1], silent[:2], rtol=1e-5)
    assert seen[2].tolist() == [1, 0, 0, 0, 0], "nothing was offered: a retry for sure"


def test_misclassification_is_the_formula():
    base = np.exp(np.asarray(log_probabilities(UTILITY, OFFERED), float))
    params = {"base": None, "sensitivity": 0.8, "specificity": 0.9}
    seen = matrix(MISTAKEN, params, UTILITY, OFFERED)
    retry, taken = base[:, :1], base[:, 1:]
    offered = np.asarray(OFFERED, float)
    shown = offered.sum(axis=1, keepdims=True)
    expected = 0.9 * taken + 0.2 * retry * offered / np.maximum(shown, 1)
    np.testing.assert_allclose(seen[:, 1:], expected, rtol=1e-5)
    np.testing.assert_allclose(seen[:2, 0], (0.8 * retry + 0.1 * (1 - retry))[:2, 0], rtol=1e-5)
    assert seen[2, 0] == 1, "nothing was offered: a retry for sure"


def test_without_errors_it_is_the_choice_itself():
    exact = disjoint_mnl().outcome(None, UTILITY, OFFERED).log_probs
    faultless = {"base": None, "sensitivity": 1.0, "specificity": 1.0}
    law = MISTAKEN.outcome(faultless, UTILITY, OFFERED)
    np.testing.assert_allclose(law.log_probs, exact, rtol=1e-6)
    patient = {"base": None, "leave": 0.0, "acknowledged": 1.0}
    law = LEFT.outcome(patient, UTILITY, OFFERED)
    np.testing.assert_allclose(law.log_probs[:, :-1], exact, rtol=1e-6)
    assert (law.log_probs[:, -1] == -jnp.inf).all()


def test_where_satisfaction_never_shows_all_is_a_retry_or_silence():
    law = LEFT.outcome({"base": None, "leave": 0.3, "acknowledged": 0.0}, UTILITY, OFFERED)
    assert (law.log_probs[:, 1:-1] == -jnp.inf).all()
    np.testing.assert_allclose(jnp.exp(law.log_probs).sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("order", BOTH)
def test_derivatives_are_finite_where_outcomes_are_impossible(order):
    """Also of the empty assortment, and where acceptances never show."""
    model, params = BOTH[order]

    def likelihood(free, utility):
        law = model.outcome(params(free[0], 0.0, free[1], free[2]), utility, OFFERED)
        return jnp.sum(law.log_prob(jnp.array([0, SILENCE, 0])))

    free = jnp.array([0.3, 0.8, 0.9])
    for derivative in (jax.grad, jax.hessian):
        compiled = jax.jit(derivative(likelihood, argnums=(0, 1)))
        for scale in (1.0, 1e3):
            found = compiled(free, scale * UTILITY)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_sampling_has_the_probabilities(key):
    """Chi-squared over 40,000 draws; a seed is fixed, so the test does not flicker."""
    chance = np.array([0.4, 0.25, 0.0, 0.15, 0.2])
    law = Outcomes(jnp.log(chance), silence=True)
    drawn = np.asarray(law.sample(key, (40_000,)))
    counts = np.array([(drawn == label).sum() for label in (0, 1, 2, 3, SILENCE)])
    assert counts[2] == 0
    assert stats.chisquare(counts[chance > 0], 40_000 * chance[chance > 0]).pvalue > 1e-3
    assert counts.sum() == drawn.size


def test_distribution_keeps_numpyro_conventions():
    law = Outcomes(jnp.log(jnp.full((5, 2, 4), 0.25)), silence=True, validate_args=True)
    assert (law.batch_shape, law.event_shape) == ((5, 2), ())
    assert law.sample(jax.random.key(0), (7,)).shape == (7, 5, 2)
    assert law.log_prob(jnp.zeros((7, 5, 2), int)).shape == (7, 5, 2)
    assert law.expand((3, 5, 2)).sample(jax.random.key(0)).shape == (3, 5, 2)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(law)))
    assert again.silence
    for label in (-2, 3):
        with pytest.warns(UserWarning, match="Out-of-support"):
            law.log_prob(jnp.full((5, 2), label))
    quiet = Outcomes(jnp.log(jnp.array([0.5, 0.5, 0.0])), validate_args=False)
    assert quiet.log_prob(jnp.array(SILENCE)) == -jnp.inf
    assert quiet.log_prob(jnp.array(2)) == -jnp.inf
    assert quiet.log_prob(jnp.array(3)) == -jnp.inf


def test_sums_of_impossible_things():
    nothing = jnp.full(3, -jnp.inf)
    assert log_total(nothing) == -jnp.inf
    np.testing.assert_array_equal(jax.grad(log_total)(nothing), 0)
    some = jnp.array([-jnp.inf, 0.0, jnp.log(3.0)])
    assert float(log_total(some)) == pytest.approx(np.log(4))
    np.testing.assert_allclose(jax.grad(log_total)(some), [0, 0.25, 0.75], rtol=1e-6)
    found = log_sum(jnp.array([0.0, -jnp.inf]), jnp.array([0.0, -jnp.inf]))
    np.testing.assert_allclose(found, [np.log(2), -np.inf], rtol=1e-6)

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

from cqbayes.choice.channels import Seen, channel_rates, followed_by, seen_log_probability
from cqbayes.choice.data import SILENCE
from cqbayes.choice.mnl import MNL, log_probabilities
from cqbayes.errors import InputError
from cqbayes.preference import shown_through

LEFT, MISTAKEN = abandonment(), misclassified()
BOTH = {
    "mistaken after leaving": (
        misclassified(LEFT),
        lambda q, r, c, d: {
            "base": {"base": None, "leaves": q, "goes_on": r},
            "sensitivity": c,
            "specificity": d,
        },
    ),
    "leaving after mistaken": (
        abandonment(MISTAKEN),
        lambda q, r, c, d: {
            "base": {"base": None, "sensitivity": c, "specificity": d},
            "leaves": q,
            "goes_on": r,
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
    assert model.signs == 1
    assert found.shape == (utility.size + 2,)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found[1:-1][~offered] == 0).all()
    assert (found[1:-1][offered] > 0).all()
    with jax.enable_x64(True):
        labels = jnp.array([*range(utility.size + 1), SILENCE])
        np.testing.assert_allclose(np.exp(law.log_prob(labels)), found, rtol=1e-12)


UTILITY = jnp.array([[0.3, -1.0, 2.0], [5.0, 0.0, -5.0], [1.0, 1.0, 1.0]])
OFFERED = jnp.array([[True, False, True], [True, True, True], [False, False, False]])


def matrix(model, params, utility, offered):
    """Probabilities of what is seen, ``[obs, seen]``."""
    return np.exp(np.asarray(model.outcome(params, utility, offered).log_probs, float))


def test_abandonment_is_the_formula():
    base = np.exp(np.asarray(log_probabilities(UTILITY, OFFERED), float))
    params = {"base": None, "leaves": 0.3, "goes_on": 0.6}
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


@pytest.mark.parametrize("order", BOTH)
def test_the_inner_channel_comes_first(order):
    """Of one LLM: 3 x 3 matrices of what is done and seen, in the order of the words."""
    model, params = BOTH[order]
    q, r, c, d = 0.3, 0.6, 0.8, 0.9
    leaving = np.array([[1 - q, 0, q], [0, r, 1 - r], [0, 0, 1]])
    mistaken = np.array([[c, 1 - c, 0], [1 - d, d, 0], [0, 0, 1]])
    both = leaving @ mistaken if order == "mistaken after leaving" else mistaken @ leaving
    seen = matrix(model, params(q, r, c, d), UTILITY[:1, :1], OFFERED[:1, :1])
    taken = 1 / (1 + np.exp(-float(UTILITY[0, 0])))
    np.testing.assert_allclose(seen[0], np.array([1 - taken, taken, 0]) @ both, rtol=1e-5)


def test_without_errors_it_is_the_choice_itself():
    exact = disjoint_mnl().outcome(None, UTILITY, OFFERED).log_probs
    faultless = {"base": None, "sensitivity": 1.0, "specificity": 1.0}
    law = MISTAKEN.outcome(faultless, UTILITY, OFFERED)
    np.testing.assert_allclose(law.log_probs, exact, rtol=1e-6)
    patient = {"base": None, "leaves": 0.0, "goes_on": 1.0}
    law = LEFT.outcome(patient, UTILITY, OFFERED)
    np.testing.assert_allclose(law.log_probs[:, :-1], exact, rtol=1e-6)
    assert (law.log_probs[:, -1] == -jnp.inf).all()


def test_where_satisfaction_never_shows_all_is_a_retry_or_silence():
    law = LEFT.outcome({"base": None, "leaves": 0.3, "goes_on": 0.0}, UTILITY, OFFERED)
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


RATES = channel_rates(retry=(0.5, 0.3, 0.2), taken=(0.1, 0.6, 0.3))


def by_hand(utility, offered, rates):
    """Probabilities of what one row shows, from sums of exponentials."""
    offered = np.asarray(offered)
    odds = np.exp(np.asarray(utility, float)) * offered
    retry, taken = 1 / (1 + odds.sum()), odds / (1 + odds.sum())
    rates = np.asarray(rates, float)
    spread = rates[0, 1] * retry * offered / np.sum(offered)
    return np.array(
        [
            rates[0, 0] * retry + rates[1, 0] * taken.sum(),
            *(spread + rates[1, 1] * taken),
            rates[0, 2] * retry + rates[1, 2] * taken.sum(),
        ]
    )


def test_sampling_has_the_probabilities(key):
    """Chi-squared over 40,000 draws; a seed is fixed, so the test does not flicker."""
    chance = by_hand(UTILITY[0], OFFERED[0], RATES)
    drawn = np.asarray(Seen(UTILITY[0], OFFERED[0], RATES, signs=1).sample(key, (40_000,)))
    counts = np.array([(drawn == label).sum() for label in (0, 1, 2, 3, SILENCE)])
    assert counts[2] == 0
    expected = 40_000 * chance[chance > 0] / chance.sum()  # rates are rounded
    assert stats.chisquare(counts[chance > 0], expected).pvalue > 1e-3
    assert counts.sum() == drawn.size


def test_distribution_keeps_numpyro_conventions():
    utility, offered = jnp.zeros((5, 2, 3)), jnp.ones((5, 2, 3), bool)
    law = Seen(utility, offered, RATES, signs=1, validate_args=True)
    assert (law.batch_shape, law.event_shape) == ((5, 2), ())
    assert law.sample(jax.random.key(0), (7,)).shape == (7, 5, 2)
    assert law.log_prob(jnp.zeros((7, 5, 2), int)).shape == (7, 5, 2)
    assert law.expand((3, 5, 2)).sample(jax.random.key(0)).shape == (3, 5, 2)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(law)))
    assert again.signs == 1
    np.testing.assert_array_equal(again.log_probs, law.log_probs)
    for label in (-2, 4):
        with pytest.warns(UserWarning, match="Out-of-support"):
            law.log_prob(jnp.full((5, 2), label))


@pytest.mark.parametrize("label", [-2, 2, 4])
def test_what_is_no_label_is_impossible(label):
    """A number beyond the labels, or an LLM that was not offered, whatever the rates."""
    row = (UTILITY[0], OFFERED[0], jnp.array(label))
    assert seen_log_probability(RATES, *row) == -jnp.inf
    np.testing.assert_array_equal(jax.grad(seen_log_probability, 1)(RATES, *row), 0)


@pytest.mark.parametrize(
    ("utility", "label", "expected"),
    [(1e4, 0, np.log(0.5) - 1e4), (-1e4, 1, np.log(0.7) - 1e4), (-1e4, 0, np.log(0.5))],
)
def test_what_is_far_above_but_not_seen_does_not_count(utility, label, expected):
    """Terms of rate zero, here acceptances seen as retries and the reverse, are not summed."""
    rates = channel_rates(retry=(0.5, 0, 0.5), taken=(0, 0.7, 0.3))
    row = (jnp.array([utility, 0.0]), jnp.array([True, False]), jnp.array(label))
    found, slope = jax.value_and_grad(seen_log_probability, 1)(rates, *row)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(slope, [-np.sign(utility) * (expected < -1), 0], atol=1e-6)


def test_what_is_no_label_is_impossible_where_nothing_is_offered():
    rates = channel_rates((0.5, 0, 0.2, 0.3), (0.2, 0.5, 0.2, 0.1), (0.5, 0, 0.2, 0.3))
    row = jnp.zeros((6, 2)), jnp.zeros((6, 2), bool)
    found = np.exp(seen_log_probability(rates, *row, jnp.array([0, -1, -2, -3, 1, 3])))
    np.testing.assert_allclose(found, [0.5, 0.2, 0.3, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("utility", [2.0, -3.0])
def test_a_rate_of_zero_has_a_slope(utility):
    """Nobody leaves. Silence were more likely if some did, by P(retry) / P(silence)."""

    def silence(leaves):
        rates = channel_rates(retry=(1 - leaves, 0, leaves), taken=(0, 0.7, 0.3))
        row = (jnp.array([utility]), jnp.array([True]), jnp.array(SILENCE))
        return seen_log_probability(rates, *row)

    expected = 1 / (0.3 * np.exp(utility))
    assert float(jax.grad(silence)(0.0)) == pytest.approx(expected, rel=1e-5)
    assert float(jax.hessian(silence)(0.0)) == pytest.approx(-(expected**2), rel=1e-5)


def test_llms_can_come_first():
    """``axis`` is the axis of the LLMs."""
    for label in (0, 1, 3, SILENCE):
        seen = jnp.full(len(UTILITY), label)
        last = seen_log_probability(RATES, UTILITY, OFFERED, seen)
        first = seen_log_probability(RATES, UTILITY.T, OFFERED.T, seen, axis=0)
        np.testing.assert_allclose(first, last, rtol=1e-6)
        alone = by_hand(UTILITY[1], OFFERED[1], RATES)[label]
        np.testing.assert_allclose(np.exp(last[1]), alone, rtol=1e-5)


def test_one_channel_after_another():
    """The matrix product, with silence kept: a user who left is not heard by what comes next."""
    then = channel_rates(retry=(0.7, 0.1, 0.2), taken=(0.2, 0.5, 0.3))
    kept = np.vstack([np.asarray(then)[:2], [0, 0, 1]])
    found = np.asarray(followed_by(RATES, then))
    np.testing.assert_allclose(found[:2], np.asarray(RATES)[:2] @ kept, rtol=1e-6)
    assert found[2].tolist() == [1, 0, 0], "nothing was offered: a retry for sure"


def test_signs_of_the_first_channel_stay_what_they_are():
    first = channel_rates((0.4, 0.1, 0.2, 0.3), (0.1, 0.5, 0.3, 0.1), (0.5, 0, 0.2, 0.3))
    then = channel_rates((0.9, 0.1, 0), (0.2, 0.8, 0))
    found = np.asarray(followed_by(first, then))
    np.testing.assert_allclose(found[:, 2:], np.asarray(first)[:, 2:], rtol=1e-6)
    two = np.asarray(first)[:2, :2] @ np.asarray(then)[:2, :2]
    np.testing.assert_allclose(found[:2, :2], two, rtol=1e-6)
    assert found[2, :2].tolist() == [0.5, 0]


def test_a_channel_goes_on_a_multinomial_logit_only():
    odd = disjoint_mnl()._replace(outcome=lambda params, *row: MNL(*row))
    with pytest.raises(InputError, match="expected a model whose outcome is mnl or a Channel"):
        shown_through(odd, lambda params: RATES)

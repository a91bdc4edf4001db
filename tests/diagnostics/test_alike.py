"""Groups that are alike are called different as often as is said; others are found."""

import numpy as np
import pytest
from scipy.stats import kruskal

from cqbayes.diagnostics.alike import apart, chance_if_alike


def test_the_statistic_is_that_of_the_mean_places():
    """With two classes it is Kruskal and Wallis's but for n - 1 in place of n."""
    table = np.array([[3, 7], [8, 2], [4, 4], [0, 0]])
    units = [np.repeat([0, 1], row) for row in table[:3]]
    number = table.sum()
    assert apart(table) * (number - 1) / number == pytest.approx(kruskal(*units).statistic)
    np.testing.assert_allclose(apart(np.stack([table, 2 * table])), apart(table) * [1, 2])


def test_what_cannot_differ_does_not():
    for table in ([[0, 0], [0, 0]], [[0, 0], [3, 4]], [[3, 0], [5, 0]], [[5, 5], [5, 5]]):
        assert chance_if_alike(np.array([table])) == 1


def test_a_difference_in_one_stratum_is_found():
    alike, other = [[40, 10], [20, 5]], [[20, 5], [5, 20]]
    assert chance_if_alike(np.array([alike, alike])) > 0.9
    assert chance_if_alike(np.array([alike, other])) < 0.001


@pytest.mark.parametrize("few", [3, 120])
def test_alike_groups_seldom_look_different(few):
    """Simulated: units of two kinds, picked by class with probabilities that differ."""
    rng = np.random.default_rng(few)
    shares = np.array([[0.7, 0.2, 0.07, 0.03], [0.3, 0.3, 0.2, 0.2]])
    picked = np.array([0.1, 0.3, 0.6, 1.0])

    def chance(second: np.ndarray) -> float:
        law = np.stack([shares, np.stack([shares[0], second])], axis=1)
        drawn = rng.multinomial([[20 * few, 10 * few], [few, few]], law)
        return chance_if_alike(rng.binomial(drawn, picked))

    found = np.array([chance(shares[1]) for _ in range(200)])
    assert (found < 0.05).mean() < 0.1
    if few == 120:
        plain = np.array([chance(np.array([0.05, 0.05, 0.4, 0.5])) for _ in range(20)])
        assert (plain < 0.01).mean() > 0.8

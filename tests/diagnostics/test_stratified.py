"""Shares by class: unbiased, and their errors those of repeated sampling."""

import numpy as np
import pytest

from cqbayes.diagnostics.stratified import (
    Stratum,
    error_with_more,
    share_of_hits,
    shares_of_classes,
)

SIZES, RATES = np.array([800, 150, 50]), np.array([0.05, 0.2, 0.6])


def _samples(number: int, drawn: tuple[int, ...] = (60, 30, 20)):
    """Samples of one population of 1,000, simulated; and what is true of that."""
    rng = np.random.default_rng(0)
    hits = np.round(SIZES * RATES).astype(int)
    found = rng.hypergeometric(hits, SIZES - hits, drawn, (number, 3))
    strata = [[Stratum(*one) for one in zip(SIZES, drawn, row, strict=True)] for row in found]
    return strata, hits


def test_shares_are_unbiased_and_their_errors_honest():
    strata, hits = _samples(2_000)
    found = np.array([share_of_hits(one) for one in strata])
    truth = hits.sum() / 1_000
    spread = found[:, 0].std()
    assert found[:, 0].mean() == pytest.approx(truth, abs=4 * spread / np.sqrt(2_000))
    # A half is added to the hits of each class: with few hits errors come out a little too large.
    assert spread <= np.sqrt((found[:, 1] ** 2).mean()) <= 1.15 * spread


@pytest.mark.parametrize("drawn", [(26, 12, 8), (60, 30, 20)])
def test_intervals_of_sensitivity_cover(drawn):
    """Few labels, of which the largest class has one or two hits or none: shares are skewed."""
    strata, hits = _samples(400, drawn)
    truth = hits[1:].sum() / hits.sum(), 1 - (SIZES - hits)[0] / (SIZES - hits).sum()
    found = np.array([shares_of_classes(one, [False, True, True]) for one in strata])
    for part, right in zip(found.transpose(1, 2, 0), truth, strict=True):
        covered = np.mean((part[0] <= right) & (right <= part[2]))
        assert 0.85 <= covered <= 0.97
        assert part[1].mean() == pytest.approx(right, abs=0.35 * part[1].std())


def test_more_labels_make_the_error_what_it_then_is():
    strata = [Stratum(10_000, 100, 10), Stratum(2_500, 50, 25)]
    # The roots of the sizes are as 2 to 1.
    more = [Stratum(10_000, 200, 20), Stratum(2_500, 100, 50)]
    assert error_with_more(strata, 150) == pytest.approx(share_of_hits(more)[1], rel=0.02)
    assert error_with_more(strata, 0) == pytest.approx(share_of_hits(strata)[1])
    whole = [Stratum(20, 20, 3), Stratum(10, 10, 5)]
    assert share_of_hits(whole) == (8 / 30, 0.0)
    assert error_with_more(whole, 50) == 0


def test_classes_without_units_or_without_labels():
    some = [Stratum(100, 50, 10), Stratum(0, 0, 0)]
    assert share_of_hits(some)[0] == pytest.approx(0.2)
    assert shares_of_classes(some, [False, True])[0] == (0, 0, 0)
    assert np.isnan(share_of_hits([Stratum(100, 0, 0), Stratum(9, 0, 0)])).all()
    assert np.isnan(share_of_hits([Stratum(0, 0, 0)])).all()
    # One without labels counts with its neighbour, wherever it stands.
    one = Stratum(109, 50, 10)
    for strata in (
        [Stratum(100, 50, 10), Stratum(9, 0, 0)],
        [Stratum(9, 0, 0), Stratum(100, 50, 10)],
        [Stratum(3, 0, 0), Stratum(6, 0, 0), Stratum(100, 50, 10)],
    ):
        assert share_of_hits(strata) == share_of_hits([one])
    between = [Stratum(100, 50, 10), Stratum(9, 0, 0), Stratum(50, 5, 4)]
    assert share_of_hits(between) == share_of_hits([one, Stratum(50, 5, 4)])
    # All are known, and there are no hits: nothing is left to doubt, or to say.
    whole = [Stratum(20, 20, 5), Stratum(10, 10, 5)]
    assert shares_of_classes(whole, [False, True]) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert np.isnan(shares_of_classes([Stratum(20, 20, 0)], [True])[0]).all()
    nobody = shares_of_classes([Stratum(100, 50, 0), Stratum(10, 5, 0)], [False, True])[0]
    assert 0 <= nobody.low < nobody.median < nobody.high <= 1

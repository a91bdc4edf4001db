"""Shares by class: unbiased, and their errors those of repeated sampling."""

import numpy as np
import pytest

from cqbayes.diagnostics.stratified import (
    Stratum,
    error_with_more,
    share_of_hits,
    shares_of_classes,
)

SIZES, RATES, DRAWN = np.array([800, 150, 50]), np.array([0.05, 0.2, 0.6]), np.array([60, 30, 20])


def _samples(number: int):
    """Samples of one population of 1,000, simulated; and what is true of that."""
    rng = np.random.default_rng(0)
    hits = np.round(SIZES * RATES).astype(int)
    drawn = rng.hypergeometric(hits, SIZES - hits, DRAWN, (number, 3))
    strata = [[Stratum(*one) for one in zip(SIZES, DRAWN, row, strict=True)] for row in drawn]
    return strata, hits


def test_shares_are_unbiased_and_their_errors_honest():
    strata, hits = _samples(2_000)
    found = np.array([share_of_hits(one) for one in strata])
    truth = hits.sum() / 1_000
    spread = found[:, 0].std()
    assert found[:, 0].mean() == pytest.approx(truth, abs=4 * spread / np.sqrt(2_000))
    # A half is added to the hits of each class: with few hits errors come out a little too large.
    assert spread <= np.sqrt((found[:, 1] ** 2).mean()) <= 1.15 * spread
    of = [shares_of_classes(one, [False, True, True], draws=400)["hits"] for one in strata[:400]]
    sensitivity = np.array(of)
    right = hits[1:].sum() / hits.sum()
    # A ratio of estimates has a bias, which is small beside its error.
    assert sensitivity[:, 0].mean() == pytest.approx(right, abs=0.4 * sensitivity[:, 0].std())
    assert sensitivity[:, 1].mean() == pytest.approx(sensitivity[:, 0].std(), rel=0.25)


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
    assert shares_of_classes(some, [False, True])["hits"][0] == 0
    assert np.isnan(share_of_hits([Stratum(100, 50, 10), Stratum(9, 0, 0)])).all()
    assert np.isnan(share_of_hits([Stratum(0, 0, 0)])).all()

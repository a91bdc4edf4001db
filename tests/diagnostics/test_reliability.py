"""Reliability: its alarms are as rare as they should be, and its errors those of theory."""

import numpy as np
import pytest

from cqbayes.diagnostics.reliability import reliability
from cqbayes.errors import InputError


def test_a_calibrated_forecast_is_called_so_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    alarms, naive = [], []
    for _ in range(200):
        chance = rng.beta(4, 2, 120)
        # What is said is right, but the outcomes of a query's rows are one and the same.
        happened = rng.random(120) < chance
        cluster = np.repeat(np.arange(120), rng.geometric(0.3, 120))
        rows = (chance[cluster], happened[cluster])
        found = reliability(*rows, cluster, samples=200)
        alarms.append(found.error > found.by_chance)
        alone = reliability(*rows, samples=200)
        naive.append(alone.error > alone.by_chance)
    # Binomial: 0.05, give or take four standard deviations of 0.015.
    assert np.mean(alarms) < 0.11
    assert np.mean(naive) > 0.4, "rows that go together must not count as so many"


def test_a_forecast_that_is_too_sure_is_found():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        truth = rng.beta(4, 2, 1_000)
        odds = 2 * np.log(truth / (1 - truth))
        one = reliability(1 / (1 + np.exp(-odds)), rng.random(1_000) < truth, samples=200)
        found.append(one.error > one.by_chance)
    assert all(found)


def test_standard_errors_are_those_of_theory():
    rng = np.random.default_rng(2)
    chance = np.repeat([0.2, 0.5, 0.9], 400)
    happened = rng.random(1_200) < chance
    made = reliability(chance, happened, bins=3)
    np.testing.assert_allclose(made.table["predicted"], [0.2, 0.5, 0.9])
    share = made.table["observed"]
    np.testing.assert_allclose(share, happened.reshape(3, 400).mean(axis=1))
    # The bootstrap's standard deviation has a relative error of 1 / sqrt(2 samples) = 0.022.
    np.testing.assert_allclose(made.table["error"], np.sqrt(share * (1 - share) / 400), rtol=0.09)
    np.testing.assert_allclose(made.error, (share - [0.2, 0.5, 0.9]).abs().mean())
    # Each row five times is no more evidence, and the same shares.
    again = reliability(
        *(np.repeat(values, 5) for values in (chance, happened, np.arange(1_200))), bins=3
    )
    np.testing.assert_allclose(again.table["observed"], share)
    np.testing.assert_allclose(again.table["error"], made.table["error"])
    np.testing.assert_allclose(again.by_chance, made.by_chance)


def test_bins_without_chance_or_rows():
    one = reliability(np.full(50, 0.98), np.ones(50))
    assert one.table["rows"].tolist() == [50]
    assert one.table["error"].item() == pytest.approx(np.sqrt(0.98 * 0.02 / 50))
    assert one.inside == 1
    labels = np.array(["a", "b"])[np.arange(50) % 2]
    assert np.isfinite(reliability(np.linspace(0, 1, 50), np.ones(50), labels).table).all(axis=None)
    # A bin that some samples have no row of.
    sparse = reliability(np.linspace(0.4, 0.6, 20), np.arange(20) % 2, np.arange(20) // 2)
    assert np.isfinite(sparse.table).all(axis=None)


def test_the_same_seed_gives_the_same():
    rng = np.random.default_rng(3)
    rows = rng.random(200), rng.random(200) < 0.5
    first, second, third = (reliability(*rows, seed=seed) for seed in (0, 0, 1))
    assert first.table.equals(second.table)
    assert first.by_chance == second.by_chance != third.by_chance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [1, 0]), "expected as many outcomes and clusters as the 1 probabilities, got 2"),
        (([0.5], [1], ["a", "b"]), "got 1 and 2"),
        (([], []), "at least one row"),
        (([1.5], [1]), r"chance: expected probabilities in \[0, 1\]"),
        (([np.nan], [1]), "chance"),
        (([0.5], [2]), "happened: expected 0 or 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        reliability(*map(np.array, arguments))
    with pytest.raises(InputError, match="at least 1 bin"):
        reliability(np.array([0.5]), np.array([1]), bins=0)

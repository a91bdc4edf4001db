"""Reliability of predicted probabilities: do events predicted with 0.7 happen in 7 of 10 cases?"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from cqbayes.errors import InputError


class Reliability(NamedTuple):
    """Predicted and observed shares by bin, and the calibration error.

    Attributes:
        table: one row a bin: mean ``predicted`` probability, share ``observed``, its standard
            ``error``, and how many ``rows``.
        error: expected calibration error, the mean gap of the bins weighted by rows.
        by_chance: ``error`` stays below this in 95 of 100 cases if the probabilities are right.
    """

    table: pd.DataFrame
    error: float
    by_chance: float

    @property
    def inside(self) -> int:
        """Number of bins whose gap is within two standard errors."""
        said, seen, error = self.table[["predicted", "observed", "error"]].to_numpy().T
        return int(np.sum(np.abs(said - seen) <= 2 * error))


def reliability(
    chance: Float[np.ndarray, " row"],
    happened: Shaped[np.ndarray, " row"],
    cluster: Shaped[np.ndarray, " row"] | None = None,
    *,
    bins: int = 10,
    samples: int = 1_000,
    seed: int = 0,
) -> Reliability:
    """Compares probabilities with what happened, in bins of about equally many rows.

    ::

        error = sum_b n_b |mean(chance in b) - mean(happened in b)| / n

    Rows of one query or one user depend on each other, so errors and ``by_chance`` come from a
    bootstrap over clusters. A bootstrap over single rows would understate chance, and call a
    calibrated forecast miscalibrated. ``by_chance`` is the 0.95 quantile of the error of ``sample -
    all rows``, which would be 0 in each bin without chance.

    Args:
        chance: predicted probabilities, of rows that the forecast was not fitted to.
        happened: whether the event happened: false and true, or 0 and 1.
        cluster: a label for each row; rows with the same label form a cluster. Where absent, each
            row is a cluster of its own.
        bins: number of bins; there are fewer where many probabilities are the same.
        samples: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: for lengths that differ, no row, probabilities outside [0, 1], or anything but 0
            and 1 as what happened.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> chance = rng.random(4_000)
        >>> found = reliability(chance, rng.random(4_000) < chance)
        >>> found.error < found.by_chance
        True
        >>> found = reliability(chance, rng.random(4_000) < chance**2)
        >>> found.error < found.by_chance
        False

    Source: Bröcker and Smith (2007), Increasing the reliability of reliability diagrams; Field and
    Welsh (2007), Bootstrapping clustered data.
    """
    chance, happened = np.asarray(chance, float), np.asarray(happened, float)
    label = np.arange(len(chance)) if cluster is None else np.asarray(cluster)
    if not len(chance) == len(happened) == len(label):
        raise InputError(
            f"reliability: expected as many outcomes and clusters as the {len(chance)} "
            f"probabilities, got {len(happened)} and {len(label)}"
        )
    if not len(chance):
        raise InputError("reliability: expected at least one row, got none")
    if not ((chance >= 0) & (chance <= 1)).all():
        raise InputError("chance: expected probabilities in [0, 1], got others")
    if not np.isin(happened, (0, 1)).all():
        raise InputError("happened: expected 0 or 1 in every row, got others")
    if bins < 1 or samples < 2:
        raise InputError(
            f"reliability: expected at least 1 bin and 2 samples, got {bins} and {samples}"
        )
    place = np.searchsorted(
        np.quantile(chance, np.linspace(0, 1, bins + 1)[1:-1]), chance, side="right"
    )
    _, place = np.unique(place, return_inverse=True)  # without the empty ones
    names, label = np.unique(label, return_inverse=True)
    rows, said, seen = (
        _sums(label, place, values, len(names))
        for values in (np.ones_like(chance), chance, happened)
    )
    size = rows.sum(axis=0)
    predicted, observed = said.sum(axis=0) / size, seen.sum(axis=0) / size
    shares, gaps = [], []
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        drawn = times @ rows
        shares.append(np.where(drawn > 0, times @ seen, np.nan) / np.maximum(drawn, 1))
        gaps.append(np.abs((times - 1) @ (seen - said)).sum())
    error = np.nanstd(shares, axis=0, ddof=1)
    # Where all or none happened, the bootstrap error is 0: take that of right probabilities.
    alike = np.sqrt(predicted * (1 - predicted) / (rows > 0).sum(axis=0))
    error = np.where((observed > 0) & (observed < 1), error, alike)
    table = pd.DataFrame(
        {
            "predicted": predicted,
            "observed": observed,
            "error": error,
            "rows": size.astype(int),
        }
    )
    mean_gap = float(np.sum(size * np.abs(predicted - observed)) / len(chance))
    return Reliability(table, mean_gap, float(np.quantile(gaps, 0.95) / len(chance)))


def _sums(
    label: np.ndarray, place: np.ndarray, values: np.ndarray, clusters: int
) -> Float[np.ndarray, "cluster bin"]:
    made = np.zeros((clusters, place.max() + 1))
    np.add.at(made, (label, place), values)
    return made

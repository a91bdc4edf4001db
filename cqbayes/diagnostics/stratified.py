"""Shares of a whole from a sample that was drawn class by class, each with its own probability.

::

    share = sum_k W_k r_k / n_k,     W_k = N_k / N              Horvitz and Thompson 1952
    var   = sum_k W_k^2 (1 - n_k / N_k) q_k (1 - q_k) / n_k,    q_k = (r_k + 1/2) / (n_k + 1)

Of ``N_k`` units of class ``k``, ``n_k`` were drawn and looked at, and ``r_k`` of them are hits. The
share is unbiased; a class of which all or none are hits has an error above zero nevertheless. A
class of which nothing was drawn counts as one with its neighbour.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Stratum(NamedTuple):
    """A class of units.

    Attributes:
        size: units, at least as many as were drawn.
        drawn: of these looked at.
        hits: of those.
    """

    size: int
    drawn: int
    hits: int


def share_of_hits(strata: Sequence[Stratum]) -> tuple[float, float]:
    """The share of hits among all units, and its standard error; NaN where nothing was drawn.

    Example:
        >>> share, error = share_of_hits([Stratum(900, 90, 9), Stratum(100, 50, 25)])
        >>> round(share, 3), round(error, 3)
        (0.14, 0.028)
    """
    size, drawn, hits = _columns(strata)
    if not len(size):
        return np.nan, np.nan
    return float(size @ (hits / drawn) / size.sum()), _error(size, drawn, drawn, hits)


def error_with_more(strata: Sequence[Stratum], more: int) -> float:
    """The standard error of the share if so many more were drawn, by the root of the sizes."""
    size, drawn, hits = _columns(strata)
    added = more * np.sqrt(size) / np.sqrt(size).sum()
    return _error(size, drawn, np.minimum(drawn + added, size), hits)


def _error(size: np.ndarray, drawn: np.ndarray, then: np.ndarray, hits: np.ndarray) -> float:
    """The standard error of the share where ``then`` are drawn, by the hits among ``drawn``."""
    q = (hits + 0.5) / (drawn + 1)
    spread = (size / size.sum()) ** 2 * (1 - then / size) * q * (1 - q) / then
    return float(np.sqrt(spread.sum()))


class Part(NamedTuple):
    """The posterior of a share: its 5 percent quantile, median and 95 percent quantile."""

    low: float
    median: float
    high: float


def shares_of_classes(
    strata: Sequence[Stratum], among: Sequence[bool], seed: int = 0, draws: int = 4_000
) -> tuple[Part, Part]:
    """How many of the hits, and how many of the others, are in the classes named.

    The first is the sensitivity of a rule that flags those classes, the second one less its
    specificity. Ratios of few hits are far from normal, so these are posteriors: each unit of a
    class that was not drawn is a hit with a probability that is Beta(r + 1/2, n - r + 1/2).

    Args:
        strata: classes, in order.
        among: which are named.
        seed: decides the draws.
        draws: how many.
    """
    size, drawn, hits, named = _merged(strata, among)
    rng = np.random.default_rng(seed)
    q = rng.beta(hits + 0.5, drawn - hits + 0.5, (draws, len(size)))
    bad = hits + rng.binomial((size - drawn).astype(int), q)
    return _part(bad @ named, bad.sum(axis=1)), _part(
        (size - bad) @ named, (size - bad).sum(axis=1)
    )


def _part(some: np.ndarray, whole: np.ndarray) -> Part:
    """Of draws in which there is any; NaN where there is none."""
    drawn = some[whole > 0] / whole[whole > 0]
    return (
        Part(*np.quantile(drawn, [0.05, 0.5, 0.95]).tolist()) if len(drawn) else Part(*3 * [np.nan])
    )


def _columns(strata: Sequence[Stratum]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _merged(strata, [False] * len(strata))[:3]


def _merged(
    strata: Sequence[Stratum], among: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, drawn, hits, and the share that is named, of classes of which some was drawn."""
    rows = [[*one, one.size * flag] for one, flag in zip(strata, among, strict=True) if one.size]
    merged: list[np.ndarray] = []
    for row in np.array(rows, float).reshape(-1, 4):
        if merged and (not row[1] or not merged[-1][1]):
            merged[-1] = merged[-1] + row
        else:
            merged.append(row)
    some = np.array([row for row in merged if row[1]]).reshape(-1, 4)
    return some[:, 0], some[:, 1], some[:, 2], some[:, 3] / np.maximum(some[:, 0], 1)

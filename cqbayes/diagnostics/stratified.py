"""Shares of a whole from a sample that was drawn class by class, each with its own probability.

::

    share = sum_k W_k r_k / n_k,     W_k = N_k / N              Horvitz and Thompson 1952
    var   = sum_k W_k^2 (1 - n_k / N_k) q_k (1 - q_k) / n_k,    q_k = (r_k + 1/2) / (n_k + 1)

Of ``N_k`` units of class ``k``, ``n_k`` were drawn and looked at, and ``r_k`` of them are hits. The
share is unbiased; a class of which all or none are hits has an error above zero nevertheless.
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
    """The share of hits among all units, and its standard error; NaN where a class was left out.

    Example:
        >>> share, error = share_of_hits([Stratum(900, 90, 9), Stratum(100, 50, 25)])
        >>> round(share, 3), round(error, 3)
        (0.14, 0.028)
    """
    size, drawn, hits = _columns(strata)
    if not size.sum() or (drawn == 0).any():
        return np.nan, np.nan
    weight = size / size.sum()
    q = (hits + 0.5) / (drawn + 1)
    spread = weight**2 * (1 - drawn / size) * q * (1 - q) / drawn
    return float(weight @ (hits / drawn)), float(np.sqrt(spread.sum()))


def error_with_more(strata: Sequence[Stratum], more: int) -> float:
    """The standard error of the share if so many more were drawn, by the root of the sizes."""
    size, drawn, hits = _columns(strata)
    added = more * np.sqrt(size) / np.sqrt(size).sum()
    drawn_then = np.minimum(drawn + added, size)
    q = (hits + 0.5) / (drawn + 1)
    weight = size / size.sum()
    spread = weight**2 * (1 - drawn_then / size) * q * (1 - q) / drawn_then
    return float(np.sqrt(spread.sum()))


def shares_of_classes(
    strata: Sequence[Stratum], among: Sequence[bool], seed: int = 0, draws: int = 4_000
) -> dict[str, tuple[float, float]]:
    """How many of the hits, and of the others, are in the classes named, and standard errors.

    ``hits`` is the sensitivity of a rule that flags those classes, ``others`` is one less its
    specificity. Errors are by draws of each class's share, from Beta(r + 1/2, n - r + 1/2).
    """
    size, drawn, hits = _columns(strata)
    some = np.array([flag for flag, one in zip(among, strata, strict=True) if one.size])
    rng = np.random.default_rng(seed)
    q = rng.beta(hits + 0.5, drawn - hits + 0.5, (draws, len(size)))
    found = {}
    for name, share, drawn_share in (
        ("hits", hits / np.maximum(drawn, 1), q),
        ("others", 1 - hits / np.maximum(drawn, 1), 1 - q),
    ):
        whole = float(size @ share)
        at = float(size[some] @ share[some]) / whole if whole else np.nan
        spread = (drawn_share[:, some] @ size[some]) / (drawn_share @ size)
        found[name] = at, float(np.std(spread))
    return found


def _columns(strata: Sequence[Stratum]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without classes that have no units."""
    columns = np.array([one for one in strata if one.size], float).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2]

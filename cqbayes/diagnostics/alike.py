"""Whether groups differ in an ordered class, more than by chance: :func:`chance_if_alike`.

::

    Q = sum_s sum_j n_sj (mean_sj - mean_s)^2 / var_s

over strata ``s`` and groups ``j``, of the places of units in an order of classes; the law of ``Q``
where groups are alike is that of units dealt at random to the groups of their stratum. So it is
right at any counts, and where units were picked by their class, whatever the probabilities: picking
acts on all groups of a stratum in the same way.

Source: the mean score statistic of Landis, Heyman and Koch (1978), a sum over strata, with Fisher's
permutations in place of chi-squared.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import random_table

DRAWS = 4_000


def chance_if_alike(counts: Int[np.ndarray, "stratum group class"], seed: int = 0) -> float:
    """How probable groups that are alike make what differs as much as these, or more.

    Args:
        counts: of units.
        seed: decides the permutations.

    Returns:
        At least one over the number of permutations; 1 where nothing can differ.

    Example:
        >>> chance_if_alike(np.array([[[2, 8], [8, 2]]])) < 0.05 < chance_if_alike(
        ...     np.array([[[2, 3], [3, 2]]]))
        True
    """
    rng = np.random.default_rng(seed)
    found, drawn = 0.0, np.zeros(DRAWS)
    for table in counts:
        law = random_table(table.sum(axis=1), table.sum(axis=0), seed=rng)
        found += apart(table)
        drawn += apart(law.rvs(DRAWS))
    # Sums that are the same but for rounding are as far apart.
    return float((1 + (drawn >= found - 1e-9).sum()) / (1 + DRAWS))


def apart(table: Int[np.ndarray, "*draw group class"]) -> Float[np.ndarray, "*draw"]:
    """``Q`` of one stratum, by its counts; 0 where all units are of one class."""
    size, place = table.sum(axis=-1), np.arange(table.shape[-1])
    share = table.sum(axis=-2) / np.maximum(size.sum(axis=-1), 1)[..., None]
    mean = share @ place
    spread = share @ place**2 - mean**2
    between = size * np.square(table @ place / np.maximum(size, 1) - mean[..., None])
    varies = (share > 0).sum(axis=-1) > 1
    return np.where(varies, between.sum(axis=-1) / np.where(varies, spread, 1), 0.0)

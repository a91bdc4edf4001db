"""ArviZ's summary of a posterior, and the agreement of two posteriors."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import PRNGKeyArray

from cqbayes.diagnostics.reliability import Reliability, reliability
from cqbayes.posterior.datatree import to_datatree
from cqbayes.posterior.posteriors import Posterior

__all__ = ["Agreement", "Reliability", "agreement", "reliability", "summary", "to_datatree"]


def summary(posterior: Posterior, llms: list[str] | None = None) -> pd.DataFrame:
    """ArviZ's summary table: mean, sd, interval, ESS, R-hat and Monte Carlo errors.

    Where draws repeat, as resampled draws do, ESS and errors are those of the effective draws.
    """
    import arviz_stats

    tree = posterior.to_arviz(llms=llms)
    exact: Any = "none"  # ArviZ's word for unrounded, which its annotation does not know
    table = pd.DataFrame(arviz_stats.summary(tree, round_to=exact))
    effective = _effective(posterior)
    if effective is not None:
        for column in ("ess_bulk", "ess_tail"):
            table[column] = np.minimum(table[column], effective)
        table["mcse_mean"] = table["sd"] / np.sqrt(table["ess_bulk"])
        table["mcse_sd"] = table["sd"] / np.sqrt(2 * table["ess_bulk"])
    return table


def _effective(posterior: Posterior) -> float | None:
    effective = getattr(posterior, "effective", None)
    return None if effective is None else float(effective)


class Agreement(NamedTuple):
    """How far two posteriors lie apart.

    Attributes:
        mean_gap: root mean square difference of the means, in posterior standard deviations.
        mean_z: the same in Monte Carlo standard errors: about 1 where only Monte Carlo error
            separates them.
        worst_z: the largest difference of means in Monte Carlo standard errors.
        sd_ratio: geometric mean of the ratio of standard deviations, the first to the second.
    """

    mean_gap: float
    mean_z: float
    worst_z: float
    sd_ratio: float


def agreement(first: Posterior, second: Posterior) -> Agreement:
    """The agreement of two posteriors of one model on the same data, by draws of each."""
    mean_a, sd_a, ess_a = _moments(first, jax.random.key(1))
    mean_b, sd_b, ess_b = _moments(second, jax.random.key(2))
    z = (mean_a - mean_b) / np.sqrt(sd_a**2 / ess_a + sd_b**2 / ess_b)
    gap = (mean_a - mean_b) / sd_b
    return Agreement(
        mean_gap=float(np.sqrt(np.mean(gap**2))),
        mean_z=float(np.sqrt(np.mean(z**2))),
        worst_z=float(np.max(np.abs(z))),
        sd_ratio=float(np.exp(np.mean(np.log(sd_a / sd_b)))),
    )


def _moments(posterior: Posterior, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, standard deviations and effective draws of all parameters, ``[parameter]`` each."""
    import arviz_stats

    draws = posterior.to_arviz(key=key)["posterior"].dataset
    over = ("chain", "draw")
    tables = (draws.mean(over), draws.std(over), arviz_stats.ess(draws, method="mean"))
    mean, sd, ess = (
        np.concatenate([np.ravel(table[site]) for site in draws.data_vars]) for table in tables
    )
    effective = _effective(posterior)
    return mean, sd, ess if effective is None else np.minimum(ess, effective)

"""From traces to regret, waits and growth exponents, with standard errors over seeds.

::

    routing regret       sum_t max_S' v(x_t, S') - v(x_t, S_t)             for the query x_t served
    matching regret      sum_t max_{x', S'} v(x', S') - v(x_t, S_t)        over all x' that wait
    queue-length regret  Q(t) - Q*(t)                                      paired with the oracle's

``v`` is the departure probability, or the expected reward where answers have values. Let ``S^lin``
be the assortment that the best linear parameter would offer. Routing regret is the sum of::

    misspecification     sum_t max_S' v(x_t, S') - v(x_t, S^lin_t)
    learning cost        sum_t v(x_t, S^lin_t) - v(x_t, S_t)               may be negative
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Real
from scipy import stats

from cqbayes.environments.environment import Metrics
from cqbayes.errors import InputError
from cqbayes.simulation.loop import Trace

_UNITS = {
    "routing_regret": ("cumulative routing regret", "departures"),
    "matching_regret": ("cumulative matching regret", "departures"),
    "misspecification": ("routing regret of the best linear parameter", "departures"),
    "learning_cost": ("routing regret beyond the best linear parameter's", "departures"),
    "queue_length": ("waiting queries at the start of the round", "queries"),
    "queue_length_regret": ("queue length above the oracle's", "queries"),
}
_PERFORMANCE_UNITS = {
    "wait_mean": ("mean wait of the queries that departed", "rounds"),
    "wait_p95": ("95th percentile of the waits of the queries that departed", "rounds"),
    "wait_p99": ("99th percentile of the waits of the queries that departed", "rounds"),
    "wait_max": ("longest wait of a query that departed", "rounds"),
    "attempts": ("services per query that departed", "services"),
    "oldest_max": ("age of the oldest waiting query at its worst", "rounds"),
    "queue_length_mean": ("mean queue length at the start of a round", "queries"),
    "queue_length_tail": ("mean queue length over the last tenth of the rounds", "queries"),
    "services": ("queries served", "services"),
    "departures": ("queries that departed", "departures"),
    "cost_per_departure": ("cost of the answers per departure", "dollars per departure"),
    "utilisation": ("share of the rounds in which the LLM answered", "1"),
}


def regrets(
    traces: Mapping[str, Trace],
    oracle: str = "oracle",
    *,
    keep: Int[np.ndarray, " round"] | None = None,
) -> xr.Dataset:
    """Regret curves of several policies that met the same worlds.

    Args:
        traces: by policy name, all simulated with the same key, rounds and seeds.
        oracle: name of the trace that queue-length regret is measured against.
        keep: rounds to keep, from 1; all where absent.

    Returns:
        ``routing_regret``, ``matching_regret``, ``misspecification``, ``learning_cost``
        (cumulative), ``queue_length`` and ``queue_length_regret`` with dimensions ``policy``,
        ``seed``, ``round``. Misspecification and learning cost are NaN where the truth is not
        known to be linear and no best linear parameter was fitted (``Population.linear``).

    Raises:
        InputError: if the oracle is missing, or the traces saw different arrivals.
    """
    if oracle not in traces:
        raise InputError(f"regrets: expected a trace named {oracle!r}, got {', '.join(traces)}")
    arrivals = traces[oracle].metrics.arrived
    for name, trace in traces.items():
        if not np.array_equal(trace.metrics.arrived, arrivals):
            raise InputError(
                f"regrets: expected the arrivals of {oracle} in all traces, got others in {name}; "
                "simulate both with the same key, rounds and seeds"
            )
    num_seeds, services = len(arrivals), traces[oracle].services
    rounds = np.arange(1, arrivals.shape[1] // services + 1) if keep is None else np.asarray(keep)
    curves = {
        name: _curves(trace.metrics, traces[oracle].metrics, rounds, services)
        for name, trace in traces.items()
    }
    return xr.Dataset(
        {
            variable: xr.DataArray(
                np.stack([curves[policy][variable] for policy in traces]),
                dims=("policy", "seed", "round"),
                attrs={"long_name": long_name, "units": units},
            )
            for variable, (long_name, units) in _UNITS.items()
        },
        coords={
            "policy": list(traces),
            "seed": np.arange(num_seeds),
            "round": rounds,
        },
    )


def _curves(metrics: Metrics, oracle: Metrics, rounds: np.ndarray, services: int) -> dict[str, Any]:
    first, last = (rounds - 1) * services, rounds * services - 1

    def total(better: Any, worse: Any) -> np.ndarray:
        return np.cumsum(better - worse, axis=1, dtype=np.float64)[:, last]

    return {
        "routing_regret": total(metrics.best_for_query, metrics.value),
        "matching_regret": total(metrics.best_waiting, metrics.value),
        "misspecification": total(metrics.best_for_query, metrics.linear_for_query),
        "learning_cost": total(metrics.linear_for_query, metrics.value),
        "queue_length": metrics.queue_length[:, first],
        "queue_length_regret": (metrics.queue_length - oracle.queue_length)[:, first],
    }


def performance(traces: Mapping[str, Trace]) -> xr.Dataset:
    """Waits, queue lengths, departures and costs: one number per policy and seed.

    Returns:
        Dimensions ``policy``, ``seed`` (and ``llm`` for utilisation): waits in rounds of the
        queries that departed (mean, p95, p99, max), attempts per departed query, the age of the
        oldest waiting query at its worst, queue length at the start of a round (mean over all
        rounds, and over the last tenth), services, departures, cost in dollars per departure, and
        the share of rounds in which each LLM answered, once or more often.
    """
    rows = {name: _performance(trace.metrics, trace.services) for name, trace in traces.items()}
    first = next(iter(rows.values()))
    num_seeds, num_llms = first["utilisation"].shape
    return xr.Dataset(
        {
            variable: xr.DataArray(
                np.stack([rows[policy][variable] for policy in traces]),
                dims=("policy", "seed", "llm")[: 1 + first[variable].ndim],
                attrs={"long_name": long_name, "units": units},
            )
            for variable, (long_name, units) in _PERFORMANCE_UNITS.items()
        },
        coords={
            "policy": list(traces),
            "seed": np.arange(num_seeds),
            "llm": np.arange(num_llms),
        },
    )


def _performance(metrics: Metrics, services: int) -> dict[str, Any]:
    waits = [wait[gone] for wait, gone in zip(metrics.wait, metrics.departed, strict=True)]
    departures = metrics.departed.sum(axis=1)
    # Undefined, not zero, in a seed in which nothing departed.
    per_departure = np.where(departures > 0, 1 / np.maximum(departures, 1), np.nan)
    starts = np.arange(0, metrics.queue_length.shape[1], services)
    queue_length = metrics.queue_length[:, starts]
    tail = max(1, starts.size // 10)

    def over_waits(statistic) -> np.ndarray:
        return np.array([statistic(wait) if wait.size else np.nan for wait in waits])

    return {
        "wait_mean": over_waits(np.mean),
        "wait_p95": over_waits(lambda wait: np.quantile(wait, 0.95)),
        "wait_p99": over_waits(lambda wait: np.quantile(wait, 0.99)),
        "wait_max": over_waits(np.max),
        "attempts": metrics.attempts.sum(axis=1) * per_departure,
        "oldest_max": metrics.oldest.max(axis=1),
        "queue_length_mean": queue_length.mean(axis=1),
        "queue_length_tail": queue_length[:, -tail:].mean(axis=1),
        "services": metrics.served.sum(axis=1),
        "departures": departures,
        "cost_per_departure": metrics.cost.sum(axis=1, dtype=np.float64) * per_departure,
        "utilisation": np.logical_or.reduceat(metrics.offered, starts, axis=1).mean(axis=1),
    }


class Estimate(NamedTuple):
    """A mean over seeds and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.error:.2g}"


def over_seeds(values: Real[np.ndarray, " seed"]) -> Estimate:
    """Mean and standard error over seeds, leaving out seeds in which nothing departed."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return Estimate(np.nan, np.nan)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
    return Estimate(float(values.mean()), float(error))


class Exponent(NamedTuple):
    """A growth exponent with its 95 percent interval."""

    value: float
    low: float
    high: float


def growth_exponent(curve: Real[np.ndarray, "seed round"], num_points: int = 64) -> Exponent:
    """Slope of log mean regret against log t over the last 7/8 of the rounds.

    For cumulative curves. Least squares on ``num_points`` rounds equally spaced in log t; the
    interval is that of the delete-one jackknife over seeds, since rounds of one seed depend on each
    other. Its quantile is Student's t for this number of seeds.

    Raises:
        InputError: for fewer than two seeds, or a mean regret that is not positive there.

    Example:
        >>> t = np.arange(1.0, 1001.0)
        >>> round(growth_exponent(np.stack([np.sqrt(t), 2 * np.sqrt(t)])).value, 6)
        0.5
    """
    rounds = curve.shape[1]
    t = np.unique(np.geomspace(max(rounds // 8, 1), rounds, num_points).astype(int))
    return slope_of_logs(t, np.asarray(curve, np.float64)[:, t - 1])


def decay_exponent(curve: Real[np.ndarray, "seed round"], num_windows: int = 12) -> Exponent:
    """The growth exponent of curves of single rounds, such as queue-length regret.

    A single round is mostly noise, so means are taken over ``num_windows`` windows in the last 7/8
    of the rounds. The lengths of the windows grow in proportion to t.

    Raises:
        InputError: as :func:`growth_exponent`: a curve that has decayed to noise has no exponent.
    """
    rounds = curve.shape[1]
    ends = np.unique(np.geomspace(max(rounds // 8, 1), rounds, num_windows + 1).astype(int))
    return slope_of_logs(np.sqrt(ends[1:] * ends[:-1]), window_means(curve, ends))


def window_means(
    curve: Real[np.ndarray, "seed round"], ends: Int[np.ndarray, " end"]
) -> Float[np.ndarray, "seed window"]:
    """Means of a curve over windows: the rounds after one end, up to the next end."""
    totals = np.cumsum(curve, axis=1, dtype=np.float64)[:, ends - 1]
    return np.diff(totals, axis=1) / np.diff(ends)


def slope_of_logs(
    t: Real[np.ndarray, " point"], values: Float[np.ndarray, "seed point"]
) -> Exponent:
    """Slope of the log of the mean over seeds against log t, with a jackknife interval."""
    num_seeds = len(values)
    if num_seeds < 2:
        raise InputError(f"exponent: expected at least 2 seeds, got {num_seeds}")
    total = values.sum(axis=0)
    if (total <= 0).any():
        raise InputError(
            "exponent: expected positive mean regret over the last 7/8 of the rounds, got none"
        )
    log_t = np.log(t) - np.log(t).mean()

    def slope(mean: np.ndarray) -> float:
        return float(log_t @ np.log(np.maximum(mean, 1e-12)) / (log_t @ log_t))

    value = slope(total / num_seeds)
    without = np.array([slope((total - seed) / (num_seeds - 1)) for seed in values])
    reach = float(stats.t.ppf(0.975, num_seeds - 1) * jackknife_error(without))
    return Exponent(value, value - reach, value + reach)


def jackknife_error(without: Float[np.ndarray, "seed *rest"]) -> Float[np.ndarray, "*rest"]:
    """The jackknife standard error of a statistic, from its values without each of the seeds.

    ::

        sqrt((n - 1) / n sum_i (s_i - mean s)^2)

    Source: Efron and Stein, The jackknife estimate of variance, 1981.

    Example:
        >>> values = np.array([1.0, 2.0, 4.0])
        >>> bool(np.isclose(jackknife_error((7 - values) / 2), values.std(ddof=1) / np.sqrt(3)))
        True
    """
    num_seeds = len(without)
    squares = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
    return np.sqrt((num_seeds - 1) / num_seeds * squares)

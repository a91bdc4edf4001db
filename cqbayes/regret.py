"""From traces to regret, waits and growth exponents, with standard errors over seeds.

::

    routing regret       sum_t max_S' p(x_t, S') - p(x_t, S_t)             for the query x_t served
    matching regret      sum_t max_{x', S'} p(x', S') - p(x_t, S_t)        over all x' that wait
    queue-length regret  Q(t) - Q*(t)                                      paired with the oracle's
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Real
from scipy import stats

from cqbayes.environments import Metrics
from cqbayes.errors import InputError
from cqbayes.simulate import Trace

_UNITS = {
    "routing_regret": ("cumulative routing regret", "departures"),
    "matching_regret": ("cumulative matching regret", "departures"),
    "queue_length": ("waiting queries at the start of the round", "queries"),
    "queue_length_regret": ("queue length above the oracle's", "queries"),
}


def regrets(traces: Mapping[str, Trace], oracle: str = "oracle") -> xr.Dataset:
    """Regret curves of several policies that met the same worlds.

    Args:
        traces: by policy name, all simulated with the same key, rounds and seeds.
        oracle: name of the trace that queue-length regret is measured against.

    Returns:
        ``routing_regret``, ``matching_regret`` (cumulative), ``queue_length`` and
        ``queue_length_regret`` with dimensions ``policy``, ``seed``, ``round``.

    Raises:
        InputError: if the oracle is missing, or the traces saw different arrivals.
    """
    if oracle not in traces:
        raise InputError(f"regrets: expected a trace named {oracle!r}, got {', '.join(traces)}")
    arrivals = traces[oracle].metrics.arrived
    for name, trace in traces.items():
        if not np.array_equal(trace.metrics.arrived, arrivals):
            raise InputError(
                f"regrets: expected the arrivals of {oracle}, {name} saw others; "
                "simulate both with the same key, rounds and seeds"
            )
    curves = {
        name: _curves(trace.metrics, traces[oracle].metrics) for name, trace in traces.items()
    }
    num_seeds, rounds = arrivals.shape
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
            "round": np.arange(1, rounds + 1),
        },
    )


def _curves(metrics: Metrics, oracle: Metrics) -> dict[str, Any]:
    achieved = metrics.departure_probability.astype(np.float64)
    return {
        "routing_regret": np.cumsum(metrics.best_for_query - achieved, axis=1),
        "matching_regret": np.cumsum(metrics.best_waiting - achieved, axis=1),
        "queue_length": metrics.queue_length,
        "queue_length_regret": metrics.queue_length - oracle.queue_length,
    }


def performance(traces: Mapping[str, Trace]) -> xr.Dataset:
    """What users and operators feel, one number per policy and seed.

    Returns:
        Dimensions ``policy``, ``seed`` (and ``llm`` for utilisation): waits in rounds of the
        queries that departed (mean, p95, p99, max), attempts per departed query, the age of the
        oldest waiting query at its worst, mean and final queue length, services, cost in dollars
        per departure, and the share of rounds in which each LLM answered.
    """
    rows = {name: _performance(trace.metrics) for name, trace in traces.items()}
    variables = next(iter(rows.values()))
    return xr.Dataset(
        {
            variable: (
                ("policy", "seed", "llm")[: 1 + variables[variable].ndim],
                np.stack([rows[policy][variable] for policy in traces]),
            )
            for variable in variables
        },
        coords={"policy": list(traces)},
    )


def _performance(metrics: Metrics) -> dict[str, Any]:
    waits = [wait[gone] for wait, gone in zip(metrics.wait, metrics.departed, strict=True)]
    departures = metrics.departed.sum(axis=1)
    # Undefined, not zero, in a seed in which nothing departed.
    per_departure = np.where(departures > 0, 1 / np.maximum(departures, 1), np.nan)
    tail = max(1, metrics.queue_length.shape[1] // 10)

    def over_waits(statistic) -> np.ndarray:
        return np.array([statistic(wait) if wait.size else np.nan for wait in waits])

    return {
        "wait_mean": over_waits(np.mean),
        "wait_p95": over_waits(lambda wait: np.quantile(wait, 0.95)),
        "wait_p99": over_waits(lambda wait: np.quantile(wait, 0.99)),
        "wait_max": over_waits(np.max),
        "attempts": metrics.attempts.sum(axis=1) * per_departure,
        "oldest_max": metrics.oldest.max(axis=1),
        "queue_length_mean": metrics.queue_length.mean(axis=1),
        "queue_length_tail": metrics.queue_length[:, -tail:].mean(axis=1),
        "services": metrics.served.sum(axis=1),
        "departures": metrics.departed.sum(axis=1),
        "cost_per_departure": metrics.cost.sum(axis=1, dtype=np.float64) * per_departure,
        "utilisation": metrics.offered.mean(axis=1),
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

    Least squares on ``num_points`` rounds equally spaced in log t; the interval is the delete-one
    jackknife's over seeds, since rounds of one seed are anything but independent, with the
    quantile of Student's t for as many seeds.

    Raises:
        InputError: for fewer than two seeds, or a mean regret that is not positive there.

    Example:
        >>> t = np.arange(1.0, 1001.0)
        >>> round(growth_exponent(np.stack([np.sqrt(t), 2 * np.sqrt(t)])).value, 6)
        0.5
    """
    curve = np.asarray(curve, np.float64)
    num_seeds, rounds = curve.shape
    if num_seeds < 2:
        raise InputError(f"growth_exponent: expected at least 2 seeds, got {num_seeds}")
    t = np.unique(np.geomspace(max(rounds // 8, 1), rounds, num_points).astype(int))
    points = curve[:, t - 1]
    total = points.sum(axis=0)
    if (total <= 0).any():
        raise InputError("growth_exponent: expected positive mean regret over the last 7/8 rounds")
    log_t = np.log(t) - np.log(t).mean()

    def slope(mean: np.ndarray) -> float:
        return float(log_t @ np.log(np.maximum(mean, 1e-12)) / (log_t @ log_t))

    value = slope(total / num_seeds)
    without = np.array([slope((total - seed) / (num_seeds - 1)) for seed in points])
    error = np.sqrt((num_seeds - 1) / num_seeds * np.sum((without - without.mean()) ** 2))
    reach = float(stats.t.ppf(0.975, num_seeds - 1) * error)
    return Exponent(value, value - reach, value + reach)

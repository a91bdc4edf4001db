"""Pictures of regret, queues and waits."""

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cqbayes._tools.figure import COLOURS, STYLE


def _colours(policies: list[str]) -> dict[str, str]:
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(policies)}


def _curve(axes: Axes, values: xr.DataArray, label: str, colour: str) -> None:
    """Mean over seeds with a band of two standard errors."""
    mean = values.mean("seed")
    error = values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
    t = values["round"].values
    axes.plot(t, mean, label=label, color=colour, linewidth=1.6)
    axes.fill_between(t, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.18, linewidth=0)


def regret_figure(curves: xr.Dataset, title: str) -> Figure:
    """Routing regret, matching regret, queue length, queue-length regret against rounds."""
    # At most about 600 points a curve: more are not seen.
    step = max(1, curves.sizes["round"] // 600)
    smooth = curves.rolling(round=step, center=True, min_periods=1).mean() if step > 1 else curves
    thin = smooth.isel(round=slice(step - 1, None, step))
    policies = [str(name) for name in curves["policy"].values]
    colours = _colours(policies)
    panels = [
        ("routing_regret", "Cumulative routing regret", "expected departures lost"),
        ("matching_regret", "Cumulative matching regret", "expected departures lost"),
        ("queue_length", "Queue length", "waiting queries"),
        ("queue_length_regret", "Queue length above the oracle's", "queries"),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 7.2), layout="constrained")
        grid = figure.subplots(2, 2)
        for axes, (variable, heading, units) in zip(grid.flat, panels, strict=True):
            for name in policies:
                if variable.endswith("regret") and name == "oracle":
                    continue
                _curve(axes, thin[variable].sel(policy=name), name, colours[name])
            axes.set(title=heading, ylabel=units, xlabel="round")
            if variable.startswith("queue"):
                axes.set_yscale("symlog", linthresh=1)
            if variable == "queue_length":
                axes.set_ylim(bottom=0)  # bands may reach below, queues do not
        handles, labels = grid[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7))
        figure.suptitle(
            f"{title}\nmean over {curves.sizes['seed']} seeds, bands ±2 standard errors"
        )
    return figure


def wait_figure(performance: xr.Dataset, title: str) -> Figure:
    """Waiting time (mean, p95, p99) per policy, with standard errors."""
    policies = [str(name) for name in performance["policy"].values]
    measures = [
        ("wait_mean", "mean"),
        ("wait_p95", "95th percentile"),
        ("wait_p99", "99th percentile"),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.45 * len(policies) + 1.9), layout="constrained")
        axes = figure.subplots()
        place = np.arange(len(policies))
        for i, (variable, label) in enumerate(measures):
            values = performance[variable]
            error = values.std("seed", ddof=1) / np.sqrt(values.sizes["seed"])
            axes.errorbar(
                values.mean("seed"),
                place + 0.22 * (i - 1),
                xerr=2 * error,
                fmt="o",
                color=COLOURS[i],
                label=label,
                capsize=2,
                markersize=5,
            )
        axes.set(
            yticks=place,
            yticklabels=policies,
            xscale="log",
            xlabel="rounds from arrival to departure, of queries that departed (log scale)",
        )
        axes.invert_yaxis()
        axes.legend()
        axes.set_title(title)
    return figure

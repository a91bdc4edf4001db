"""Pictures: regret curves, queues and posteriors. The only place that imports Matplotlib."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cqbayes.files import replacing

# Okabe and Ito's palette: told apart by colour-blind readers, and in print.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "figure.dpi": 120,
}


def _colours(policies: list[str]) -> dict[str, str]:
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(policies)}


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
    with mpl.rc_context(_STYLE):
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
    with mpl.rc_context(_STYLE):
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
                color=_COLOURS[i],
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


def forest_figure(trees: Mapping[str, Any], title: str) -> Figure:
    """ArviZ's forest of every parameter under several posteriors, side by side."""
    import arviz_base
    import arviz_plots

    # ArviZ lines posteriors up draw by draw: as one chain each, of the same length.
    draws = {
        name: arviz_base.extract(tree, combined=False).stack(sample=("chain", "draw"))
        for name, tree in trees.items()
    }
    shortest = min(posterior.sizes["sample"] for posterior in draws.values())
    aligned = {
        name: arviz_base.from_dict(
            {
                "posterior": {
                    site: posterior[site].transpose("sample", ...).values[None, :shortest]
                    for site in posterior.data_vars
                }
            },
            coords={c: posterior[c].values for c in posterior.dims if c != "sample"},
            dims={s: [d for d in posterior[s].dims if d != "sample"] for s in posterior.data_vars},
        )
        for name, posterior in draws.items()
    }
    first = next(iter(aligned.values()))["posterior"].dataset
    rows = sum(first[site].size // shortest for site in first.data_vars)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        collection = arviz_plots.plot_forest(
            aligned,
            combined=True,
            backend="matplotlib",
            figure_kwargs={"figsize": (11, 1.5 + 0.24 * rows), "width_ratios": [3, 4]},
        )
        collection.add_legend("model")
        figure = _figure_of(collection)
        figure.suptitle(title, y=1.0)
    return figure


def rank_figure(tree: Any, title: str, variable: str = "intercept") -> Figure:
    """ArviZ's rank plots: chains that mix stay inside the grey band."""
    import arviz_plots

    values = tree["posterior"][variable]
    rows = math.ceil(values.size / (values.sizes["chain"] * values.sizes["draw"]) / 4)  # of ArviZ
    with mpl.rc_context(_STYLE):
        collection = arviz_plots.plot_rank(
            tree,
            var_names=[variable],
            backend="matplotlib",
            figure_kwargs={"figsize": (11, 0.8 + 2.2 * rows)},
        )
        figure = _figure_of(collection)
        figure.suptitle(title)
        figure.tight_layout()
    return figure


def _figure_of(collection: Any) -> Figure:
    return collection.viz["figure"].item()


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    return path

"""Pictures of posteriors, by ArviZ."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from cqbayes._tools.figure import STYLE


def forest_figure(trees: Mapping[str, Any], title: str) -> Figure:
    """ArviZ's forest of every parameter under several posteriors, side by side."""
    import arviz_base
    import arviz_plots

    # ArviZ aligns posteriors draw by draw, so each becomes one chain of the same length.
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
    with mpl.rc_context({**STYLE, "axes.grid": False}):
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
    with mpl.rc_context(STYLE):
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

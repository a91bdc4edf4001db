"""Colours, style and saving of all figures."""

from pathlib import Path

from matplotlib.figure import Figure

from cqbayes._tools.files import replacing

# Okabe and Ito's palette: colour-blind readers can tell these colours apart, also in print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]


STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "figure.dpi": 120,
}


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as PNG and returns its path; a failed write leaves no partial file."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight")
    return path

"""An analysis executed as a notebook, as one HTML file with its outputs and pictures.

    python analyses/export/to_html.py bursty_arrivals [--out FOLDER] [--smoke --seed 1 ...]

All but ``--out`` goes to the analysis, whose own files are put beside the HTML. Needs the extra
``notebooks``. (Not called html.py: run as a script it would stand before Python's own ``html``.)
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from traitlets.config import Config

from cqbayes import InputError, replacing, writable_folder

ANALYSES = Path(__file__).resolve().parents[1]
HIDDEN = "hidden"
# What a script finds when it starts, and pictures shown where they are saved.
PREAMBLE = """
import sys
sys.argv = {argv!r}
import matplotlib
matplotlib.use("agg")
import IPython.display
import cqbayes.plots
_save = cqbayes._tools.figure.save
def _save_and_show(figure, path):
    IPython.display.display(IPython.display.Image(filename=str(_save(figure, path))))
    return path
cqbayes._tools.figure.save = _save_and_show
"""


def notebook(path: Path, arguments: list[str]) -> Any:
    """A percent-format script as a notebook that finds ``arguments`` in ``sys.argv``."""
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in ANALYSES.glob("*.py")))
        raise InputError(f"analysis: expected one of {known}, got {path.stem!r}")
    made = jupytext.read(path)
    first = PREAMBLE.format(argv=[str(path), *arguments])
    cell = jupytext.reads(first, fmt="py:percent").cells[0]
    cell.metadata["tags"] = [HIDDEN]
    made.cells.insert(0, cell)
    return made


def without_progress(made: Any) -> Any:
    """Progress bars and warnings belong on a screen; an error stops the run before this."""
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return made


def execute(made: Any, folder: Path) -> Any:
    """Runs all cells in one kernel, in ``folder``; the first error is raised."""
    client = NotebookClient(
        made, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    asyncio.run(client.async_execute())
    return made


def to_html(made: Any, title: str) -> str:
    """One file: pictures inside, the preamble left out."""
    config = Config()
    config.TagRemovePreprocessor.remove_cell_tags = {HIDDEN}
    config.TagRemovePreprocessor.enabled = True
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    config.HTMLExporter.embed_images = True
    made.metadata["title"] = title
    return HTMLExporter(config=config).from_notebook_node(made)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Executes an analysis and writes it as HTML.")
    parser.add_argument("name", help="of a file of analyses/, without .py")
    parser.add_argument("--out", type=Path, default=Path("out/html"))
    settings, arguments = parser.parse_known_args()
    out = writable_folder(settings.out).resolve()
    results = ["--out", str(out / settings.name)]
    made = notebook(ANALYSES / f"{settings.name}.py", [*arguments, *results])
    html = to_html(without_progress(execute(made, out)), settings.name)
    target = out / f"{settings.name}.html"
    with replacing(target) as temporary:
        temporary.write_text(html, encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()

"""``cqbayes data``: which data sets there are, and their files."""

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(help="Data sets: which there are, and their files.", no_args_is_help=True)


@data_app.command("list")
def list_data() -> None:
    """Which data sets there are, and whether their files are there."""
    from cqbayes.datasets.files import data_folder, data_set_names, load_card, state

    rows = [("name", "LLMs", "queries", "licence", "files")]
    for name in data_set_names():
        known = load_card(name)
        rows.append((name, str(known.llms), known.queries, known.licence, state(name)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())
    typer.echo(f"\nfolder  {data_folder()}")


@data_app.command("get")
def get_data(
    name: Annotated[str, typer.Argument(help="A data set of cqbayes data list.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to put the files; default: where they are looked for."),
    ] = None,
) -> None:
    """Downloads the files of a data set that are not there yet."""
    from cqbayes.datasets.files import get

    for path in get(name, folder, progress=True):
        typer.echo(path)

"""``cqbayes sweep``: many simulations of a file, into a folder."""

from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import MOST_LINES


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep, in TOML or JSON.")],
    out: Annotated[Path, typer.Option(help="Folder for results; one that was begun goes on.")],
    executor: Annotated[str, typer.Option(help="processes, ray or serial.")] = "processes",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time; default: one a core.")
    ] = None,
) -> None:
    """Runs many policies in many environments; can be killed and goes on."""
    from cqbayes.sweep.run import report, run_sweep
    from cqbayes.sweep.settings import read_sweep

    outcomes = run_sweep(read_sweep(file), out, executor=executor, jobs=jobs, progress=True)
    for line in report(outcomes, MOST_LINES):
        typer.echo(line)
    failed = [one for one in outcomes if one.state == "failed"]
    for one in failed[:MOST_LINES]:
        typer.echo(f"cqbayes: cell {one.cell.identity()} failed: {one.reason}", err=True)
    if failed:
        raise typer.Exit(1)

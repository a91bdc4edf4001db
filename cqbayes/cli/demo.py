"""``cqbayes demo``: the whole loop."""

from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import Seed


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and pictures.")] = Path(
        "out/demo"
    ),
    smoke: Annotated[bool, typer.Option(help="A tiny run that proves nothing.")] = False,
    seed: Seed = 0,
) -> None:
    """The whole loop on real answers of real LLMs, with simulated users."""
    from cqbayes.report.demo import SMOKE, DemoSettings
    from cqbayes.report.demo import demo as run

    outcome = run(out, (SMOKE if smoke else DemoSettings())._replace(seed=seed))
    for name, value in outcome.numbers.items():
        typer.echo(f"{value:>22}  {name}")
    typer.echo(f"\nreport    {outcome.report}")
    for path in outcome.files:
        typer.echo(f"          {path}")

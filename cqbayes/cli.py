"""The command line. Nothing heavy is imported before a command runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cqbayes.errors import InputError

app = typer.Typer(
    help="Bayesian preference models of user retrials, and the queues that they route.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

MOST_LINES = 60  # of a summary
Seed = Annotated[int, typer.Option(help="Decides all randomness.", min=0, max=2**32 - 1)]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and pictures.")] = Path(
        "out/demo"
    ),
    smoke: Annotated[bool, typer.Option(help="A tiny run that proves nothing.")] = False,
    seed: Seed = 0,
) -> None:
    """The whole loop on real answers of real LLMs, with simulated users."""
    from cqbayes.demo import SMOKE, Settings
    from cqbayes.demo import demo as run

    outcome = run(out, (SMOKE if smoke else Settings())._replace(seed=seed))
    for name, value in outcome.numbers.items():
        typer.echo(f"{value:>22}  {name}")
    typer.echo(f"\nreport    {outcome.report}")
    for path in outcome.files:
        typer.echo(f"          {path}")


@app.command()
def fit(
    log: Annotated[Path, typer.Argument(help="Choice data in Parquet.")],
    model: Annotated[str, typer.Option(help="A file of models/.")] = "disjoint_mnl",
    engine: Annotated[str, typer.Option(help="auto, laplace, hmc, nuts, svi or online.")] = "auto",
    out: Annotated[Path, typer.Option(help="Posterior: .nc or .zarr.")] = Path("out/fit.nc"),
    seed: Seed = 0,
) -> None:
    """Fits a preference model to logged retrials."""
    import jax

    from cqbayes.catalogue import load_engine, load_model
    from cqbayes.diagnostics import summary
    from cqbayes.files import writable_file
    from cqbayes.inference import infer
    from cqbayes.logs import read_choices
    from cqbayes.preference import check_data
    from cqbayes.progress import bar
    from cqbayes.storage import save_posterior

    chosen = load_model(model)
    load_engine(engine)
    data, llms = read_choices(log)
    check_data(chosen, data)
    writable_file(out, inputs=(log,), folder_too=out.suffix == ".zarr")
    with bar(f"fit: {engine}", total=1) as advance:
        posterior, info = infer(jax.random.key(seed), chosen, data, engine=engine)
        advance(1)
    save_posterior(out, posterior, info, data=data, llms=llms, seed=seed)
    table = summary(posterior, llms).round(3)
    typer.echo(table.head(MOST_LINES).to_string())
    if len(table) > MOST_LINES:
        typer.echo(f"... and {len(table) - MOST_LINES} more: arviz_stats.summary of {out}")
    typer.echo(f"\n{info}\nposterior {out}")
    if not info.ok:
        typer.echo(f"cqbayes: not to be relied on: {info.verdict.meaning}", err=True)
        raise typer.Exit(1)


@app.command()
def simulate(
    policy: Annotated[
        list[str], typer.Option(help="Policy to run; repeat for more. Default: acqb, random.")
    ] = ["acqb", "random"],  # noqa: B006  (typer's way to give a default)
    data: Annotated[str, typer.Option(help="synthetic, or a folder of data/.")] = "synthetic",
    posterior: Annotated[
        str, typer.Option(help="What feeds the Thompson step: online, laplace, hmc, nuts or svi.")
    ] = "online",
    rounds: Annotated[int, typer.Option(min=1)] = 5_000,
    seeds: Annotated[int, typer.Option(min=2, help="Independent repetitions.")] = 32,
    slate_size: Annotated[int, typer.Option(help="Most LLMs that answer one query.")] = 1,
    arrival_rate: Annotated[
        float | None, typer.Option(help="Arrivals per round; default: capacity minus slack.")
    ] = None,
    slack: Annotated[float, typer.Option(help="Distance from capacity.")] = 0.1,
    trace: Annotated[
        Path | None, typer.Option(help="Arrivals like those of a trace: Parquet with times t_s.")
    ] = None,
    trace_name: Annotated[
        str | None, typer.Option(help="Which one, where the file holds several.")
    ] = None,
    llms: Annotated[int, typer.Option(min=1, help="LLMs of the synthetic truth.")] = 5,
    dim: Annotated[int, typer.Option(min=1, help="Dimensions of a context.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for results and pictures.")] = Path(
        "out/simulate"
    ),
    unstable: Annotated[
        bool, typer.Option(help="Allow more arrivals than anybody can serve.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Runs policies against the oracle in the retrial queue."""
    from cqbayes.simulation_study import run

    for line in run(
        policies=policy,
        data=data,
        posterior=posterior,
        rounds=rounds,
        num_seeds=seeds,
        slate_size=slate_size,
        arrival_rate=arrival_rate,
        slack=slack,
        num_llms=llms,
        dim=dim,
        out=out,
        seed=seed,
        unstable=unstable,
        trace=trace,
        trace_name=trace_name,
    ):
        typer.echo(line)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep, in TOML or JSON.")],
    out: Annotated[Path, typer.Option(help="Folder for results; one that was begun goes on.")],
    engine: Annotated[str, typer.Option(help="processes, ray or serial.")] = "processes",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time; default: one a core.")
    ] = None,
) -> None:
    """Runs many policies in many environments; can be killed and goes on."""
    from cqbayes.sweep import read_settings
    from cqbayes.sweep.run import report, run_sweep

    outcomes = run_sweep(read_settings(file), out, engine=engine, jobs=jobs, progress=True)
    for line in report(outcomes, MOST_LINES):
        typer.echo(line)
    failed = [one for one in outcomes if one.state == "failed"]
    for one in failed[:MOST_LINES]:
        typer.echo(f"cqbayes: cell {one.cell.identity()} failed: {one.reason}", err=True)
    if failed:
        raise typer.Exit(1)


data_app = typer.Typer(help="Data sets: which there are, and their files.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("list")
def list_data() -> None:
    """Which data sets there are, and whether their files are there."""
    from cqbayes.catalogue import names
    from cqbayes.datasets import card, data_folder, state

    rows = [("name", "LLMs", "queries", "licence", "files")]
    for name in names("data"):
        known = card(name)
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
    """Downloads the files of a data set; what was begun goes on."""
    from cqbayes.datasets import get

    for path in get(name, folder, progress=True):
        typer.echo(path)


def main() -> None:
    """Runs a command; bad input is one line on standard error and exit code 2."""
    try:
        app()
    except InputError as error:
        typer.echo(f"cqbayes: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

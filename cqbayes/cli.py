"""The command line. Nothing heavy is imported before a command runs."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

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
    log: Annotated[Path, typer.Argument(help="A log: a file, or a folder of files.")],
    format: Annotated[
        str, typer.Option(help="services, choices, or an importer, such as litellm.")
    ] = "auto",
    model: Annotated[str, typer.Option(help="A file of models/.")] = "disjoint_mnl",
    engine: Annotated[str, typer.Option(help="auto, laplace, hmc, nuts, svi or online.")] = "auto",
    out: Annotated[Path, typer.Option(help="Posterior: .nc or .zarr.")] = Path("out/fit.nc"),
    dim: Annotated[int, typer.Option(min=1, help="Dimensions of contexts made of text.")] = 16,
    encoder: Annotated[
        str | None,
        typer.Option(help="A sentence-transformers model; constant leaves text alone."),
    ] = None,
    last: Annotated[
        str, typer.Option(help="Last turns without a sign: taken, silent or drop.")
    ] = "drop",
    threshold: Annotated[
        float, typer.Option(help="Probability of a retrial, from which on.")
    ] = 0.5,
    trust_labels: Annotated[
        bool, typer.Option(help="Take inferred retrials for what users did.")
    ] = False,
    time: Annotated[
        str | None, typer.Option(help="Blocks of time, for models that drift: h, D or W.")
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(help="CSV with llm and numbers of each, for models that use them."),
    ] = None,
    rename: Annotated[
        list[str], typer.Option(help="A column of the log and its name here: id=query_id.")
    ] = [],  # noqa: B006  (typer's way to give a default)
    sort: Annotated[
        bool, typer.Option(help="Put rows in order first; needs the extra logs.")
    ] = False,
    quarantine: Annotated[
        Path | None, typer.Option(help="JSON Lines for what is set aside; holds users' text.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first row that is not sound.")] = False,
    seed: Seed = 0,
) -> None:
    """Fits a preference model to logged retrials."""
    from cqbayes.catalogue import load_engine, load_model
    from cqbayes.diagnostics import summary
    from cqbayes.files import writable_file
    from cqbayes.logs import fitting
    from cqbayes.preference import check_data
    from cqbayes.progress import bar
    from cqbayes.storage import save_posterior

    chosen = load_model(model)
    load_engine(engine)
    if out.suffix not in (".nc", ".zarr"):
        raise InputError(f"{out}: expected a name that ends in .nc or .zarr")
    if "time" in chosen.needs and time is None:
        raise InputError(f"model {model}: expected blocks of time: --time W, for weeks")
    known = None if attributes is None else fitting.read_attributes(attributes)
    found = fitting.read_log(
        log,
        format=format,
        dim=dim,
        encoder=encoder,
        last=last,  # pyright: ignore[reportArgumentType]
        threshold=threshold,
        time=time,
        attributes=None if known is None else known.of,
        rename=fitting.renaming(rename),
        sort=sort,
        quarantine=quarantine,
        strict=strict,
        progress=True,
    )
    if not trust_labels:
        chosen = fitting.aware(chosen, found)
    if "attributes" in chosen.needs and found.data.attributes is None:
        raise InputError(f"model {model}: expected numbers for each LLM: --attributes FILE")
    check_data(chosen, found.data)
    writable_file(out, folder_too=out.suffix == ".zarr")
    for line in fitting.told(found):
        typer.echo(line)
    typer.echo(f"model {chosen!r}\n")
    llms = list(found.llms)
    with bar(f"fit: {engine}", total=1) as advance:
        fitted = fitting.fit_to(found, chosen, engine=engine, seed=seed)
        advance(1)
    save_posterior(out, fitted.posterior, fitted.info, data=found.data, llms=llms, seed=seed)
    beside = fitting.save_contexts(out, found)
    codes = fitting.save_codes(out, found, chosen.needs, known)
    table = summary(fitted.posterior, llms).round(3)
    typer.echo(table.head(MOST_LINES).to_string())
    if len(table) > MOST_LINES:
        typer.echo(f"... and {len(table) - MOST_LINES} more: arviz_stats.summary of {out}")
    typer.echo("\nprobability that an LLM's answer is taken, over the log's queries")
    typer.echo(fitting.shown(fitted.acceptance(seed=seed)).head(MOST_LINES).to_string())
    typer.echo(f"\n{fitted.info}\nposterior {out}")
    if beside is not None:
        typer.echo(f"contexts  {beside}")
    if codes is not None:
        typer.echo(f"codes     {codes}")
    if not fitted.info.ok:
        typer.echo(f"cqbayes: not to be relied on: {fitted.info.verdict.meaning}", err=True)
        raise typer.Exit(1)


@app.command()
def predict(
    posterior: Annotated[Path, typer.Argument(help="What cqbayes fit wrote: .nc or .zarr.")],
    queries: Annotated[
        Path,
        typer.Argument(
            help=".txt, one query a line; .jsonl or .parquet with text or embedding, and with "
            "user_id, timestamp or attempt where the model needs them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Table of all queries, CSV.")] = Path("out/predict.csv"),
    without: Annotated[
        str | None,
        typer.Option(help="What if this LLM, by name or number, answered no more? Shares."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The one that the log was fitted with, if not the default.")
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(help="CSV with llm and numbers of each, for models that use them."),
    ] = None,
    newcomer: Annotated[
        bool, typer.Option(help="Add an LLM that no data are known of; needs a hierarchy.")
    ] = False,
    probability: Annotated[float, typer.Option(help="That the intervals hold.")] = 0.9,
    seed: Seed = 0,
) -> None:
    """How probably users take each LLM's answer to new queries, and what-ifs."""
    from cqbayes.files import replacing, writable_file
    from cqbayes.logs import fitting

    beside = (fitting.contexts_of(posterior), fitting.codes_path(posterior))
    given = () if attributes is None else (attributes,)
    writable_file(out, inputs=(posterior, queries, *beside, *given))
    overall, rows = fitting.predicted(
        posterior,
        queries,
        without=without,
        newcomer=newcomer,
        encoder=encoder,
        attributes=None if attributes is None else fitting.read_attributes(attributes),
        probability=probability,
        seed=seed,
    )
    typer.echo(overall.head(MOST_LINES).to_string())
    with replacing(out) as temporary:
        rows.to_csv(temporary, index=False)
    typer.echo(f"\neach query  {out}")


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
    before, code = signal.signal(signal.SIGTERM, _terminated), 0
    try:
        app()
    except InputError as error:
        typer.echo(f"cqbayes: {error}", err=True)
        code = 2
    except _Terminated:
        code = 128 + signal.SIGTERM
    except SystemExit as stop:  # of typer, which turns Ctrl-C into it too
        code = stop.code
    finally:
        signal.signal(signal.SIGTERM, before)
    # Out here the frames that failed are gone, and with them what they had begun to write.
    if code:
        sys.exit(code)


class _Terminated(BaseException):
    """SIGTERM, which ends a command as Ctrl-C does: what it has begun to write is removed."""


def _terminated(number: int, frame: Any) -> NoReturn:
    raise _Terminated


if __name__ == "__main__":
    main()

"""``cqbayes fit``: from a log to a posterior on disk."""

from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import MOST_LINES, Seed
from cqbayes.errors import InputError


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
    from cqbayes._tools.files import writable_file
    from cqbayes._tools.progress import progress_bar
    from cqbayes.diagnostics.summary import summary
    from cqbayes.inference.infer import load_engine
    from cqbayes.logs.codes import read_attributes, save_codes
    from cqbayes.logs.describe import acceptance_table, describe_log, parse_renames
    from cqbayes.logs.fit import fit_to, with_label_errors
    from cqbayes.logs.predictions import save_contexts
    from cqbayes.logs.read import TableOptions, TextOptions, TurnOptions, read_log
    from cqbayes.posterior.storage import save_posterior
    from cqbayes.preference import check_data, load_model

    chosen = load_model(model)
    load_engine(engine)
    if out.suffix not in (".nc", ".zarr"):
        raise InputError(f"{out}: expected a name that ends in .nc or .zarr")
    if "time" in chosen.needs and time is None:
        raise InputError(f"model {model}: expected blocks of time: --time W, for weeks")
    known = None if attributes is None else read_attributes(attributes)
    found = read_log(
        log,
        format=format,
        text=TextOptions(dim, encoder),
        turns=TurnOptions(last, threshold),  # pyright: ignore[reportArgumentType]
        table=TableOptions(parse_renames(rename), sort),
        time=time,
        attributes=None if known is None else known.of,
        quarantine=quarantine,
        strict=strict,
        progress=True,
    )
    if not trust_labels:
        chosen = with_label_errors(chosen, found)
    if "attributes" in chosen.needs and found.data.attributes is None:
        raise InputError(f"model {model}: expected numbers for each LLM: --attributes FILE")
    check_data(chosen, found.data)
    writable_file(out, folder_too=out.suffix == ".zarr")
    for line in describe_log(found):
        typer.echo(line)
    typer.echo(f"model {chosen!r}\n")
    llms = list(found.llms)
    with progress_bar(f"fit: {engine}", total=1) as advance:
        fitted = fit_to(found, chosen, engine=engine, seed=seed)
        advance(1)
    save_posterior(out, fitted.posterior, fitted.info, data=found.data, llms=llms, seed=seed)
    beside = save_contexts(out, found)
    codes = save_codes(out, found, chosen.needs, known)
    table = summary(fitted.posterior, llms).round(3)
    typer.echo(table.head(MOST_LINES).to_string())
    if len(table) > MOST_LINES:
        typer.echo(f"... and {len(table) - MOST_LINES} more: arviz_stats.summary of {out}")
    typer.echo("\nprobability that an LLM's answer is taken, over the log's queries")
    typer.echo(acceptance_table(fitted.acceptance(seed=seed)).head(MOST_LINES).to_string())
    typer.echo(f"\n{fitted.info}\nposterior {out}")
    if beside is not None:
        typer.echo(f"contexts  {beside}")
    if codes is not None:
        typer.echo(f"codes     {codes}")
    if not fitted.info.ok:
        typer.echo(f"cqbayes: not to be relied on: {fitted.info.verdict.meaning}", err=True)
        raise typer.Exit(1)

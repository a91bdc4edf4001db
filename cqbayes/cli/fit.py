"""``cqbayes fit``: from a log to a posterior on disk."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import MOST_LINES, Seed
from cqbayes.errors import InputError

LEFT_OUT = ["ess_tail", "mcse_mean", "mcse_sd"]  # of the summary
SAMPLER, DATA = 1, 3  # exit codes, where these are in doubt; 2 is for bad input


def fit(
    log: Annotated[Path, typer.Argument(help="A log: a file, or a folder of files.")],
    format: Annotated[
        str, typer.Option(help="services, choices, or an importer, such as litellm.")
    ] = "auto",
    model: Annotated[
        str,
        typer.Option(
            help="A file of models/; default is disjoint_mnl, with an effect of the attempt where "
            "queries repeat. Channels from what users do to what the log shows come around it."
        ),
    ] = "default",
    engine: Annotated[str, typer.Option(help="auto, laplace, hmc, nuts, svi or online.")] = "auto",
    out: Annotated[Path, typer.Option(help="Posterior: .nc or .zarr.")] = Path("out/fit.nc"),
    dim: Annotated[int, typer.Option(min=1, help="Dimensions of contexts made of text.")] = 16,
    encoder: Annotated[
        str | None,
        typer.Option(help="A sentence-transformers model; constant leaves text alone."),
    ] = None,
    last: Annotated[
        str,
        typer.Option(
            help="Last turns of sessions, without a sign: silent leaves their outcome open; taken "
            "and drop decide it, and raise or lower acceptance."
        ),
    ] = "silent",
    signs: Annotated[
        str,
        typer.Option(
            help="What a next request in other words says: scored, as much as its wording; "
            "threshold, a retrial if that is probable; explicit, that the answer was taken."
        ),
    ] = "scored",
    threshold: Annotated[
        float, typer.Option(help="Probability of a retrial, from which on.")
    ] = 0.5,
    labels: Annotated[
        Path | None,
        typer.Option(help="What people said of this log's next requests: see cqbayes label."),
    ] = None,
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
    most_set_aside: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the records that may be set aside."),
    ] = 0.2,
    users: Annotated[
        str,
        typer.Option(
            help="How users' identifiers are written beside the posterior: hash, keep or drop."
        ),
    ] = "hash",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and nothing else.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Fits a preference model to logged retrials.

    Exit codes: 0, nothing was found wrong; 1, the sampler is not to be relied on; 2, bad input;
    3, the fit ran, but the data are not to be believed as they are.
    """
    from cqbayes._tools.files import writable_file
    from cqbayes._tools.progress import progress_bar
    from cqbayes.diagnostics.summary import summary
    from cqbayes.inference.infer import load_engine
    from cqbayes.logs.codes import check_users, read_attributes
    from cqbayes.logs.describe import (
        acceptances_of,
        describe_fit,
        describe_log,
        fit_as_dict,
        parse_renames,
    )
    from cqbayes.logs.fit import DEFAULT, fit_to, model_for
    from cqbayes.logs.predictions import save_fit
    from cqbayes.logs.read import TableOptions, TextOptions, TurnOptions, read_log
    from cqbayes.preference import check_data, load_model

    def say(text: str) -> None:
        if not as_json:
            typer.echo(text)

    needs = () if model == DEFAULT else load_model(model).needs
    load_engine(engine)
    check_users(users)
    if out.suffix not in (".nc", ".zarr"):
        raise InputError(f"{out}: expected a name that ends in .nc or .zarr")
    if "time" in needs and time is None:
        raise InputError(f"model {model}: expected blocks of time: --time W, for weeks")
    known = None if attributes is None else read_attributes(attributes)
    found = read_log(
        log,
        format=format,
        text=TextOptions(dim, encoder),
        turns=TurnOptions(last, signs, threshold, labels=labels),  # pyright: ignore[reportArgumentType]
        table=TableOptions(parse_renames(rename), sort),
        time=time,
        attributes=None if known is None else known.of,
        quarantine=quarantine,
        strict=strict,
        most_set_aside=most_set_aside,
        progress=True,
    )
    chosen = model_for(found, model, trust_labels=trust_labels)
    if "attributes" in needs and found.data.attributes is None:
        raise InputError(f"model {model}: expected numbers for each LLM: --attributes FILE")
    check_data(chosen, found.data)
    writable_file(out, folder_too=out.suffix == ".zarr")
    for line in describe_log(found):
        say(line)
    say(f"model {chosen!r}\n")
    with progress_bar(f"fit: {engine}", total=1) as advance:
        fitted = fit_to(found, chosen, engine=engine, seed=seed)
        advance(1)
    how = {"users": users, "attributes": known, "seed": seed}
    saved = save_fit(out, fitted, **how)  # pyright: ignore[reportArgumentType]
    accepted = acceptances_of(fitted, seed)
    if as_json:
        paths = {
            name: None if path is None else str(path) for name, path in saved._asdict().items()
        }
        typer.echo(json.dumps({**fit_as_dict(fitted, accepted), "paths": paths}, allow_nan=False))
    else:
        table = summary(fitted.posterior, list(found.llms)).round(2).drop(columns=LEFT_OUT)
        say(table.head(MOST_LINES).to_string())
        if len(table) > MOST_LINES:
            say(f"... and {len(table) - MOST_LINES} more: arviz_stats.summary of {out}")
        say("")
        for line in describe_fit(fitted, accepted, MOST_LINES):
            say(line)
        say("")
        for name, path in saved._asdict().items():
            if path is not None:
                say(f"{name:<9} {path}")
    if not fitted.info.ok:
        typer.echo(f"cqbayes: not to be relied on: {fitted.info.verdict.meaning}", err=True)
        raise typer.Exit(SAMPLER)
    if not fitted.data.ok:
        names = ", ".join(doubt.name for doubt in fitted.data.doubts)
        typer.echo(f"cqbayes: data not to be believed as they are: {names}", err=True)
        raise typer.Exit(DATA)

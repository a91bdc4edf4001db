"""``cqbayes predict``: from a posterior on disk and a file of queries to a table."""

from pathlib import Path
from typing import Annotated

import typer

from cqbayes.cli.options import MOST_LINES, Seed


def predict(
    posterior: Annotated[Path, typer.Argument(help="What cqbayes fit wrote: .nc or .zarr.")],
    queries: Annotated[
        Path,
        typer.Argument(
            help=".txt, one query a line; .jsonl or .parquet with text or embedding, and with "
            "user_id or timestamp where the model needs them, and attempt if it is not the first."
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
    new_llm: Annotated[
        bool, typer.Option(help="Add an LLM that no data are known of; needs a hierarchy.")
    ] = False,
    probability: Annotated[float, typer.Option(help="That the intervals hold.")] = 0.9,
    seed: Seed = 0,
) -> None:
    """How probably users take each LLM's answer to new queries, and what-ifs."""
    from cqbayes._tools.files import replacing, writable_file
    from cqbayes.logs.codes import codes_path, read_attributes
    from cqbayes.logs.predictions import contexts_path, predict_file

    beside = (contexts_path(posterior), codes_path(posterior))
    given = () if attributes is None else (attributes,)
    writable_file(out, inputs=(posterior, queries, *beside, *given))
    overall, rows = predict_file(
        posterior,
        queries,
        without=without,
        new_llm=new_llm,
        encoder=encoder,
        attributes=None if attributes is None else read_attributes(attributes),
        probability=probability,
        seed=seed,
    )
    typer.echo(overall.head(MOST_LINES).to_string())
    with replacing(out) as temporary:
        rows.to_csv(temporary, index=False)
    typer.echo(f"\neach query  {out}")

"""``cqbayes label``: people say which next requests are retrials."""

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cqbayes.cli.options import Seed
from cqbayes.errors import InputError

if TYPE_CHECKING:
    from cqbayes.logs.retrials.labels import Question

MOST_SHOWN = 1_500  # characters of a request
KEYS = {
    "\x1b[D": "asks again",
    "\x1b[B": "says it was bad",
    "\x1b[C": "neither",
    "\x1b[A": "unclear",
    "a": "asks again",
    "b": "says it was bad",
    "n": "neither",
    "s": "unclear",
    "u": "undo",
    "\x7f": "undo",
    "q": "stop",
    "": "stop",  # the end of what is typed
}
HELP = """Was the answer between these two requests of a user taken? What is the second request?

  left  or a  asks again: the same thing, in the same or other words, or amended
  down  or b  says it was bad: a complaint, or a correction
  right or n  neither: a next step, a new question, thanks
  up    or s  unclear
  u undo      q stop; a later call goes on from there
"""


def label(
    log: Annotated[Path, typer.Argument(help="A log: a file, or a folder of files.")],
    format: Annotated[str, typer.Option(help="An importer, such as litellm.")],
    labels: Annotated[
        Path, typer.Option(help="JSON Lines; holds digests of the requests, no text.")
    ] = Path("labels.jsonl"),
    number: Annotated[int, typer.Option(min=1, help="Pairs to label in all.")] = 100,
    by: Annotated[str, typer.Option(help="Who labels. Two labellers get the same pairs.")] = "me",
    seed: Seed = 0,
) -> None:
    """Shows pairs of requests of a log, drawn at random, and keeps what you say of them.

    `cqbayes fit --labels` then knows what next requests in this log mean.
    """
    from cqbayes.logs.label import label as label_log

    typer.echo(HELP)
    found = label_log(log, _ask, format=format, labels=labels, number=number, by=by, seed=seed)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
    disagreed, both = found.agreement
    typer.echo(f"\n{labels}: {counts or 'no labels'}")
    if both:
        typer.echo(f"two labellers agree on {both - disagreed:,} of {both:,} pairs")


def _ask(question: "Question") -> str:
    """Shows a pair on the terminal, and waits for a key."""
    typer.secho(f"-- {question.number + 1} of {question.of}", dim=True)
    typer.echo(_printable(question.first))
    typer.secho("   ... answered, and then:", dim=True)
    typer.secho(_printable(question.second), bold=True)
    while True:
        try:
            key = typer.getchar()
        except EOFError:
            return "stop"
        except OSError:
            raise InputError(
                "label: expected a terminal, got none; cqbayes.label takes answers"
            ) from None
        if (said := KEYS.get(key.lower() if len(key) == 1 else key)) is not None:
            typer.secho(f"   {said}\n", fg="cyan")
            return said


def _printable(text: str) -> str:
    """Without what a terminal would take for a command."""
    shown = "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for c in text[:MOST_SHOWN]
    )
    return shown + (" ..." if len(text) > MOST_SHOWN else "")

"""Scores of a strong and a weak LLM's answers to 15,334 queries; see DATASHEET.md."""

from pathlib import Path

from cqbayes.answers import Answers, from_long, read_columns
from cqbayes.datasets import Card, File, find

NAME = "routellm2"
FILE = File(
    "routellm2_long.parquet",
    sha256="11c425b0615b4bfdbd4e35bfb92d7421c69970d7212f2c5ffb03766ee85f09db",
)
CARD = Card(2, "15,334", "Apache-2.0", "RouteLLM's evaluations, as a long table", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> Answers:
    """Both splits in words.

    Args:
        path: of the file; :func:`cqbayes.datasets.find` where absent.
        drop_incomplete: whether queries that lack the score of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(NAME, path, ["query_id", "task", "model", "score", "prompt"])
    return from_long(NAME, frame, drop_incomplete=drop_incomplete)

"""Scores of a strong and a weak LLM's answers to 15,334 queries; see DATASHEET.md."""

from pathlib import Path

from cqbayes._tools.tables import read_columns
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, from_long

NAME = "routellm2"
FILE = File(
    "routellm2_long.parquet",
    sha256="11c425b0615b4bfdbd4e35bfb92d7421c69970d7212f2c5ffb03766ee85f09db",
)
CARD = Card(2, "15,334", "Apache-2.0", "RouteLLM's evaluations, as a long table", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    Args:
        path: path of the file; :func:`cqbayes.datasets.files.find` finds it if absent.
        drop_incomplete: whether to leave out queries without a score of every LLM.

    Raises:
        InputError: for a file that does not exist or differs from ``DATASHEET.md``.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(NAME, path, ["query_id", "task", "model", "score", "prompt"])
    return from_long(NAME, frame, drop_incomplete=drop_incomplete)

"""Scores and costs of eleven LLMs' answers to 3,150 queries of RouterBench; see DATASHEET.md."""

from pathlib import Path

from cqbayes._tools.tables import read_columns
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, from_long

NAME = "routerbench3k"
FILE = File(
    "routerbench3k_long.parquet",
    sha256="537ad6baaa3ccfd9d5350eba2ae27935bba632ef6d109d5a2e0a749069aadc19",
)
CARD = Card(11, "3,150", "none stated", "a subset of RouterBench: three of its tasks", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    Args:
        path: path of the file; :func:`cqbayes.datasets.files.find` finds it if absent.
        drop_incomplete: whether to leave out queries without a score of every LLM.

    Raises:
        InputError: for a file that does not exist or differs from ``DATASHEET.md``.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(
        NAME, path, ["query_id", "task", "split", "model", "score", "cost_usd", "query_text"]
    )
    return from_long(NAME, frame, text="query_text", drop_incomplete=drop_incomplete)

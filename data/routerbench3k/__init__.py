"""Scores and costs of eleven LLMs' answers to 3,150 queries of RouterBench; see DATASHEET.md."""

from pathlib import Path

from cqbayes.answers import Answers, from_long, read_columns
from cqbayes.datasets import Card, File, find

NAME = "routerbench3k"
FILE = File(
    "routerbench3k_long.parquet",
    sha256="537ad6baaa3ccfd9d5350eba2ae27935bba632ef6d109d5a2e0a749069aadc19",
)
CARD = Card(11, "3,150", "none stated", "a subset of RouterBench: three of its tasks", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> Answers:
    """Both splits in words.

    Args:
        path: of the file; :func:`cqbayes.datasets.find` where absent.
        drop_incomplete: whether queries that lack the score of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(
        NAME, path, ["query_id", "task", "split", "model", "score", "cost_usd", "query_text"]
    )
    return from_long(NAME, frame, text="query_text", drop_incomplete=drop_incomplete)

"""Scores and costs of four LLMs' answers to 3,559 prompts of ParetoBandit; see DATASHEET.md."""

from pathlib import Path

from cqbayes._tools.tables import read_columns
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, from_long

NAME = "paretobandit4"
FILE = File(
    "paretobandit4_long.parquet",
    sha256="5d097c5d54d75af87b44e00722e5044c93f67c210b99454fdf70ba650f57754a",
)
CARD = Card(4, "3,559", "Apache-2.0", "ParetoBandit, as a long table", (FILE,))


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
        NAME, path, ["query_id", "task", "split", "model", "score", "cost_usd", "prompt"]
    )
    return from_long(NAME, frame, splits={"val": "train"}, drop_incomplete=drop_incomplete)

"""Scores and costs of four LLMs' answers to 3,559 prompts of ParetoBandit; see DATASHEET.md."""

from pathlib import Path

from cqbayes.answers import Answers, from_long, read_columns
from cqbayes.datasets import Card, File, find

NAME = "paretobandit4"
FILE = File(
    "paretobandit4_long.parquet",
    sha256="5d097c5d54d75af87b44e00722e5044c93f67c210b99454fdf70ba650f57754a",
)
CARD = Card(4, "3,559", "Apache-2.0", "ParetoBandit, as a long table", (FILE,))


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
        NAME, path, ["query_id", "task", "split", "model", "score", "cost_usd", "prompt"]
    )
    return from_long(NAME, frame, splits={"val": "train"}, drop_incomplete=drop_incomplete)

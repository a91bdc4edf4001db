"""Scores of nine LLMs' answers to 5,989 queries of LLMRouter; the data sheet is DATASHEET.md."""

from pathlib import Path

from cqbayes._tools.tables import read_columns
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, from_long

NAME = "llmrouter9"
FILE = File(
    "llmrouter9_long.parquet",
    sha256="2350cdb81b02ae8c65ebfa2a0a40a739de2acc85532ecb550f39be30b7bf2c05",
)
CARD = Card(9, "5,989", "MIT", "LLMRouter, as a long table", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    Args:
        path: path of the file; :func:`cqbayes.datasets.files.find` finds it if absent.
        drop_incomplete: whether to leave out queries without a score of every LLM.

    Raises:
        InputError: for a file that does not exist or differs from ``DATASHEET.md``.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(NAME, path, ["query_id", "task", "split", "model", "score", "prompt"])
    return from_long(NAME, frame, drop_incomplete=drop_incomplete)

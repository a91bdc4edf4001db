"""Scores of nine LLMs' answers to 5,989 queries of LLMRouter; the data sheet is DATASHEET.md."""

from pathlib import Path

from cqbayes.answers import Answers, from_long, read_columns
from cqbayes.datasets import Card, File, find

NAME = "llmrouter9"
FILE = File(
    "llmrouter9_long.parquet",
    sha256="2350cdb81b02ae8c65ebfa2a0a40a739de2acc85532ecb550f39be30b7bf2c05",
)
CARD = Card(9, "5,989", "MIT", "LLMRouter, as a long table", (FILE,))


def answers(path: str | Path | None = None, *, drop_incomplete: bool = False) -> Answers:
    """Both splits in words.

    Args:
        path: of the file; :func:`cqbayes.datasets.find` where absent.
        drop_incomplete: whether queries that lack the score of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says.
    """
    path = find(NAME, FILE.name) if path is None else path
    frame = read_columns(NAME, path, ["query_id", "task", "split", "model", "score", "prompt"])
    return from_long(NAME, frame, drop_incomplete=drop_incomplete)

"""Scores of three LLMs' answers to 3,609 benchmark prompts; the data sheet is DATASHEET.md."""

from pathlib import Path

from cqbayes.datasets.files import Card
from cqbayes.datasets.score_table import ScoreTable, read_scores

PATH = Path(__file__).with_name("scores.parquet")
SHA256 = "707fbf9523d77484316494847c4d4cc061e59367f6baf74c20e6d22932f8fb00"
CARD = Card(3, "3,609", "Apache-2.0", "the Python package paretobandit 0.1.1")


def load(dim: int = 16) -> ScoreTable:
    """Scores of both splits, with the first ``dim`` (at most 64) context coordinates at norm 1."""
    return read_scores(PATH, sha256=SHA256, dim=dim)

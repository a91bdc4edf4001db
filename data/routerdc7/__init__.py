"""Scores of seven LLMs' answers to 20,566 queries of RouterDC; the data sheet is DATASHEET.md."""

from dataclasses import replace
from pathlib import Path

from cqbayes._tools.tables import check_columns, read_columns
from cqbayes.datasets.files import Card, File, find
from cqbayes.datasets.text_scores import TextScores, from_long

NAME = "routerdc7"
FILE = File(
    "routerdc7_long.parquet",
    sha256="724ea976e930a2e593558b72b4ad19ec2067f1801cad7efe6b840e48babdc4f2",
)
CARD = Card(7, "20,566", "none stated", "RouterDC's split2_model7, as a long table", (FILE,))
MEASURED = "fraction_of_10_samples"


def answers(
    path: str | Path | None = None, *, measured: bool = False, drop_incomplete: bool = False
) -> TextScores:
    """Texts of the queries and scores of the LLMs' answers, of both splits.

    Args:
        path: path of the file; :func:`cqbayes.datasets.files.find` finds it if absent.
        measured: whether to keep only queries that each LLM answered ten times. A score is then the
            share of right answers, and 1 - score the probability that a retry with the same LLM
            fails.
        drop_incomplete: whether to leave out queries without a score of every LLM.

    Raises:
        InputError: for a file that does not exist or differs from ``DATASHEET.md``.
    """
    path = find(NAME, FILE.name) if path is None else path
    columns = ["query_id", "task", "split", "model", "score", "prompt"]
    frame = read_columns(NAME, path, columns, optional=["score_kind"])
    if measured:
        check_columns(NAME, frame.columns, ["score_kind"])
        frame = frame.loc[frame["score_kind"] == MEASURED]
    made = from_long(NAME, frame, drop_incomplete=drop_incomplete)
    return replace(made, samples=10) if measured else made

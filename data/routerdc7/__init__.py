"""Scores of seven LLMs' answers to 20,566 queries of RouterDC; the data sheet is DATASHEET.md."""

from pathlib import Path

from cqbayes.answers import Answers, check_columns, from_long, read_columns
from cqbayes.datasets import Card, File, find

NAME = "routerdc7"
FILE = File(
    "routerdc7_long.parquet",
    sha256="724ea976e930a2e593558b72b4ad19ec2067f1801cad7efe6b840e48babdc4f2",
)
CARD = Card(7, "20,566", "none stated", "RouterDC's split2_model7, as a long table", (FILE,))
MEASURED = "fraction_of_10_samples"


def answers(
    path: str | Path | None = None, *, measured: bool = False, drop_incomplete: bool = False
) -> Answers:
    """Both splits in words.

    Args:
        path: of the file; :func:`cqbayes.datasets.find` where absent.
        measured: only queries that each LLM was asked ten times: the score is the share of right
            answers, so that 1 - score is how often asking the same LLM again fails.
        drop_incomplete: whether queries that lack the score of an LLM are left out.

    Raises:
        InputError: for a file that is not there or is not as ``DATASHEET.md`` says.
    """
    path = find(NAME, FILE.name) if path is None else path
    columns = ["query_id", "task", "split", "model", "score", "prompt"]
    frame = read_columns(NAME, path, columns, optional=["score_kind"])
    if measured:
        check_columns(NAME, frame.columns, ["score_kind"])
        frame = frame.loc[frame["score_kind"] == MEASURED]
    made = from_long(NAME, frame, drop_incomplete=drop_incomplete)
    return made._replace(samples=10) if measured else made

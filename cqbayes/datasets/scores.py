"""What routing data have in common: who answered which query, and how good the answer was."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import pandas as pd

from cqbayes._tools.tables import refuse
from cqbayes.errors import InputError

SCORES = "scores in [0, 1], one an LLM"
COSTS = "costs in dollars, not negative"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of real answers: one row a query, one column an LLM.

    Attributes:
        name: of the data set.
        llms: names of the LLMs.
        query_id, task, split: strings ``[query]``; ``split`` is "train" or "test".
        score: ``[query, llm]`` in [0, 1].
        cost: ``[query, llm]`` in dollars, or None where nothing is known.
        samples: how many answers of an LLM to a query a score is the mean of.
    """

    name: str
    llms: tuple[str, ...]
    query_id: np.ndarray
    task: np.ndarray
    split: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None
    samples: int = 1

    def rows(self, keep: np.ndarray | list[int]) -> Self:
        """Only some of the queries, by a mask or by places."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {n: column[keep] for n, column in columns.items() if isinstance(column, np.ndarray)}
        return replace(self, **kept)

    def part(self, split: str) -> Self:
        """Only the rows of one split.

        Raises:
            InputError: names the splits that there are.
        """
        rows = self.split == split
        if not rows.any():
            raise InputError(
                f"{self.name}: expected a split among {', '.join(np.unique(self.split))}, "
                f"got {split!r}"
            )
        return self.rows(rows)


def check_scores(
    scores: Scores, *, where: str | None = None, row: np.ndarray | None = None
) -> None:
    """Refuses scores that cannot be meant.

    Args:
        scores: with a score and, if there are any costs, a cost in every place.
        where: the data set or file, for messages; the name where absent.
        row: which row of the file each query is; the same where absent.

    Raises:
        InputError: names the first row whose score is outside [0, 1], whose cost is not a number of
            dollars, whose split is neither "train" nor "test", or whose query was there already.
    """
    where = scores.name if where is None else where
    if len(scores.query_id) == 0:
        raise InputError(f"{where}: expected at least one query, got none")
    refuse(where, ~((scores.score >= 0) & (scores.score <= 1)), SCORES, row)
    if scores.cost is not None:
        refuse(where, ~(np.isfinite(scores.cost) & (scores.cost >= 0)), COSTS, row)
    refuse(where, ~np.isin(scores.split, ("train", "test")), 'a split "train" or "test"', row)
    refuse(where, pd.Series(scores.query_id).duplicated().to_numpy(), "each query_id once", row)

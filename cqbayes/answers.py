"""Routing data as it is published: queries in words, and how good each LLM's answer was.

:class:`Answers` hold text; with embeddings and a projection (:mod:`cqbayes.embeddings`) they become
a :class:`cqbayes.environments.scores.ScoreTable`, which holds contexts. Each folder of ``data/``
that brings text has ``answers(path) -> Answers``.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from cqbayes.environments.scores import ScoreTable, check_scores, unit_rows
from cqbayes.errors import InputError


class Answers(NamedTuple):
    """Scores of real answers to queries in words: one row a query, one column an LLM.

    Attributes:
        name: of the data set.
        llms: names of the LLMs.
        query_id, task, split: strings ``[query]``; ``split`` is "train" or "test".
        text: what the user asked ``[query]``; it stays out of messages.
        score: ``[query, llm]`` in [0, 1].
        cost: ``[query, llm]`` in dollars, or None where nothing is known.
    """

    name: str
    llms: tuple[str, ...]
    query_id: np.ndarray
    task: np.ndarray
    split: np.ndarray
    text: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None

    def rows(self, keep: np.ndarray) -> "Answers":
        """Only some of the queries, by a mask or by places."""
        columns = ("query_id", "task", "split", "text", "score")
        cost = None if self.cost is None else self.cost[keep]
        return self._replace(**{name: getattr(self, name)[keep] for name in columns}, cost=cost)


def from_long(
    name: str,
    frame: pd.DataFrame,
    *,
    text: str = "prompt",
    splits: dict[str, str] | None = None,
) -> Answers:
    """Answers of a long table: one row a query and an LLM.

    Args:
        name: of the data set.
        frame: columns ``query_id``, ``task``, ``model``, ``score``, the text, and if there are any
            ``split`` and ``cost_usd``.
        text: the column of the query in words.
        splits: what the file calls "train" and "test", where it has other names. A file without
            splits gets them by a hash of ``query_id``: 70 percent train.

    Raises:
        InputError: names the row of the first query that occurs twice with an LLM, lacks an LLM, or
            has a score outside [0, 1].
    """
    needed = ["query_id", "task", "model", "score", text]
    check_columns(name, frame.columns, needed)
    twice = frame.duplicated(["query_id", "model"])
    if twice.any():
        raise InputError(
            f"{name}: expected each query_id once with each model, row {int(np.argmax(twice))} is "
            "there already"
        )
    first = frame.drop_duplicates("query_id").set_index("query_id")
    llms = tuple(sorted(str(llm) for llm in frame["model"].unique()))

    def wide(column: str) -> np.ndarray:
        table = frame.pivot(index="query_id", columns="model", values=column)
        table.columns = table.columns.astype(str)
        return table.loc[first.index, list(llms)].to_numpy(float)

    query_id = first.index.to_numpy(str)
    if "split" in frame:
        split = first["split"].astype(str).replace(splits or {}).to_numpy(str)
    else:
        split = split_by_hash(query_id)
    return checked(
        Answers(
            name=name,
            llms=llms,
            query_id=query_id,
            task=first["task"].to_numpy(str),
            split=split,
            text=first[text].to_numpy(object),
            score=wide("score"),
            cost=wide("cost_usd") if "cost_usd" in frame else None,
        )
    )


def check_columns(name: str, there: Iterable[str], needed: list[str]) -> None:
    """Refuses a table that lacks columns, and names those."""
    found = set(there)
    missing = [column for column in needed if column not in found]
    if missing:
        raise InputError(f"{name}: expected columns {', '.join(needed)}; no {', '.join(missing)}")


def checked(answers: Answers) -> Answers:
    """The same answers, if nothing is wrong with them.

    Raises:
        InputError: names the first row that is wrong, and what is expected of it.
    """
    check_scores(answers.name, answers.query_id, answers.split, answers.score, answers.cost)
    bad = [i for i, text in enumerate(answers.text) if not isinstance(text, str)]
    if bad:
        raise InputError(f"{answers.name}: expected text in every row, row {bad[0]} has none")
    return answers


def split_by_hash(query_id: Iterable[str], train: float = 0.7) -> np.ndarray:
    """ "train" or "test" for each query, by its name alone: the same in whatever file it stands.

    Example:
        >>> split_by_hash(["a", "b", "c"]).tolist()
        ['test', 'train', 'train']
    """
    digests = [hashlib.sha256(str(name).encode()).digest()[:8] for name in query_id]
    share = np.array([int.from_bytes(digest, "big") for digest in digests]) / 2**64
    return np.where(share < train, "train", "test")


def score_table(answers: Answers, context: Float[np.ndarray, "query dim"]) -> ScoreTable:
    """The scores with contexts instead of text, scaled to unit norm.

    Raises:
        InputError: for contexts of another number of queries, not finite, or 0.
    """
    if len(context) != len(answers.query_id):
        raise InputError(
            f"{answers.name}: expected {len(answers.query_id)} contexts, got {len(context)}"
        )
    given = {name: value for name, value in answers._asdict().items() if name != "text"}
    return ScoreTable(context=unit_rows(answers.name, context), **given)

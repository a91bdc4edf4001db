"""Routing data as it is published: queries in words, and how good each LLM's answer was.

:class:`TextScores` hold text; with embeddings and a projection (:mod:`cqbayes.embeddings`) they
become a :class:`cqbayes.datasets.score_table.ScoreTable`, which holds contexts. Each folder of
``data/`` that brings text has ``answers(path) -> TextScores``.

Rows are counted from 0, without headers, as they stand in the file.
"""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from cqbayes._tools.tables import check_columns, numbers, refuse, unit_rows
from cqbayes.datasets.score_table import ScoreTable
from cqbayes.datasets.scores import COSTS, SCORES, Scores, check_scores
from cqbayes.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class TextScores(Scores):
    """Scores of real answers to queries in words.

    Attributes:
        text: what the user asked ``[query]``; it stays out of messages.
    """

    text: np.ndarray


def from_long(
    name: str,
    frame: pd.DataFrame,
    *,
    text: str = "prompt",
    splits: Mapping[str, str] | None = None,
    drop_incomplete: bool = False,
) -> TextScores:
    """TextScores of a long table: one row a query and an LLM.

    Args:
        name: of the data set.
        frame: columns ``query_id``, ``task``, ``model``, ``score``, the text, and if there are any
            ``split`` and ``cost_usd``; strings may be categories. The index says which row of the
            file each is.
        text: the column of the query in words.
        splits: what the file calls "train" and "test", where it has other names. A file without
            splits gets them by a hash of the text, so that a query that is there twice is on one
            side only: 70 percent train.
        drop_incomplete: whether queries that lack the score of an LLM are left out, with a
            warning, and not refused.

    Raises:
        InputError: names the first row that is wrong: a query that occurs twice with an LLM, a
            score that is absent or outside [0, 1], another text, task or split than the query's
            first; and the first row of a query that lacks the row of an LLM.
    """
    check_columns(name, frame.columns, ["query_id", "task", "model", "score", text])
    if frame.empty:
        raise InputError(f"{name}: expected at least one row, got none")
    row = frame.index.to_numpy()
    query, query_id = _codes(name, frame, "query_id")
    llm, llms = _codes(name, frame, "model")
    cell = query * len(llms) + llm
    refuse(name, pd.Series(cell).duplicated().to_numpy(), "each query_id once with each model", row)
    # Where each query is first: from there come what its rows have in common.
    first = np.unique(query, return_index=True)[1]

    def common(column: str) -> np.ndarray:
        values = frame[column].to_numpy(object)
        refuse(name, frame[column].isna().to_numpy(), f"a {column} in every row", row)
        same = values == values[first[query]]
        refuse(name, ~same, f"the same {column} in all rows of a query_id", row)
        return values[first]

    def wide(column: str, most: float, expected: str) -> np.ndarray:
        values = numbers(name, frame[column], column)
        refuse(name, (values < 0) | (values > most), expected, row)
        if not drop_incomplete:
            refuse(name, np.isnan(values), _COMPLETE, row)
        table = np.full(len(query_id) * len(llms), np.nan)
        table[cell] = values
        return table.reshape(len(query_id), len(llms))

    words = common(text)
    if "split" in frame:
        given = common("split").astype(str)
        split = np.array([(splits or {}).get(part, part) for part in given])
    else:
        split = split_by_hash(words)
    answers = TextScores(
        name=name,
        llms=tuple(str(one) for one in llms),
        query_id=query_id,
        task=common("task").astype(str),
        split=split,
        text=words,
        score=wide("score", 1, SCORES),
        cost=wide("cost_usd", _LARGEST, COSTS) if "cost_usd" in frame else None,
    )
    return complete(answers, drop_incomplete=drop_incomplete, row=row[first])


_COMPLETE = (
    "a score of every LLM, and a cost if there are any (drop_incomplete=True leaves such queries "
    "out)"
)


_LARGEST = float(np.finfo(float).max)


def _codes(name: str, frame: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the names in a column, and the names: models in order, queries as they come."""
    codes, found = pd.factorize(frame[column])
    refuse(name, codes < 0, f"a {column} in every row", frame.index.to_numpy())
    names = np.array([str(one) for one in found])
    if column == "query_id":
        return codes, names
    order = np.argsort(names)
    return np.argsort(order)[codes], names[order]


def complete(
    answers: TextScores,
    *,
    drop_incomplete: bool,
    where: str | None = None,
    row: np.ndarray | None = None,
) -> TextScores:
    """The same answers, checked, with a score and a cost of every LLM for every query.

    Args:
        answers: NaN where a score or a cost is missing.
        drop_incomplete: whether queries that lack one are left out, with a warning.
        where: the data set or file, for messages; the name where absent.
        row: which row of the file each query is; the same where absent.

    Raises:
        InputError: names the first row that is wrong or, unless it may be dropped, incomplete.
    """
    where = answers.name if where is None else where
    absent = np.isnan(answers.score)
    if answers.cost is not None:
        absent |= np.isnan(answers.cost)
    missing = np.asarray(absent.any(axis=1))
    check_scores(_filled(answers), where=where, row=row)
    wordless = np.array([not isinstance(text, str) for text in answers.text], bool)
    refuse(where, wordless, "text in every row", row)
    if not missing.any():
        return answers
    if not drop_incomplete:
        refuse(where, missing, _COMPLETE, row)
    kept = answers.rows(~missing)
    if missing.all():
        raise InputError(f"{where}: expected a query with the scores of all LLMs, got none")
    warnings.warn(
        f"{where}: {missing.sum()} of {len(missing)} queries lack the score of an LLM and are "
        "left out",
        stacklevel=2,
    )
    return kept


def _filled(answers: TextScores) -> TextScores:
    score = np.where(np.isnan(answers.score), 0, answers.score)
    cost = None if answers.cost is None else np.where(np.isnan(answers.cost), 0, answers.cost)
    return replace(answers, score=score, cost=cost)


def joined(parts: Sequence[TextScores]) -> TextScores:
    """The queries of several files, one after the other.

    Raises:
        InputError: where LLMs differ, or a query is in two files.
    """
    one = parts[0]
    for part in parts[1:]:
        if part.llms != one.llms:
            raise InputError(f"{one.name}: expected the same LLMs in all files, got others")
    columns = ("query_id", "task", "split", "text", "score")
    stacked = {n: np.concatenate([getattr(part, n) for part in parts]) for n in columns}
    costs = [part.cost for part in parts if part.cost is not None]
    cost = np.concatenate(costs) if len(costs) == len(parts) else None
    again = pd.Series(stacked["query_id"]).duplicated()
    if again.any():
        raise InputError(f"{one.name}: expected each query in one file, {again.sum()} are in two")
    return replace(one, **stacked, cost=cost)


def sample(answers: TextScores, most: int, seed: int = 0) -> TextScores:
    """At most so many of the queries, drawn without replacement, in their order.

    Example:
        >>> same = dict.fromkeys(("query_id", "task", "split", "text"), np.array(["a", "b", "c"]))
        >>> three = TextScores(name="d", llms=("m",), score=np.zeros((3, 1)), **same)
        >>> len(sample(three, 2).text)
        2
    """
    count = len(answers.query_id)
    if count <= most:
        return answers
    return answers.rows(np.sort(np.random.default_rng(seed).permutation(count)[:most]))


def split_by_hash(names: Iterable[str], train: float = 0.7) -> np.ndarray:
    """ "train" or "test" for each query, by its name or text alone: the same in whatever file.

    Example:
        >>> split_by_hash(["a", "b", "c"]).tolist()
        ['test', 'train', 'train']
    """
    digests = [hashlib.sha256(_utf8(name)).digest()[:8] for name in names]
    share = np.array([int.from_bytes(digest, "big") for digest in digests]) / 2**64
    return np.where(share < train, "train", "test")


def _utf8(name: object) -> bytes:
    """Unpaired surrogates, which JSON can hold, have no encoding of their own."""
    return str(name).encode("utf-8", "replace")


def score_table(answers: TextScores, context: Float[np.ndarray, "query dim"]) -> ScoreTable:
    """The scores with contexts instead of text, scaled to unit norm.

    Raises:
        InputError: for contexts of another number of queries, not finite, or 0.
    """
    if len(context) != len(answers.query_id):
        raise InputError(
            f"{answers.name}: expected {len(answers.query_id)} contexts, got {len(context)}"
        )
    shared = {field.name: getattr(answers, field.name) for field in fields(Scores)}
    return ScoreTable(context=unit_rows(answers.name, context), **shared)

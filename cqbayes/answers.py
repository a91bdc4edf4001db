"""Routing data as it is published: queries in words, and how good each LLM's answer was.

:class:`Answers` hold text; with embeddings and a projection (:mod:`cqbayes.embeddings`) they become
a :class:`cqbayes.environments.scores.ScoreTable`, which holds contexts. Each folder of ``data/``
that brings text has ``answers(path) -> Answers``.

Rows are counted from 0, without headers, as they stand in the file.
"""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from cqbayes.environments.scores import ScoreTable, unit_rows
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
        samples: how many answers of an LLM to a query a score is the mean of.
    """

    name: str
    llms: tuple[str, ...]
    query_id: np.ndarray
    task: np.ndarray
    split: np.ndarray
    text: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None
    samples: int = 1

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
    splits: Mapping[str, str] | None = None,
    drop_incomplete: bool = False,
) -> Answers:
    """Answers of a long table: one row a query and an LLM.

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
    answers = Answers(
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


SCORES = "scores in [0, 1], one an LLM"
COSTS = "costs in dollars, not negative"
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


def refuse(
    where: str, wrong: np.ndarray, expected: str, row: Sequence[int] | np.ndarray | None = None
) -> None:
    """Refuses what is wrong anywhere, and names the first row.

    Args:
        where: the data set or file.
        wrong: mask ``[row]``, or ``[row, column]``.
        expected: what every row should be or have.
        row: which row of the file each is; the same where absent.

    Raises:
        InputError: if anything is wrong.
    """
    if wrong.any():
        place = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        number = place if row is None else row[place]
        raise InputError(f"{where}: expected {expected}, not so in row {number}")


def numbers(where: str, values: Any, column: str) -> Float[np.ndarray, " row"]:
    """A column as numbers, NaN where nothing is there.

    Args:
        where: the data set or file.
        values: a series, whose index says which row of the file each is.
        column: its name, for messages.

    Raises:
        InputError: names the first row that has something else.
    """
    plain = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    found: Any = pd.to_numeric(plain, errors="coerce")
    wrong = (found.isna() & values.notna()).to_numpy()
    refuse(where, wrong, f"numbers in column {column}", values.index.to_numpy())
    return found.to_numpy(float)


def check_columns(name: str, there: Iterable[str], needed: Sequence[str]) -> None:
    """Refuses a table that lacks columns or has one of them twice, and names those."""
    found = Counter(list(there))  # of a mapping, its keys
    missing = [column for column in needed if column not in found]
    if missing:
        raise InputError(f"{name}: expected columns {', '.join(needed)}; no {', '.join(missing)}")
    twice = [column for column in needed if found[column] > 1]
    if twice:
        raise InputError(f"{name}: expected each column once; not so {', '.join(twice)}")


def read_columns(
    where: str, path: str | Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Some columns of a Parquet file, by row of the file; strings that repeat are held once.

    Raises:
        InputError: for a file that cannot be read, lacks a column that is needed, or has lists or
            structs in one.
    """
    with parquet(where, path) as file:
        schema = file.schema_arrow
        check_columns(where, schema.names, needed)
        wanted = [*needed, *(column for column in optional if column in schema.names)]
        nested = [name for name in wanted if pa.types.is_nested(schema.field(name).type)]
        if nested:
            raise InputError(f"{where}: expected strings or numbers in column {nested[0]}")
        table = file.read(wanted)
        strings = [n for n in wanted if pa.types.is_string(table.schema.field(n).type)]
        # The index that pandas notes in a file is not the row, and may be one of the columns.
        return table.to_pandas(categories=strings, ignore_metadata=True)


@contextmanager
def parquet(where: str, path: str | Path, *, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; damage that shows only when columns are read is refused as well.

    Args:
        where: the data set or file, for messages.
        path: of the file.
        buffer_size: bytes of a column that are read at a time; 0 reads all of a row group.

    Raises:
        InputError: where it cannot be read, or is something else.
    """
    try:
        opened = pq.ParquetFile(path, buffer_size=buffer_size)
    except OSError as error:
        # Arrow's own text names the path again.
        reason = os.strerror(error.errno) if error.errno else "not readable"
        raise InputError(f"{where}: expected a readable file, got: {reason}") from None
    except (pa.ArrowException, UnicodeDecodeError):
        raise InputError(f"{where}: expected a Parquet file, got something else") from None
    try:
        with opened as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        # Arrow's own text may show what is in the file.
        raise InputError(
            f"{where}: expected a Parquet file that can be read, it is damaged; get it again"
        ) from None


def complete(
    answers: Answers,
    *,
    drop_incomplete: bool,
    where: str | None = None,
    row: np.ndarray | None = None,
) -> Answers:
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
    checked(_filled(answers), where=where, row=row)
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


def _filled(answers: Answers) -> Answers:
    score = np.where(np.isnan(answers.score), 0, answers.score)
    cost = None if answers.cost is None else np.where(np.isnan(answers.cost), 0, answers.cost)
    return answers._replace(score=score, cost=cost)


def checked(
    answers: Answers, *, where: str | None = None, row: np.ndarray | None = None
) -> Answers:
    """The same answers, if nothing is wrong with them.

    Raises:
        InputError: names the first row that is wrong, and what is expected of it.
    """
    where = answers.name if where is None else where
    if len(answers.query_id) == 0:
        raise InputError(f"{where}: expected at least one query, got none")
    score, cost = answers.score, answers.cost
    refuse(where, ~((score >= 0) & (score <= 1)), SCORES, row)
    if cost is not None:
        refuse(where, ~(np.isfinite(cost) & (cost >= 0)), COSTS, row)
    refuse(where, ~np.isin(answers.split, ("train", "test")), 'a split "train" or "test"', row)
    refuse(where, pd.Series(answers.query_id).duplicated().to_numpy(), "each query_id once", row)
    wordless = np.array([not isinstance(text, str) for text in answers.text], bool)
    refuse(where, wordless, "text in every row", row)
    return answers


def joined(parts: Sequence[Answers]) -> Answers:
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
    return one._replace(**stacked, cost=cost)


def sample(answers: Answers, most: int, seed: int = 0) -> Answers:
    """At most so many of the queries, drawn without replacement, in their order.

    Example:
        >>> name = np.array(["a", "b", "c"])
        >>> three = Answers("d", ("m",), name, name, name, name, np.zeros((3, 1)))
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

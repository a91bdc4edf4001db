"""Sorting a log that is in memory: rows of a query by attempt, or by time where it has no attempts.

The order is that of :mod:`cqbayes.logs.table.sorting`. It depends on what rows say, not on where
they stand, except among rows that say the same.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cqbayes.logs.schema import TIME
from cqbayes.logs.table.validation import bad_times, column_numbers, is_null

_LAST = np.iinfo(np.int64).max  # null comes after all else


class Order(NamedTuple):
    """How the rows of a log are put in order.

    Attributes:
        rows: numbers of the rows, in order.
        attempt: of each row, in the order of the file; null where it is not known.
        out_of_order: how many rows stood after a later attempt of their query.
        numbered: how many rows got their attempt by their time.
        tied: how many of those have the time of another row of their query, and say something else.
    """

    rows: np.ndarray
    attempt: pa.Array
    out_of_order: int
    numbered: int
    tied: int


class _Keys(NamedTuple):
    """What rows are sorted by: whole numbers, one a row."""

    query: np.ndarray
    attempt: np.ndarray
    time: np.ndarray
    outcome: np.ndarray
    offered: np.ndarray

    def at(self, rows: np.ndarray) -> "_Keys":
        return _Keys(*(key[rows] for key in self))


def order_of(rows: pa.Table) -> Order:
    """The order of rows: those of a query together, those of a session together, sessions by time.

    A query belongs to the session of its first attempt. Where no row of a query has an attempt,
    they are numbered by time; rows that say the same at the same time are one attempt then.

    Args:
        rows: with the columns of ``SERVICES``, but whole numbers for times, in the order of the
            file.

    Example:
        >>> from cqbayes.logs.schema import SERVICES
        >>> said = {"query_id": ["a"] * 2, "offered": [["x"]] * 2, "chosen": ["x", None]}
        >>> said["timestamp"] = [1_700_000_060_000_000, 1_700_000_000_000_000]
        >>> absent = {name: pa.nulls(2, SERVICES.field(name).type) for name in SERVICES.names}
        >>> found = order_of(pa.table({**absent, **said}))
        >>> found.rows.tolist(), found.attempt.to_pylist(), found.out_of_order
        ([1, 0], [2, 1], 1)
    """
    time = _whole(rows["timestamp"])
    outside = bad_times(pa.array(time, mask=time == _LAST).cast(TIME))
    keys = _Keys(
        _ranks(rows["query_id"]),
        _whole(rows["attempt"]),
        np.where(outside, _LAST, time),
        _outcomes(rows),
        _ranks(_joined(rows["offered"])),
    )
    in_order = _sorted(*keys)
    known = ~_null(rows["query_id"])
    attempt, numbered, tied = _attempts(keys.at(in_order), known[in_order])
    keys.attempt[in_order] = attempt
    return Order(
        in_order[_by_session(rows, keys, in_order)],
        pa.array(keys.attempt, mask=keys.attempt == _LAST).cast(pa.int32()),
        _out_of_order(keys, known),
        numbered,
        tied,
    )


def _sorted(*keys: np.ndarray) -> np.ndarray:
    """Numbers of rows, sorted by keys, the first first; among equals the first row is first."""
    names = [str(i) for i in range(len(keys))]
    by: Any = pc.SortOptions([(name, "ascending") for name in names])
    table = pa.table([pa.array(key) for key in keys], names)
    return pc.call_function("sort_indices", [table], by).to_numpy().astype(np.int64)


def _null(column: pa.ChunkedArray) -> np.ndarray:
    return is_null(column.combine_chunks())


def _whole(column: pa.ChunkedArray) -> np.ndarray:
    return column_numbers(column.combine_chunks().cast(pa.int64()), _LAST).astype(np.int64)


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Places of strings among the different ones, sorted."""
    each: Any = column.dictionary_encode().combine_chunks()
    rank = pc.call_function("rank", [each.dictionary], pc.RankOptions(tiebreaker="dense"))
    return column_numbers(rank.take(each.indices).cast(pa.int64()), _LAST).astype(np.int64)


def _joined(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("binary_join", [lists, pa.scalar("\0", lists.type.value_type)])


def _outcomes(rows: pa.Table) -> np.ndarray:
    """A retry, silence, or the chosen LLM: of two at one time, the retry came first."""
    chosen = _ranks(rows["chosen"])
    silent = column_numbers(rows["silent"].combine_chunks(), False)
    return np.where(chosen < _LAST, 2 * np.minimum(chosen, len(rows)), -2) + silent


def _attempts(keys: _Keys, known: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Attempts of sorted rows, with numbers by time for queries that have none.

    Returns:
        the attempts, how many got a number, and how many of those are tied with the one before.
    """
    count = len(known)
    starts = _starts(keys.query)
    group = np.cumsum(starts) - 1
    has_any = np.bincount(group, keys.attempt < _LAST, minlength=1) > 0
    new = known & ~has_any[group] & (keys.time < _LAST) if count else known
    same_time = ~starts & (keys.time == np.roll(keys.time, 1))
    says_same = same_time & (keys.outcome == np.roll(keys.outcome, 1))
    says_same &= keys.offered == np.roll(keys.offered, 1)
    number = np.cumsum(~says_same)
    number -= number[np.flatnonzero(starts)][group] - 1 if count else 0
    tied = new & same_time & ~says_same
    return np.where(new, number, keys.attempt), int(new.sum()), int(tied.sum())


def _starts(query: np.ndarray) -> np.ndarray:
    """Which of sorted rows are the first of their query."""
    starts = np.ones(len(query), bool)
    starts[1:] = query[1:] != query[:-1]
    return starts


def _out_of_order(keys: _Keys, known: np.ndarray) -> int:
    """How many rows stood after a later attempt of their query."""
    by_query = np.argsort(keys.query, kind="stable")
    known = known & (keys.attempt >= 1) & (keys.attempt < _LAST)
    attempt = np.where(known, keys.attempt, 0)
    # Attempts have 31 bits, so that each query's are larger than those of the query before.
    place = (np.cumsum(_starts(keys.query[by_query])) << 32) + attempt[by_query]
    late = place < np.maximum.accumulate(place)
    return int((late & known[by_query]).sum())


def _by_session(rows: pa.Table, keys: _Keys, in_order: np.ndarray) -> np.ndarray:
    """Places of rows that are sorted by query, so that sessions stand together, and by time."""
    query = keys.query[in_order]
    starts = np.flatnonzero(_starts(query))
    if not len(starts):
        return starts
    first = rows.select(["session_id", "query_id"]).take(pa.array(in_order[starts]))
    session = _ranks(pc.call_function("coalesce", [first["session_id"], first["query_id"]]))
    began = np.minimum.reduceat(keys.time[in_order], starts)
    # Sessions are ranked from 1, and the one without a name is last.
    session = np.where(session == _LAST, 0, session)
    of_session = np.full(session.max() + 1, _LAST)
    np.minimum.at(of_session, session, began)
    queries = _sorted(of_session[session], session, began, query[starts])
    length = np.diff(np.append(starts, len(query)))
    place = np.empty(len(starts), np.int64)
    place[queries] = np.arange(len(starts))
    return np.argsort(np.repeat(place, length), kind="stable")

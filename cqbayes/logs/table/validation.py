"""The rules for rows of the long table of services, and the check of rows against them.

:data:`RULES` lists the rules, each with a name and a sentence. A row is set aside under the first
rule that it breaks. Rules of one row look at that row alone. Rules of queries compare a row with
the rows of the same query that were read before. A row that was set aside by a rule of one row
still counts there as an attempt.

Where the rows of a query stand together, in the order of their attempts, attempts are believed: a
timestamp that goes back is counted then, and its row stays.

Memory is bounded: four numbers are held for each of the last :data:`MOST_QUERIES` queries, and a
hash of eight bytes of its name (two of n names share a hash with a probability of about ``n^2 /
2^65``). Once a query is forgotten, its later rows are not compared with its earlier ones.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

from cqbayes.logs.formats.importer import MOST_BYTES, MOST_BYTES_OF_NAME, MOST_BYTES_OF_RECORD
from cqbayes.logs.table.texts import NOTHING

MOST_LLMS = 1_000  # of an assortment
MOST_QUERIES = 1_000_000  # that are remembered
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

Mask = np.ndarray  # of bool, one a row: which break the rule


class Rule(NamedTuple):
    """A rule that every row must follow.

    Attributes:
        name: short, for counts.
        expected: what every row should be or have, in the words after "expected".
    """

    name: str
    expected: str


# Rules of lines and cells, checked while they are read.
LINE = Rule("line", "a line that is a JSON object, or has a cell for each column of the CSV")
RECORD = Rule("record", f"a row of at most {MOST_BYTES_OF_RECORD:,} bytes")
ENCODING = Rule("encoding", "text in UTF-8")
TIMESTAMP = Rule(
    "timestamp",
    f"a valid timestamp, in ISO 8601 or whole milliseconds since 1970, "
    f"in the years {EARLIEST.year} to {LATEST.year - 1}",
)
CELL = Rule("cell", "in every cell a value of the type of its column, or nothing")
# Rules of one row.
QUERY = Rule("query_id", "a query_id that is not empty")
ATTEMPT = Rule(
    "attempt",
    "an attempt of at least 1; of a query that has none, sort='memory' numbers them by timestamp",
)
LIST = Rule(
    "list",
    "in offered a name, names with bars between them, or a list of names as JSON, Python or NumPy "
    "write it; and no name that looks like a list, with quotes, commas or bars, or in brackets",
)
OFFERED = Rule("offered", f"1 to {MOST_LLMS:,} LLMs in offered, each with a name, each once")
CHOSEN = Rule(
    "chosen",
    "a chosen LLM that is among the offered ones; a retry is an empty cell (null in JSON), not a "
    "word such as retry",
)
SILENT = Rule("silent", "no chosen LLM in a row that is silent")
RETRY = Rule("retry_probability", "a retry_probability in [0, 1]")
PROPENSITY = Rule("propensity", "a propensity in (0, 1]")
WEIGHT = Rule("weight", "a weight that is finite and not negative")
NUMBER = Rule("number", "a latency and a cost that are finite")
EMBEDDING = Rule(
    "embedding",
    "an embedding of finite numbers, not all 0, with the usual length of the first batch, or none "
    "if the first batch has none",
)
LONG_TEXT = Rule("long text", f"a text of at most {MOST_BYTES:,} bytes")
LONG_NAME = Rule("long name", f"names of queries, sessions, users and LLMs of at most "
                 f"{MOST_BYTES_OF_NAME} bytes")  # fmt: skip
# Rules of a query.
DUPLICATE = Rule("duplicate", "each attempt of a query once; the first is kept")
ANSWERED = Rule("answered", "no further service of a query whose answer was taken")
GAP = Rule("gap", "attempts of a query numbered from 1, without a gap")
ORDER = Rule("order", "attempts of a query in the order of their timestamps")

RULES = (
    LINE, RECORD, ENCODING, TIMESTAMP, CELL,
    QUERY, ATTEMPT, LIST, OFFERED, CHOSEN, SILENT, RETRY, PROPENSITY, WEIGHT, NUMBER, EMBEDDING,
    LONG_TEXT, LONG_NAME,
    DUPLICATE, ANSWERED, GAP, ORDER,
)  # fmt: skip
CODE = {rule: code for code, rule in enumerate(RULES, 1)}  # 0: breaks none


# Columns as arrays of NumPy, without null.


def is_null(column: pa.Array) -> Mask:
    if column.null_count == 0:
        return np.zeros(len(column), bool)
    return column.is_null().to_numpy(zero_copy_only=False)


def column_numbers(column: pa.Array, otherwise: float) -> np.ndarray:
    """Numbers or booleans, with ``otherwise`` for null."""
    return column.fill_null(otherwise).to_numpy(zero_copy_only=False)


def lengths(column: pa.Array) -> np.ndarray:
    """Lengths of lists, or of strings in bytes; 0 for null."""
    name = "list_value_length" if pa.types.is_list(column.type) else "binary_length"
    return column_numbers(pc.call_function(name, [column]), 0)


def rows_of(column: pa.Array) -> np.ndarray:
    """In which row each element of the lists stands."""
    return np.repeat(np.arange(len(column)), lengths(column))


def any_in_row(rows: np.ndarray, flags: Mask, count: int) -> Mask:
    found = np.zeros(count, bool)
    found[rows[flags]] = True
    return found


# Brackets within a name may belong to it, as in "llama (8B)"; brackets around it do not.
_LIST_LIKE = (
    r"""["|,;\t\r\n]|^\s*[\[({]|(?:^|\W)'|'(?:\W|$)|^[^\[]*\]|^[^(]*\)|^[^{]*\}"""
    r"""|\[[^\]]*$|\([^)]*$|\{[^}]*$"""
)


def looks_like_list(names: pa.Array) -> Mask:
    """Which names of LLMs look like a list of names, or like a piece of one.

    Args:
        names: strings; null looks like nothing.

    Example:
        >>> looks_like_list(pa.array(["['a', 'b']", "a|b", "llama (8B)", None])).tolist()
        [True, True, False, False]
    """
    each = names.dictionary_encode()
    options = pc.MatchSubstringOptions(_LIST_LIKE)
    found = pc.call_function("match_substring_regex", [each.dictionary], options)
    return column_numbers(found.take(each.indices), False)


# Rules of one row, each a mask of those that break it.


def _list(offered: pa.Array) -> Mask:
    return any_in_row(rows_of(offered), looks_like_list(offered.flatten()), len(offered))


def _offered(offered: pa.Array) -> Mask:
    count = lengths(offered)
    names = offered.flatten()
    row = rows_of(offered)
    words = pc.SetLookupOptions(value_set=pa.array(NOTHING))
    nameless = is_null(names) | column_numbers(pc.call_function("is_in", [names], words), False)
    code = column_numbers(names.dictionary_encode().indices, -1).astype(np.int64)
    several = np.flatnonzero(count[row] > 1)
    pair = np.sort(row[several] * (len(names) + 1) + code[several] + 1)
    twice = pair[1:][pair[1:] == pair[:-1]] // (len(names) + 1)
    bad = (count == 0) | (count > MOST_LLMS) | any_in_row(row, nameless, len(offered))
    bad[twice] = True
    return bad


def not_among(offered: pa.Array, chosen: pa.Array) -> Mask:
    """Which rows have a chosen LLM that was not offered."""
    encoded = offered.flatten().dictionary_encode()
    among = pc.SetLookupOptions(value_set=encoded.dictionary)
    wanted = column_numbers(pc.call_function("index_in", [chosen], among), -1)
    row = rows_of(offered)
    same = wanted[row] == column_numbers(encoded.indices, -2)
    return ~is_null(chosen) & ~any_in_row(row, same & (wanted[row] >= 0), len(chosen))


def _outside(column: pa.Array, least: float, most: float, otherwise: float = 0) -> Mask:
    values = column_numbers(column, otherwise)
    return ~((values >= least) & (values <= most))


def bad_times(column: pa.Array) -> Mask:
    """Which timestamps are in other years; null is in none."""
    least, most = (int(at.timestamp()) * 1_000_000 for at in (EARLIEST, LATEST))
    return _outside(column.cast(pa.int64()), least, most - 1, least)


def _embedding(column: pa.Array, dim: int) -> Mask:
    bad = lengths(column) != dim
    if dim == 0:
        return bad | ~is_null(column)
    sound = column.filter(pa.array(~bad)) if bad.any() else column
    flat = column_numbers(sound.flatten(), np.nan).reshape(-1, dim)
    # A sum of squares is finite and positive where all numbers are finite and one is not 0.
    square = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    bad[~bad] = ~(np.isfinite(square) & (square > 0))
    return bad


_MOST = np.finfo(float).max
_LEAST = np.nextafter(0, 1)
_NAMES = ("query_id", "session_id", "user_id", "chosen")


def _row_rules(dim: int) -> Iterator[tuple[Rule, Callable[[pa.RecordBatch], Mask]]]:
    yield TIMESTAMP, lambda rows: bad_times(rows["timestamp"])
    yield QUERY, lambda rows: lengths(rows["query_id"]) == 0
    yield ATTEMPT, lambda rows: column_numbers(rows["attempt"], 0) < 1
    yield LIST, lambda rows: _list(rows["offered"])
    yield OFFERED, lambda rows: _offered(rows["offered"])
    yield CHOSEN, lambda rows: not_among(rows["offered"], rows["chosen"])
    yield SILENT, lambda rows: column_numbers(rows["silent"], False) & ~is_null(rows["chosen"])
    yield RETRY, lambda rows: _outside(rows["retry_probability"], 0, 1)
    yield PROPENSITY, lambda rows: _outside(rows["propensity"], _LEAST, 1, 1)
    yield WEIGHT, lambda rows: _outside(rows["weight"], 0, _MOST)
    yield NUMBER, lambda rows: _outside(rows["latency"], -_MOST, _MOST)
    yield NUMBER, lambda rows: _outside(rows["cost"], -_MOST, _MOST)
    yield EMBEDDING, lambda rows: _embedding(rows["embedding"], dim)
    yield LONG_TEXT, lambda rows: lengths(rows["text"]) > MOST_BYTES
    for name in _NAMES:
        yield LONG_NAME, lambda rows, n=name: lengths(rows[n]) > MOST_BYTES_OF_NAME
    yield LONG_NAME, lambda rows: _long_offered(rows["offered"])


def _long_offered(offered: pa.Array) -> Mask:
    names = offered.flatten()
    return any_in_row(rows_of(offered), lengths(names) > MOST_BYTES_OF_NAME, len(offered))


# Rules of queries.

_NEVER = np.iinfo(np.int64).min  # how Arrow and NumPy store a missing time


class _Last(NamedTuple):
    """The last row of each of some queries: one element a query."""

    query: np.ndarray  # uint64, ascending
    attempt: np.ndarray
    time: np.ndarray  # the latest that is known
    taken: np.ndarray
    seen: np.ndarray  # when, in batches

    def at(self, places: np.ndarray | int) -> "_Last":
        return _Last(*(column[places] for column in self))


def _none() -> _Last:
    kinds = (np.uint64, np.int64, np.int64, bool, np.int64)
    return _Last(*(np.empty(0, kind) for kind in kinds))


class _Queries:
    """The last row of each query that is remembered."""

    def __init__(self, together: bool) -> None:
        self._together = together
        self._last = _none()
        self._batch = 0
        self.forgotten = 0

    def broken(self, rows: pa.RecordBatch, counts: Mask) -> np.ndarray:
        """Codes of the rules of queries that are broken; 0 in rows that do not count."""
        self._batch += 1
        code = np.zeros(len(rows), np.int8)
        there = np.flatnonzero(counts)
        if len(there) == 0:
            return code
        # Many rows share a query, and a hash takes its time.
        names = rows["query_id"].dictionary_encode()
        objects = names.dictionary.to_numpy(zero_copy_only=False)
        each = hash_array(objects, categorize=False)  # pyright: ignore[reportCallIssue]
        query = each[column_numbers(names.indices, 0)[there]]
        latest = query[-1]
        order = np.argsort(query, kind="stable")
        there, query = there[order], query[order]
        time = column_numbers(rows["timestamp"].cast(pa.int64()), _NEVER)
        time = np.where(bad_times(rows["timestamp"]), _NEVER, time)
        now = _Last(
            query,
            column_numbers(rows["attempt"], 0)[there].astype(np.int64),
            time[there],
            ~is_null(rows["chosen"])[there],
            np.full(len(there), self._batch),
        )
        starts = np.flatnonzero(np.concatenate([[True], query[1:] != query[:-1]]))
        before, known = self._before(query[starts])
        suspect = self._suspect(now, starts, before, known)
        ends = np.append(starts[1:], len(query)) - 1
        last = now.at(ends)
        for group in np.flatnonzero(suspect).tolist():
            inside = range(starts[group], ends[group] + 1)
            start = before.at(group) if known[group] else None
            found, state = self._one_by_one(now, inside, start)
            code[there[inside.start : inside.stop]] = found
            for column, value in zip(last[1:4], state, strict=True):
                column[group] = value
        if self._together:
            self._last = last.at(np.flatnonzero(last.query == latest))
        else:
            self._remember(last)
        return code

    def _before(self, query: np.ndarray) -> tuple[_Last, Mask]:
        """What was last seen of some queries, and whether anything was."""
        if len(self._last.query) == 0:
            nothing = np.zeros(len(query), np.int64)
            return _Last(query, nothing, nothing + _NEVER, nothing > 0, nothing), nothing > 0
        places = np.minimum(np.searchsorted(self._last.query, query), len(self._last.query) - 1)
        known = self._last.query[places] == query
        found = self._last.at(places)
        attempt, taken = np.where(known, found.attempt, 0), found.taken & known
        return _Last(query, attempt, np.where(known, found.time, _NEVER), taken, found.seen), known

    def _suspect(self, now: _Last, starts: np.ndarray, before: _Last, known: Mask) -> Mask:
        """Which queries have a row that may break a rule: these are checked row by row."""

        def previous(name: str) -> np.ndarray:
            values = getattr(now, name)
            shifted = np.concatenate([values[:1], values[:-1]])
            shifted[starts] = getattr(before, name)
            return shifted

        time = previous("time")
        # A row without a time hides the one before it.
        hidden = (now.time == _NEVER) != (time == _NEVER)
        hidden[starts] = known & (now.time[starts] == _NEVER) & (before.time != _NEVER)
        bad = (now.attempt != previous("attempt") + 1) | previous("taken")
        bad |= (now.time != _NEVER) & (now.time < time) | hidden
        return np.logical_or.reduceat(bad, starts)

    def _one_by_one(
        self, now: _Last, rows: range, before: _Last | None
    ) -> tuple[list[int], tuple[int, int, bool]]:
        """Applies the rules of queries to the rows of one query, one after another."""
        codes = []
        # Attempts of a query that may have been forgotten can start anywhere.
        attempt = None if before is None and self.forgotten else 0
        time, taken = _NEVER, False
        if before is not None:
            attempt, time, taken = int(before.attempt), int(before.time), bool(before.taken)
        columns = (now.attempt, now.time, now.taken)
        cells = (column[rows.start : rows.stop].tolist() for column in columns)
        for new, at, answer in zip(*cells, strict=True):
            if attempt is not None and new <= attempt:
                rule = DUPLICATE
            elif taken:
                rule = ANSWERED
            elif attempt is not None and new > attempt + 1:
                rule = GAP
            elif _NEVER < at < time:
                rule = ORDER
            else:
                rule = None
            codes.append(0 if rule is None else CODE[rule])
            if rule is None or (rule is ORDER and self._together):
                attempt, time, taken = new, max(at, time), answer
        return codes, (attempt or 0, time, taken)

    def _remember(self, now: _Last) -> None:
        last = self._last
        places = np.searchsorted(last.query, now.query)
        known = np.zeros(len(places), bool)
        inside = places < len(last.query)
        known[inside] = last.query[places[inside]] == now.query[inside]
        for column, value in zip(last, now, strict=True):
            column[places[known]] = value[known]
        new = now.at(~known)
        merged = (np.insert(*three) for three in zip(last, [places[~known]] * 5, new, strict=True))
        self._last = _Last(*merged)
        excess = len(self._last.query) - MOST_QUERIES
        if excess > 0:
            # Forget half of the queries, so that this happens seldom.
            lost = excess + MOST_QUERIES // 2
            oldest = np.argpartition(self._last.seen, lost - 1)[:lost]
            self.forgotten += lost
            self._last = _Last(*(np.delete(column, oldest) for column in self._last))


class Checker:
    """Checks batches against the rules, one after another.

    Args:
        together: whether the rows of each query stand together, in the order of their attempts;
            then only one query is remembered, and no row breaks ``order``.

    Attributes:
        back: how many rows are kept though their timestamp is before that of an earlier attempt.

    Example:
        >>> from cqbayes.logs.schema import SERVICES
        >>> one = {"query_id": "a", "attempt": 1, "offered": ["x", "y"], "chosen": "z"}
        >>> two = {"query_id": "b", "attempt": 1, "offered": ["x", "y"]}
        >>> codes = Checker().codes(pa.RecordBatch.from_pylist([one, two, two], SERVICES))
        >>> [RULES[code - 1].name if code else None for code in codes]
        ['chosen', None, 'duplicate']
    """

    def __init__(self, together: bool = False) -> None:
        self.back = 0
        self._dim: int | None = None
        self._together = together
        self._queries = _Queries(together)

    @property
    def forgotten(self) -> int:
        """How many queries were forgotten, because there were too many."""
        return self._queries.forgotten

    def codes(self, rows: pa.RecordBatch, faulty: Mask | None = None) -> np.ndarray:
        """Which rule each row breaks first, by :data:`CODE`; 0 for none.

        Args:
            rows: with the columns of ``SERVICES``.
            faulty: rows that are already set aside, and get a 0.
        """
        code = np.zeros(len(rows), np.int8)
        if len(rows) == 0:
            return code
        if self._dim is None:
            self._dim = _usual_length(rows["embedding"])
        for rule, breaks in _row_rules(self._dim):
            code[breaks(rows) & (code == 0)] = CODE[rule]
        named = lengths(rows["query_id"])
        counts = (
            (named > 0) & (named <= MOST_BYTES_OF_NAME) & (column_numbers(rows["attempt"], 0) >= 1)
        )
        of_queries = self._queries.broken(rows, counts)
        code = np.where(code > 0, code, of_queries)
        if faulty is not None:
            code[faulty] = 0
        if self._together:
            back = code == CODE[ORDER]
            self.back += int(back.sum())
            code[back] = 0
        return code


def _usual_length(column: pa.Array) -> int:
    """The most frequent length of the lists; 0 where there are none."""
    there = lengths(column)[~is_null(column)]
    there, counts = np.unique(there[there > 0], return_counts=True)
    return int(there[counts.argmax()]) if len(there) else 0

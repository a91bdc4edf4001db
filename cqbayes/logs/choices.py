"""From services to choice data, at once or in minibatches."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from cqbayes._tools.tables import unit_rows
from cqbayes.choice.data import MOST_LEVELS, SILENCE, ChoiceData, choice_data
from cqbayes.errors import InputError
from cqbayes.logs.table.services import read_services
from cqbayes.logs.table.validation import column_numbers, is_null, lengths, rows_of

Batches = Iterable[pa.RecordBatch]
ContextMaker = Callable[[list[str]], Any]  # texts -> contexts [text, dim]
Columns = dict[str, np.ndarray]
INTEGERS = ("user", "attempt", "time")

MOST_LLMS = 10_000  # of a log
EPOCH = datetime(1970, 1, 1)
HOUR = 3_600_000_000  # microseconds
# How long blocks of time are, and when one began: weeks begin on Monday, as in ISO 8601.
BLOCKS = {"h": (HOUR, 0), "D": (24 * HOUR, 0), "W": (7 * 24 * HOUR, -3 * 24 * HOUR)}


class Codes(NamedTuple):
    """What the integers of choice data mean, the same for all parts of a log.

    Attributes:
        llms: LLM j is the j-th.
        users: user i is the i-th; rows without a user have the number after the last, which is no
            user's. None where no row has a user.
        unit: length of the blocks of time, ``"h"``, ``"D"`` or ``"W"``; None without such blocks.
        times: when each block of time begins, without gaps.
    """

    llms: tuple[str, ...]
    users: tuple[str, ...] | None = None
    unit: str | None = None
    times: tuple[datetime, ...] = ()


class Coded(NamedTuple):
    """Choice data, and what their integers mean: see :class:`Codes`."""

    data: ChoiceData
    llms: tuple[str, ...]
    users: tuple[str, ...] | None
    unit: str | None
    times: tuple[datetime, ...]

    @property
    def codes(self) -> Codes:
        return Codes(*self[1:])


def codes_of(
    batches: Batches,
    *,
    llms: Sequence[str] | None = None,
    users: Sequence[str] | None = None,
    time: str | None = None,
) -> Codes:
    """The codes of a log: its names, sorted, from one pass over the rows.

    Memory grows with the number of names, not of rows.

    Args:
        batches: of ``SERVICES``.
        llms: names of the LLMs, in this order, where they are known; the log is not searched for
            them.
        users: likewise.
        time: length of the blocks of time: ``"h"``, ``"D"``, ``"W"`` (from Monday), in UTC.

    Raises:
        InputError: for a log without rows, for names that are given twice, for rows without a
            timestamp where blocks of time are wanted, and for too many of anything.
    """
    if time is not None and time not in BLOCKS:
        raise InputError(f"time: expected one of {', '.join(BLOCKS)}, got {time!r}")
    for name, given in (("llms", llms), ("users", users)):
        if given is not None and len(set(given)) < len(given):
            raise InputError(f"{name}: expected different names, got one twice")
    count = 0
    of_llms: set[str] = set()
    of_users: set[str] = set()
    ends: list[int] = []
    for batch in batches:
        if len(batch) == 0:
            continue
        count += len(batch)
        if llms is None:
            of_llms.update(batch["offered"].flatten().unique().to_pylist())
            _check_number("LLMs", len(of_llms), MOST_LLMS)
        if users is None:
            of_users.update(filter(None, batch["user_id"].unique().to_pylist()))
            _check_number("users", len(of_users), MOST_LEVELS)
        if time is not None:
            blocks = block_numbers(batch["timestamp"], time)
            ends = [min([*ends, int(blocks.min())]), max([*ends, int(blocks.max())])]
    if count == 0:
        raise InputError("log: expected at least one valid row, got none; see the report")
    found = users if users is not None else sorted(of_users) or None
    times = _starts(time, *ends) if time is not None else ()
    return Codes(
        tuple(sorted(of_llms) if llms is None else llms),
        None if found is None else tuple(found),
        time,
        times,
    )


def _check_number(what: str, count: int, most: int) -> None:
    if count > most:
        raise InputError(f"log: expected at most {most:,} {what}, got more")


def block_numbers(timestamp: pa.Array, unit: str) -> np.ndarray:
    """The number of each timestamp's block of time, counted from a day in 1970.

    Raises:
        InputError: where one is null.
    """
    if timestamp.null_count:
        raise InputError(
            f"timestamp: expected one in every row, since time={unit!r}; got a batch with "
            f"{timestamp.null_count:,} rows without a timestamp"
        )
    length, start = BLOCKS[unit]
    return (column_numbers(timestamp.cast(pa.int64()), 0) - start) // length


def first_block(unit: str, times: Sequence[datetime]) -> int:
    """Number of the first block of a log, counted as by :func:`block_numbers`."""
    length, start = BLOCKS[unit]
    first = (times[0].replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
    return (first - start) // length


def _starts(unit: str, first: int, last: int) -> tuple[datetime, ...]:
    _check_number("blocks of time", last - first + 1, MOST_LEVELS)
    length, start = BLOCKS[unit]
    step, zero = timedelta(microseconds=length), EPOCH + timedelta(microseconds=start)
    return tuple((zero + step * block).replace(tzinfo=UTC) for block in range(first, last + 1))


def choice_data_of(
    batches: Batches,
    *,
    llms: Sequence[str] | None = None,
    users: Sequence[str] | None = None,
    time: str | None = None,
    context: ContextMaker | None = None,
    attributes: Mapping[str, Sequence[float]] | None = None,
) -> Coded:
    """Services as choice data, in memory.

    A row is a retry (0) where nothing was chosen and ``silent`` is not true; ``retry_probability``
    is not used: it belongs to the outcome of a model. Contexts are scaled to unit norm. Rows
    without a user get the number ``num_users``, which is no user's.

    Args:
        batches: of ``SERVICES``, such as :func:`cqbayes.logs.table.services.services` gives.
        llms, users, time: as in :func:`codes_of`.
        context: makes contexts ``[text, dim]`` of texts; column ``embedding`` where absent.
        attributes: numbers for each LLM, the same in all rows.

    Raises:
        InputError: as :func:`codes_of`, for names that are not among the given ones, for rows
            without an embedding or text, and for an LLM without attributes.

    Example:
        >>> from cqbayes.logs.schema import SERVICES
        >>> rest = {"attempt": 1, "offered": ["b", "a"], "embedding": [3.0, 4.0]}
        >>> rows = [{"query_id": "1", "chosen": "b", **rest}, {"query_id": "2", **rest}]
        >>> coded = choice_data_of([pa.RecordBatch.from_pylist(rows, SERVICES)])
        >>> coded.llms, coded.data.choice.tolist(), coded.data.context[0].round(1).tolist()
        (('a', 'b'), [2, 0], [0.6000000238418579, 0.800000011920929])
    """
    parts = list(batches)
    codes = codes_of(parts, llms=llms, users=users, time=time)
    columns = [_columns(part, codes, context) for part in parts if len(part)]
    whole = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return Coded(_data(whole, codes, attributes), *codes)


def minibatches(
    log: str | Path | Batches,
    size: int,
    *,
    codes: Codes | None = None,
    time: str | None = None,
    context: ContextMaker | None = None,
    attributes: Mapping[str, Sequence[float]] | None = None,
) -> Iterator[ChoiceData]:
    """Choice data of one shape, part by part, at constant memory.

    The last part is filled up with rows of weight 0. All parts have the same ``num_users`` and
    ``num_times``, so that one compilation serves all.

    Args:
        log: a file that :func:`cqbayes.logs.table.services.services` reads, or batches of
            ``SERVICES``, which may have passed through further stages.
        size: rows of a part.
        codes: of the whole log; for a file they are found by reading it once before.
        time: as in :func:`codes_of`, where ``codes`` are not given.
        context, attributes: as in :func:`choice_data_of`.

    Raises:
        InputError: as :func:`choice_data_of`, and for batches without ``codes``.
    """
    if size < 1:
        raise InputError(f"size: expected at least 1, got {size}")
    is_file = isinstance(log, str | Path)
    if codes is None:
        if not is_file:
            raise InputError(
                "codes: expected the codes of the whole log, got none; codes_of finds them"
            )
        codes = codes_of(read_services(log), time=time)
    return _parts(read_services(log) if is_file else log, size, codes, context, attributes)


def _parts(
    batches: Batches,
    size: int,
    codes: Codes,
    context: ContextMaker | None,
    attributes: Mapping[str, Sequence[float]] | None,
) -> Iterator[ChoiceData]:
    waiting: list[Columns] = []
    count = 0
    for batch in batches:
        if len(batch) == 0:
            continue
        waiting.append(_columns(batch, codes, context))
        count += len(batch)
        if count < size:
            continue
        whole = _joined(waiting)
        for start in range(0, count - size + 1, size):
            part = {name: column[start : start + size] for name, column in whole.items()}
            yield _data(part, codes, attributes)
        rest = count % size
        waiting = [{name: column[count - rest :] for name, column in whole.items()}] if rest else []
        count = rest
    if count:
        yield _data(_padded(_joined(waiting), size), codes, attributes)


def with_failures(data: ChoiceData, query: Int[np.ndarray, " obs"]) -> tuple[ChoiceData, int]:
    """The data with how often each LLM answered each row's query in vain before.

    Args:
        data: with ``attempt``, of whole queries.
        query: number of each row's query.

    Returns:
        The data, and how many rows have a history that is not whole: attempts before them are
        missing, or have another outcome than a retry. If there are any, the data are as they were.

    Example:
        >>> from cqbayes.choice.data import choice_data
        >>> one = np.eye(2, dtype=bool)
        >>> data = choice_data([[1.0], [1.0]], one, [0, 2], attempt=[1, 2])
        >>> with_failures(data, np.array([7, 7]))[0].failures.tolist()
        [[0, 0], [1, 0]]
    """
    offered, choice = np.asarray(data.offered), np.asarray(data.choice)
    attempt = np.ones(len(choice), int) if data.attempt is None else np.asarray(data.attempt)
    order = np.lexsort((attempt, query))
    begins = np.append(True, query[order][1:] != query[order][:-1])
    place = np.arange(len(order))
    first = np.maximum.accumulate(np.where(begins, place, 0))

    def before(column: np.ndarray) -> np.ndarray:
        """The sum over the rows of the same query that come before."""
        total = np.concatenate([np.zeros_like(column[:1]), np.cumsum(column, axis=0)[:-1]])
        return total - total[first]

    vain = choice[order] == 0
    whole = (attempt[order] == 1 + place - first) & (before((~vain).astype(int)) == 0)
    if not whole.all():
        return data, int((~whole).sum())
    failures = np.empty(offered.shape, np.int32)
    failures[order] = before((offered[order] & vain[:, None]).astype(np.int32))
    return dataclasses.replace(data, failures=jnp.asarray(failures)), 0


def _joined(parts: Sequence[Columns]) -> Columns:
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError:
        raise InputError("context: expected contexts of one length, got several") from None


def _padded(columns: Columns, size: int) -> Columns:
    found = {}
    for name, column in columns.items():
        fill = np.zeros((size - len(column), *column.shape[1:]), column.dtype)
        found[name] = np.concatenate([column, fill + 1 if name == "attempt" else fill])
    return found


def _columns(batch: pa.RecordBatch, codes: Codes, context: ContextMaker | None) -> Columns:
    """Columns of choice data, as far as the codes have them."""
    llms = pa.array(codes.llms, pa.string())
    llm = _codes("llms", batch["offered"].flatten(), llms)
    offered = np.zeros((len(batch), len(llms)), bool)
    offered[rows_of(batch["offered"]), llm] = True
    chosen = batch["chosen"]
    taken = _codes("llms", chosen.drop_null(), llms) + 1
    choice = np.where(column_numbers(batch["silent"], False), SILENCE, 0)
    choice[~is_null(chosen)] = taken
    columns = {
        "context": _contexts(batch, context),
        "offered": offered,
        "choice": choice,
        "weight": column_numbers(batch["weight"], 1),
        "attempt": column_numbers(batch["attempt"], 1),
    }
    if codes.users is not None:
        users = pa.array(codes.users, pa.string())
        named = lengths(batch["user_id"]) > 0
        columns["user"] = np.full(len(batch), len(users))
        columns["user"][named] = _codes("users", batch["user_id"].filter(pa.array(named)), users)
    if codes.unit is not None:
        time = block_numbers(batch["timestamp"], codes.unit) - first_block(codes.unit, codes.times)
        if ((time < 0) | (time >= len(codes.times))).any():
            raise InputError("time: expected all rows within the blocks given, got some outside")
        columns["time"] = time
    return columns


def _codes(name: str, values: pa.Array, known: pa.Array) -> np.ndarray:
    found = pc.call_function("index_in", [values], pc.SetLookupOptions(value_set=known))
    if found.null_count:
        raise InputError(
            f"{name}: expected all names that are in the log, got a batch with others "
            f"{found.null_count:,} times; leave {name} out to find all names"
        )
    return column_numbers(found, -1)


def _contexts(batch: pa.RecordBatch, context: ContextMaker | None) -> np.ndarray:
    if context is not None:
        texts = batch["text"]
        if texts.null_count:
            raise InputError(
                f"text: expected one in every row, got a batch with {texts.null_count:,} rows "
                "without text"
            )
        found = np.asarray(context(texts.to_pylist()), float)
        if found.ndim != 2 or len(found) != len(batch) or found.shape[1] == 0:
            raise InputError(
                f"context: expected shape ({len(batch)}, dim) for {len(batch)} texts, "
                f"got {found.shape}"
            )
        return unit_rows("context", found)
    embedding = batch["embedding"]
    each = np.unique(lengths(embedding))
    if len(each) != 1 or each[0] == 0:
        raise InputError(
            "embedding: expected one of the same length in every row, got others; without "
            "embeddings, give context=, a function from texts to an array [text, dim]"
        )
    flat = column_numbers(embedding.flatten(), np.nan).astype(float)
    return unit_rows("embedding", flat.reshape(len(batch), -1)).astype(np.float32)


def _data(
    columns: Columns, codes: Codes, attributes: Mapping[str, Sequence[float]] | None
) -> ChoiceData:
    each = None
    if attributes is not None:
        missing = [name for name in codes.llms if name not in attributes]
        if missing:
            raise InputError(
                f"attributes: expected numbers for all LLMs, got none for {len(missing)}"
            )
        each = [attributes[name] for name in codes.llms]
    arguments = [columns[name] for name in ("context", "offered", "choice", "weight")]
    optional = {name: columns[name] for name in INTEGERS if name in columns}
    data = choice_data(*arguments, attributes=each, **optional)
    return dataclasses.replace(data, num_users=len(codes.users or ()), num_times=len(codes.times))

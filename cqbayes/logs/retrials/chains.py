"""From turns to services: which answers were taken, and which requests were made again.

Every turn that was answered is a service. The first rule that applies decides its outcome:

1. ``feedback``: with good feedback the answer was taken; with bad feedback it was not.
2. The user asked for another answer (``regenerated`` of the next turn): the answer was not taken.
3. ``accepted``: the answer was taken, whatever is asked next.
4. The next turn has the same text (``repeated``): the answer was not taken.
5. The detector judges the next turn: the answer was not taken where the probability of a retrial
   reaches the threshold, and taken otherwise. The probability is in ``retry_probability``.
6. Nothing follows in the session: ``last`` decides.

So a user's opinion of an answer counts before the user's acts, and a later act (to ask for another
answer) before an earlier one (to accept it).

The next turn is a further **attempt** of the same query where it was generated again, repeated, or
judged a retrial, and the answer before was not taken. It keeps its own text, since a user who
rephrases wants to be understood differently; models with one context per query use that of attempt
1. A query may end with an answer that was not taken: the user said so and went on to other things.

**Transport.** A turn that ``failed`` is neither a service nor a retrial. The turn after it is
compared with the last answered turn: it is repeated only if all texts between are the same, and
generated again if any turn between was. Some formats do not say which turns failed; see their
importers.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Float, Int

from cqbayes._tools.tables import check_columns
from cqbayes.errors import InputError
from cqbayes.logs.retrials.detector import Detector
from cqbayes.logs.retrials.detector_files import load_detector
from cqbayes.logs.retrials.pairs import cosines, features, flags, seconds_between
from cqbayes.logs.schema import SERVICES, TURNS

pc: Any = pyarrow.compute  # whose functions are made when it is imported

MOST_ROWS = 65_536  # that are compared with one another at a time
DAY = 86_400.0

Last = Literal["taken", "silent", "drop"]


class TurnCounts(NamedTuple):
    """Counts of turns by outcome, of the turns that were decided so far.

    Attributes:
        turns: all turns; always ``services + failed + disordered + dropped``.
        services: turns that became services; always ``explicit + inferred + assumed``.
        failed: turns without an answer.
        disordered: turns whose number is not above all earlier numbers of their session, such as
            duplicates.
        dropped: last turns of sessions, without a sign of the outcome, where ``last`` is ``drop``.
        explicit: services whose outcome the user showed.
        inferred: services whose outcome the detector inferred.
        assumed: last services of sessions, without a sign of the outcome.
        retried: explicit and inferred services whose answer was not taken.
        queries: services that are first attempts.
    """

    turns: int = 0
    services: int = 0
    failed: int = 0
    disordered: int = 0
    dropped: int = 0
    explicit: int = 0
    inferred: int = 0
    assumed: int = 0
    retried: int = 0
    queries: int = 0


class ServicesOfTurns(Iterator[pa.RecordBatch]):
    """Batches of ``SERVICES``, made as they are asked for; see :func:`services_of_turns`."""

    def __init__(self, batches: Iterable[pa.RecordBatch], rule: "_Rule") -> None:
        self._report = TurnCounts()
        self._stream = self._made(batches, rule)

    def __next__(self) -> pa.RecordBatch:
        return next(self._stream)

    @property
    def report(self) -> TurnCounts:
        """Counts of the turns decided so far: of all turns once the batches are used up."""
        return self._report

    def _made(self, batches: Iterable[pa.RecordBatch], rule: "_Rule") -> Iterator[pa.RecordBatch]:
        waiting = _Waiting()
        for part in _parts(batches):
            made, waiting, counts = _step(waiting, part, rule)
            self._report = TurnCounts(*np.add(self._report, counts).tolist())
            if made.num_rows:
                yield made
        made, _, counts = _step(waiting, None, rule)
        self._report = TurnCounts(*np.add(self._report, counts).tolist())
        if made.num_rows:
            yield made


def services_of_turns(
    turns: pa.Table | Iterable[pa.RecordBatch],
    detector: Detector | None = None,
    *,
    threshold: float = 0.5,
    last: Last = "taken",
    idle: float = DAY,
    encoder: Any = None,
) -> ServicesOfTurns:
    """Services from turns, batch by batch.

    Memory is bounded by a batch. Where batches begin and end makes no difference.

    Args:
        turns: in ``TURNS``, with the turns of a session together and in the order of ``turn``;
            :func:`in_order` sorts others.
        detector: the detector of the package where absent.
        threshold: a turn counts as a retrial from this probability on.
        last: outcome of the last turn of a session where the user gave no sign: ``taken``,
            ``silent`` (for :mod:`cqbayes.models.abandonment`), or ``drop``, which leaves the turn
            out.
        idle: seconds; a turn after a longer pause is no retrial, and the turn before it counts as
            last.
        encoder: a sentence encoder for the detector's embeddings, none where absent: see
            :func:`cqbayes.embeddings.encoder.load_encoder`.

    Raises:
        InputError: at once for invalid settings, and while reading for a missing column.

    Example:
        >>> turns = pa.Table.from_pylist([
        ...     {"session_id": "a", "turn": 0, "model": "m", "text": "Why?", "repeated": False},
        ...     {"session_id": "a", "turn": 1, "model": "m", "text": "Why?", "repeated": True},
        ... ], TURNS)
        >>> stream = services_of_turns(turns)
        >>> [(row["query_id"], row["attempt"], row["chosen"]) for b in stream for row in
        ...     b.to_pylist()]
        [('a/0', 1, None), ('a/0', 2, 'm')]
        >>> stream.report.explicit, stream.report.assumed
        (1, 1)
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold: expected a probability between 0 and 1, got {threshold}")
    if last not in ("taken", "silent", "drop"):
        raise InputError(f"last: expected taken, silent or drop, got {last!r}")
    if not idle > 0:
        raise InputError(f"idle: expected a positive number of seconds, got {idle}")
    detector = load_detector() if detector is None else detector
    if encoder is not None and detector.embedded is None:
        raise InputError("encoder: expected a detector that was trained with embeddings, or none")
    batches: Any = turns
    if isinstance(batches, pa.Table):
        batches = batches.to_batches()
    return ServicesOfTurns(batches, _Rule(detector, threshold, last, idle, encoder))


def in_order(turns: pa.Table) -> pa.Table:
    """Turns in the order that :func:`services_of_turns` needs, sorted in memory.

    Turns are sorted by session, and within a session by time, or by number where a time is absent.
    Logs of requests repeat a number where a user went back to an earlier place of the conversation:
    such turns get new numbers, so that numbers grow. At one place, the same text after an answer
    was generated again, the same text after a failure was sent again, and another text is a new
    turn. Rows with the same number and time stay duplicates.

    Example:
        >>> turns = [{"session_id": s, "turn": 0, "model": "m", "text": "Why?", "repeated": False,
        ...           "timestamp": t} for s, t in (("b", 2), ("a", 1), ("b", 3))]
        >>> in_order(pa.Table.from_pylist(turns, TURNS)).select(
        ...     ["session_id", "turn", "regenerated"]).to_pydict()
        {'session_id': ['a', 'b', 'b'], 'turn': [0, 0, 1], 'regenerated': [None, None, True]}
    """
    check_columns("turns", turns.column_names, TURNS.names)
    session = pc.dictionary_encode(turns["session_id"].combine_chunks())
    code = np.asarray(session.indices)
    untimed = np.zeros(len(session.dictionary), bool)
    untimed[code[np.asarray(turns["timestamp"].is_null(), bool)]] = True
    by_number = np.where(untimed[code], np.asarray(turns["turn"], np.int64), 0)
    order = ("session_id", "by_number", "timestamp", "turn")
    sorted_turns = turns.append_column("by_number", pa.array(by_number)).sort_by(
        [(name, "ascending") for name in order]
    )
    return _numbered_on(sorted_turns.select(TURNS.names).combine_chunks())


def _numbered_on(turns: pa.Table) -> pa.Table:
    """Sorted turns with numbers that grow, and with further requests at one place marked."""
    if turns.num_rows < 2:
        return turns
    before, here = turns.slice(0, turns.num_rows - 1), turns.slice(1)

    def same(name: str) -> Bool[np.ndarray, " row"]:
        equal = pc.fill_null(pc.equal(before[name], here[name]), False)
        return np.r_[False, np.asarray(equal, bool)]

    begins = ~same("session_id")
    untimed = np.asarray(turns["timestamp"].is_null(), bool)
    at_one_time = same("timestamp") | (untimed & np.r_[False, untimed[:-1]])
    at_one_place = ~begins & same("turn")
    further = at_one_place & ~at_one_time
    # The place among those that are no duplicates; numbers grow at least as it does.
    place = np.cumsum(~(at_one_place & at_one_time))
    number = np.asarray(turns["turn"], np.int64)
    session = np.cumsum(begins)
    ahead = (session << 40) + number - place + (1 << 38)
    number = np.maximum.accumulate(ahead) - (session << 40) - (1 << 38) + place
    unchanged = further & same("text")
    failed, by_program = flags(turns["failed"]), flags(pc.invert(turns["regenerated"]))
    again = unchanged & ~np.r_[False, failed[:-1]] & ~by_program
    columns = {
        "turn": pa.array(number, pa.int32()),
        "regenerated": pc.if_else(pa.array(again), True, turns["regenerated"]),
        "repeated": pc.if_else(pa.array(further), pa.array(unchanged), turns["repeated"]),
    }
    for name, values in columns.items():
        turns = turns.set_column(turns.schema.get_field_index(name), TURNS.field(name), values)
    return turns


class _Rule(NamedTuple):
    detector: Detector
    threshold: float
    last: Last
    idle: float
    encoder: Any


class _Waiting(NamedTuple):
    """What the next batch has to know: the last turn that was answered, which is not yet decided.

    Attributes:
        rows: that turn, and of those that failed after it at most one that was generated again and
            one with another text. No rows at the beginning.
        attempt: its number in its query.
        start: the turn of its query's first attempt.
        session: of the last turn that was read, whatever it was.
        highest: its largest turn so far.
    """

    rows: pa.RecordBatch | None = None
    attempt: int = 1
    start: int = 0
    session: str | None = None
    highest: int = -1


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        check_columns("turns", batch.schema.names, TURNS.names)
        try:
            rows = batch.select(TURNS.names).cast(TURNS)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            raise InputError(
                "turns: expected columns of the types of cqbayes.logs.schema.TURNS, got others"
            ) from None
        for start in range(0, rows.num_rows, MOST_ROWS):
            yield rows.slice(start, MOST_ROWS)


def _step(
    before: _Waiting, part: pa.RecordBatch | None, rule: _Rule
) -> tuple[pa.RecordBatch, _Waiting, TurnCounts]:
    """Services that are decided by what was read so far; without a part, all that are left."""
    disordered = 0
    if part is not None:
        part, before, disordered = _ordered(before, part)
    rows = _joined(before.rows, part)
    failed = 0 if part is None else int(flags(part.column("failed")).sum())
    if rows.num_rows == 0:
        return _nothing(), before._replace(rows=None), TurnCounts(disordered, disordered=disordered)
    at = _places(rows)
    links = _links(rows, at)
    seen = _outcomes(rows, at, links, rule)
    chain = _chains(rows, at, seen.goes_on, before)
    # The last answered turn of the session that may go on waits for the next part.
    waits = part is not None and len(at) > 0 and _same_session(rows, at[-1], rows.num_rows - 1)
    num = len(at) - int(waits)
    made, counts = _made(rows, at[:num], seen, chain, rule)
    total = num + failed + disordered
    counts = counts._replace(turns=total, failed=failed, disordered=disordered)
    if not waits:
        return made, before._replace(rows=None), counts
    kept = rows.take(pa.array(np.r_[at[-1], _one_of_each(rows, at[-1])]))
    later = before._replace(rows=kept, attempt=int(chain.attempt[-1]), start=int(chain.start[-1]))
    return made, later, counts


def _nothing() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], SERVICES)


def _joined(first: pa.RecordBatch | None, second: pa.RecordBatch | None) -> pa.RecordBatch:
    both = [batch for batch in (first, second) if batch is not None]
    if len(both) == 1:
        return both[0]
    if not both:
        return pa.RecordBatch.from_pylist([], TURNS)
    columns = [pa.concat_arrays([b.column(i) for b in both]) for i in range(len(TURNS))]
    return pa.RecordBatch.from_arrays(columns, schema=TURNS)


def _ordered(before: _Waiting, part: pa.RecordBatch) -> tuple[pa.RecordBatch, _Waiting, int]:
    """The part without turns whose number is not above all earlier numbers of their session."""
    session, turn = part.column("session_id"), np.asarray(part.column("turn"), np.int64)
    begins = np.r_[session[0].as_py() != before.session, _changes(session)]
    number = np.cumsum(begins)
    # The largest so far of (session, turn) in one number: sessions only grow.
    code = (number << 32) + turn
    highest = np.maximum.accumulate(np.r_[before.highest, code])
    good = code > highest[:-1]
    last = int(highest[-1]) - (int(number[-1]) << 32)
    after = before._replace(session=session[-1].as_py(), highest=last)
    return part.filter(pa.array(good)) if not good.all() else part, after, int((~good).sum())


def _changes(session: pa.Array) -> Bool[np.ndarray, " row"]:
    return np.asarray(pc.not_equal(session[1:], session[:-1]), bool)


def _same_session(rows: pa.RecordBatch, one: int, other: int) -> bool:
    session = rows.column("session_id")
    return session[int(one)] == session[int(other)]


def _places(rows: pa.RecordBatch) -> Int[np.ndarray, " answered"]:
    """Rows of the turns that were answered."""
    return np.flatnonzero(~flags(rows.column("failed")))


def _one_of_each(rows: pa.RecordBatch, after: int) -> Int[np.ndarray, " failed"]:
    """Rows of failed turns at the end: those that :class:`_Links` needs."""
    tail = np.arange(after + 1, rows.num_rows)
    marks = flags(rows.column("regenerated"))[tail], ~flags(rows.column("repeated"))[tail]
    return np.unique(np.concatenate([tail[mark][:1] for mark in marks]))


class _Links(NamedTuple):
    """How each answered turn goes on, ``[answered]`` each.

    Attributes:
        follows: whether an answered turn comes next in the session, within ``idle`` or not.
        regenerated: whether another answer was asked for.
        repeated: whether the next answered turn has the same text, and so have those between.
    """

    follows: Bool[np.ndarray, " answered"]
    regenerated: Bool[np.ndarray, " answered"]
    repeated: Bool[np.ndarray, " answered"]


def _links(rows: pa.RecordBatch, at: np.ndarray) -> _Links:
    num = rows.num_rows
    session = rows.column("session_id")
    ends = np.r_[np.flatnonzero(_changes(session)), num - 1]  # of sessions
    end = ends[np.searchsorted(ends, at)]
    after = np.r_[at[1:], num]
    follows = after <= end
    end = np.where(follows, after, end)

    def between(mark: np.ndarray) -> np.ndarray:
        """How many from the turn after each answered one to the next answered or the end."""
        total = np.cumsum(mark)
        return total[end] - total[at]

    regenerated = between(flags(rows.column("regenerated"))) > 0
    repeated = follows & (between(~flags(rows.column("repeated"))) == 0)
    return _Links(follows, regenerated, repeated)


class _Outcomes(NamedTuple):
    """The outcome of each answered turn, ``[answered]`` each.

    Attributes:
        taken: whether the answer was taken.
        unknown: whether the outcome is neither shown nor inferred.
        probability: of a retrial, where the outcome was inferred; NaN elsewhere.
        goes_on: whether the next answered turn is a further attempt.
    """

    taken: Bool[np.ndarray, " answered"]
    unknown: Bool[np.ndarray, " answered"]
    probability: Float[np.ndarray, " answered"]
    goes_on: Bool[np.ndarray, " answered"]


def _outcomes(rows: pa.RecordBatch, at: np.ndarray, links: _Links, rule: _Rule) -> _Outcomes:
    said = np.asarray(rows.column("feedback").fill_null(0).cast(pa.float64()))[at]
    good, bad = said > 0, said < 0
    soon = links.follows & ~_idle(rows, at, rule.idle)
    regenerated = links.regenerated & ~good
    accepted = flags(rows.column("accepted"))[at] & ~good & ~bad & ~regenerated
    repeated = links.repeated & soon & ~good & ~regenerated & ~accepted
    asked = soon & ~good & ~regenerated & ~accepted & ~repeated
    probability = np.full(len(at), np.nan)
    where = np.flatnonzero(asked)
    if len(where):
        first, second = rows.take(pa.array(at[where])), rows.take(pa.array(at[where + 1]))
        meaning = None if rule.encoder is None else cosines(first, second, rule.encoder)
        probability[where] = rule.detector.probability(features(first, second, meaning))
    again = asked & (probability >= rule.threshold)
    retried = bad | regenerated | repeated | again
    unknown = ~(good | bad | regenerated | accepted | repeated | asked)
    goes_on = (links.follows & regenerated) | repeated | again
    inferred = np.where(bad, np.nan, probability)
    return _Outcomes(~retried & ~unknown, unknown, inferred, goes_on)


def _idle(rows: pa.RecordBatch, at: np.ndarray, idle: float) -> Bool[np.ndarray, " answered"]:
    """Whether the next answered turn comes too late; not where a time is absent."""
    if len(at) == 0:
        return np.zeros(0, bool)
    times = rows.select(["timestamp"]).take(pa.array(at))
    with np.errstate(invalid="ignore"):
        return np.r_[seconds_between(times[:-1], times[1:]) > idle, False]


class _Chain(NamedTuple):
    attempt: Int[np.ndarray, " answered"]
    start: Int[np.ndarray, " answered"]


def _chains(rows: pa.RecordBatch, at: np.ndarray, goes_on: np.ndarray, before: _Waiting) -> _Chain:
    """Number of each attempt, and the turn of its query's first one."""
    if len(at) == 0:
        return _Chain(at, at)
    place = np.arange(len(at))
    first = np.maximum.accumulate(np.where(np.r_[True, ~goes_on[:-1]], place, 0))
    attempt = place - first + 1
    start = np.asarray(rows.column("turn"), np.int64)[at][first]
    if before.rows is not None:  # then the first row is an attempt of an earlier query
        attempt = np.where(first == 0, attempt + before.attempt - 1, attempt)
        start = np.where(first == 0, before.start, start)
    return _Chain(attempt, start)


def _made(
    rows: pa.RecordBatch, at: np.ndarray, seen: _Outcomes, chain: _Chain, rule: _Rule
) -> tuple[pa.RecordBatch, TurnCounts]:
    """The services of the first answered turns, as many as ``at`` has."""
    num = len(at)
    unknown, taken = seen.unknown[:num], seen.taken[:num]
    kept = np.flatnonzero(~unknown) if rule.last == "drop" else np.arange(num)
    silent = unknown & (rule.last == "silent")
    chosen = taken | (unknown & (rule.last == "taken"))
    probability = seen.probability[:num]
    inferred = ~np.isnan(probability)
    from_turns = rows.take(pa.array(at[kept]))
    model, session = from_turns.column("model"), from_turns.column("session_id")
    absent = pa.scalar(None, pa.string())
    columns: dict[str, pa.Array] = {
        name: from_turns.column(name)
        for name in ("session_id", "user_id", "timestamp", "text", "latency", "cost")
    }
    columns |= {
        "query_id": pc.binary_join_element_wise(
            session, pa.array(chain.start[:num][kept]).cast(pa.string()), "/"
        ),
        "attempt": pa.array(chain.attempt[:num][kept], pa.int32()),
        "offered": pa.ListArray.from_arrays(pa.array(np.arange(len(kept) + 1), pa.int32()), model),
        "chosen": pc.if_else(pa.array(chosen[kept]), model, absent),
        "silent": pa.array(silent[kept]),
        "retry_probability": pa.array(probability[kept], mask=~inferred[kept]),
    }
    made = pa.RecordBatch.from_arrays(
        [
            columns[field.name] if field.name in columns else pa.nulls(len(kept), field.type)
            for field in SERVICES
        ],
        schema=SERVICES,
    )
    counts = TurnCounts(
        services=len(kept),
        dropped=num - len(kept),
        explicit=int((~unknown & ~inferred).sum()),
        inferred=int(inferred.sum()),
        assumed=int(unknown[kept].sum()),
        retried=int((~unknown & ~taken).sum()),
        queries=int((chain.attempt[:num][kept] == 1).sum()),
    )
    return made, counts

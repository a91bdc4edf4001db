"""From turns to services: which answers were taken, and which requests were made again.

A turn is a **reaction** to the last answer before it in its session, unless it comes more than
``idle`` seconds after the request that was answered. So an answer has the reactions up to the next
answer: some that failed, and at most one that was answered. The first rule that applies decides the
outcome of an answer:

1. ``feedback``: with good feedback the answer was taken; with bad feedback it was not.
2. The user asked for another answer (``regenerated`` of any reaction): it was not taken.
3. ``accepted``: the answer was taken, whatever is asked next.
4. The user sent the same words again (``repeated`` of all reactions): the answer was not taken.
5. A reaction was answered, in other words. The detector says how probable it is that it asks again
   or complains (``retry_probability``): from the threshold on, the answer was not taken, and below
   it was. :func:`cqbayes.fit` goes on with the score behind the probability and leaves the outcome
   open. With ``next_turn="taken"`` it was taken, whatever the words.
6. No reaction was answered: the outcome is not known, and ``last`` decides.

Where the detector has nothing to compare, since one of the two turns has no words, a reaction is
there and says nothing: such an answer makes no service.

So what the user showed counts before what is inferred, an opinion of an answer before acts, and a
later act (to ask for another answer) before an earlier one (to accept it).

The reaction that was answered is a further **attempt** of the same query where rule 2, 4 or 5 says
that the user asked again; after bad feedback the rules from 2 on say so. It keeps its own text,
since a user who rephrases wants to be understood differently; models with one context per query use
that of attempt 1. A query may end with an answer that was not taken: the user said so and went on.

A turn that ``failed`` has no answer: it is no service and no attempt. It is a reaction, though: who
asked for another answer and got an error did not take the answer before. A turn without a ``model``
was answered, but it is not known whose answer was shown: it is an attempt, the next turn is a
reaction to it and not to the answer before, and it makes no service.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Float, Int, Shaped

from cqbayes._tools.tables import check_columns
from cqbayes.errors import InputError
from cqbayes.logs.formats.digests import digest
from cqbayes.logs.retrials.detector import CLASSES, Detector, classes_of, load_detector
from cqbayes.logs.retrials.pairs import flags
from cqbayes.logs.schema import SERVICES, TURNS

pc: Any = pyarrow.compute  # whose functions are made when it is imported

MOST_ROWS = 65_536  # of a session that are decided together
DAY = 86_400.0
KINDS = ("explicit", "inferred", "went_on", "last")  # of outcomes; see TurnCounts

Last = Literal["silent", "taken", "drop"]
NextTurn = Literal["infer", "taken"]


class TurnCounts(NamedTuple):
    """Counts of turns by outcome, of the turns that were decided so far.

    Attributes:
        turns: all turns; always ``services + failed + disordered + unattributed + unseen +
            dropped``.
        services: turns that became services; always ``explicit + inferred + went_on + last``.
        failed: turns without an answer.
        disordered: turns whose number is not above all earlier numbers of their session.
        unattributed: answered turns without a ``model``.
        unseen: answers whose outcome cannot be seen, since this turn or the next has no words.
        dropped: answers of unknown outcome, where ``last`` is ``drop``.
        cut: places where a session of more than ``MOST_ROWS`` turns was cut, as if it ended there.
        explicit: services whose outcome the user showed (rules 1 to 4).
        inferred: services whose outcome the detector inferred.
        went_on: services that count as taken since another request follows, by
            ``next_turn="taken"``.
        last: services of unknown outcome, since nothing was answered after them within ``idle``.
        retried: services whose answer was not taken; explicit or inferred ones.
        queries: services that are first attempts.
        asked_again: of the explicit ones, those after which the user asked again; ``said_bad``,
            those of which the user said that the answer was bad. Some are both.
        guessed: services in sessions that were guessed.
        guessed_retrials: those of them after which the user asked again, to judge by turns that
            may be another user's.
    """

    turns: int = 0
    services: int = 0
    failed: int = 0
    disordered: int = 0
    unattributed: int = 0
    unseen: int = 0
    dropped: int = 0
    cut: int = 0
    explicit: int = 0
    inferred: int = 0
    went_on: int = 0
    last: int = 0
    retried: int = 0
    queries: int = 0
    asked_again: int = 0
    said_bad: int = 0
    guessed: int = 0
    guessed_retrials: int = 0


class Rule(NamedTuple):
    """How outcomes are decided: the arguments of :func:`services_of_turns`."""

    detector: Detector
    threshold: float = 0.5
    last: Last = "silent"
    next_turn: NextTurn = "infer"
    idle: float = DAY
    labels: Mapping[str, "Said"] = MappingProxyType({})


class Said(NamedTuple):
    """What people say of a pair of requests.

    Attributes:
        retrial: whether the second says that the answer to the first was not taken.
        score_class: class of its score when it was drawn.
    """

    retrial: bool
    score_class: int


class Known(NamedTuple):
    """What is known of next requests whose score says something of an answer.

    Attributes:
        labelled: of each service: -1 without a label, 0 labelled as taken, 1 as a retrial.
        drawn_class: class of its pair's score when it was drawn; -1 without a label.
        shown_class: class of the score of the next request, where users showed what became of the
            answer; -1 elsewhere.
        after: how many next requests of each class follow answers that users showed to be taken,
            and ones that they showed not to be.
    """

    labelled: Int[np.ndarray, " service"]
    drawn_class: Int[np.ndarray, " service"]
    shown_class: Int[np.ndarray, " service"]
    after: Int[np.ndarray, "2 class"]


class ServicesOfTurns(Iterator[pa.RecordBatch]):
    """Batches of ``SERVICES``, made as they are asked for; see :func:`services_of_turns`."""

    def __init__(self, batches: Iterable[pa.RecordBatch], rule: Rule) -> None:
        self._report = TurnCounts()
        self._known: list[Known] = []
        self._stream = self._made(batches, rule)

    def __next__(self) -> pa.RecordBatch:
        return next(self._stream)

    @property
    def report(self) -> TurnCounts:
        """Counts of the turns decided so far: of all turns once the batches are used up."""
        return self._report

    @property
    def known(self) -> Known:
        """What is known of next requests, of the services made so far."""
        nobody = np.zeros(0, int)
        none = Known(nobody, nobody, nobody, np.zeros((2, CLASSES), int))
        labelled, drawn, shown, after = zip(none, *self._known, strict=True)
        return Known(
            np.concatenate(labelled),
            np.concatenate(drawn),
            np.concatenate(shown),
            np.sum(after, axis=0),
        )

    def _made(self, batches: Iterable[pa.RecordBatch], rule: Rule) -> Iterator[pa.RecordBatch]:
        for rows, cut in _whole_sessions(batches):
            services, counts, known = decide(rows, rule)
            counts = counts._replace(cut=int(cut))
            self._known.append(known)
            self._report = TurnCounts(*np.add(self._report, counts).tolist())
            if services.num_rows:
                yield services


def services_of_turns(
    turns: pa.Table | Iterable[pa.RecordBatch],
    detector: Detector | None = None,
    *,
    threshold: float = 0.5,
    last: Last = "silent",
    next_turn: NextTurn = "infer",
    idle: float = DAY,
    labels: Mapping[str, Said] = MappingProxyType({}),
) -> ServicesOfTurns:
    """Services from turns, whole sessions at a time.

    Memory is bounded by a batch and a session. Where batches begin and end makes no difference.

    Args:
        turns: in ``TURNS``, with the turns of a session together and in the order of ``turn``.
        detector: the detector of the package where absent.
        threshold: a turn counts as a retrial from this probability on.
        last: what becomes of an answer of unknown outcome: ``silent`` (for
            :mod:`cqbayes.models.abandonment`), ``taken``, or ``drop``, which leaves it out.
        next_turn: what another request, in other words, says of the answer before: ``infer`` asks
            the detector, ``taken`` says that the user went on, for logs in which users show
            retrials.
        idle: seconds after which a turn is no reaction to the one before.
        labels: what people say of pairs of requests, by their digest.

    Raises:
        InputError: at once for invalid settings, and while reading for invalid columns.

    Example:
        >>> turn = {"session_id": "a", "guessed": False, "model": "m", "text": "Why?"}
        >>> turns = pa.Table.from_pylist([
        ...     {**turn, "turn": 0, "repeated": False}, {**turn, "turn": 1, "repeated": True},
        ... ], TURNS)
        >>> stream = services_of_turns(turns, last="taken")
        >>> [(row["query_id"], row["attempt"], row["chosen"]) for b in stream for row in
        ...     b.to_pylist()]
        [('a/0', 1, None), ('a/0', 2, 'm')]
        >>> stream.report.explicit, stream.report.last
        (1, 1)
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold: expected a probability between 0 and 1, got {threshold}")
    if last not in ("silent", "taken", "drop"):
        raise InputError(f"last: expected silent, taken or drop, got {last!r}")
    if next_turn not in ("infer", "taken"):
        raise InputError(f"next_turn: expected infer or taken, got {next_turn!r}")
    if not idle > 0:
        raise InputError(f"idle: expected a positive number of seconds, got {idle}")
    detector = load_detector() if detector is None else detector
    batches: Any = turns
    if isinstance(batches, pa.Table):
        batches = batches.to_batches()
    return ServicesOfTurns(batches, Rule(detector, threshold, last, next_turn, idle, labels))


def _whole_sessions(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """The same turns in batches of whole sessions; and whether a session was cut at the end."""
    held = pa.RecordBatch.from_pylist([], TURNS)  # of the session that may go on
    for batch in _parts(batches):
        columns = zip(held.columns, batch.columns, strict=True)
        rows = pa.RecordBatch.from_arrays([pa.concat_arrays(c) for c in columns], schema=TURNS)
        starts = np.flatnonzero(_begins(rows))
        first = starts[1] if len(starts) > 1 else rows.num_rows
        if first > MOST_ROWS:  # others cannot be: a batch has no more rows
            yield rows[:MOST_ROWS], True
            rows, starts = rows[MOST_ROWS:], np.maximum(starts - MOST_ROWS, 0)
        if starts[-1]:
            yield rows[: starts[-1]], False
        held = rows[starts[-1] :]
    if held.num_rows:
        yield held, False


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same turns in batches of at most ``MOST_ROWS``, checked; none is empty."""
    for batch in batches:
        check_columns("turns", batch.schema.names, TURNS.names)
        try:
            rows = batch.select(TURNS.names).cast(TURNS)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            raise InputError(
                "turns: expected columns of the types of cqbayes.logs.schema.TURNS, and no null "
                "where that allows none, got others"
            ) from None
        for start in range(0, rows.num_rows, MOST_ROWS):
            yield rows[start : start + MOST_ROWS]


def _begins(rows: pa.RecordBatch) -> Bool[np.ndarray, " row"]:
    """Whether a session begins."""
    session = rows["session_id"]
    return np.r_[True, np.asarray(pc.not_equal(session[1:], session[:-1]), bool)]


class Pairs(NamedTuple):
    """Pairs of requests of which the second says what became of the answer to the first.

    Attributes:
        pair: digests, which no one can make without session and texts.
        probability: of a retrial, by the detector.
        first, second: the requests.
    """

    pair: list[str]
    probability: Float[np.ndarray, " pair"]
    first: pa.Array
    second: pa.Array


def inferred_pairs(batches: Iterable[pa.RecordBatch], rule: Rule) -> Iterator[Pairs]:
    """The pairs behind all services whose outcome is inferred.

    Args:
        batches: of turns, as in :func:`services_of_turns`.
        rule: how outcomes are decided.
    """
    for turns, _ in _whole_sessions(batches):
        rows, _, _, seen = _looked_at(turns, rule)
        some = (seen.kind == "inferred") & np.asarray(rows["model"].is_valid(), bool)
        first = np.flatnonzero(some)
        second = seen.reaction[first]
        texts = (rows["text"].take(pa.array(at)) for at in (first, second))
        yield Pairs(_digests(rows, first, second), seen.probability[first], *texts)


def _digests(rows: pa.RecordBatch, first: np.ndarray, second: np.ndarray) -> list[str]:
    """Of pairs of turns."""
    columns = rows.select(["session_id", "turn", "text"])
    one, two = (columns.take(pa.array(at)).to_pydict() for at in (first, second))
    said = zip(one["session_id"], one["turn"], one["text"], two["turn"], two["text"], strict=True)
    return [digest(*map(str, parts)) for parts in said]


def decide(turns: pa.RecordBatch, rule: Rule) -> tuple[pa.RecordBatch, TurnCounts, Known]:
    """The services of whole sessions, counts of their turns, and what else is known of them.

    Args:
        turns: at least one, in ``TURNS``; the turns of a session together and in order.
        rule: how outcomes are decided.
    """
    rows, answered, before, seen = _looked_at(turns, rule)
    start, attempt = _attempts(answered, before, seen.again)
    attributed = answered & np.asarray(rows["model"].is_valid(), bool)
    known, unknown = attributed & (seen.kind != "unseen"), seen.kind == "last"
    kept = known & ~(unknown & (rule.last == "drop"))

    def count(*which: np.ndarray) -> int:
        return int(np.logical_and.reduce(which).sum())

    counts = TurnCounts(
        turns=turns.num_rows,
        services=count(kept),
        failed=count(~answered),
        disordered=turns.num_rows - rows.num_rows,
        unattributed=count(answered, ~attributed),
        unseen=count(attributed, ~known),
        dropped=count(known, ~kept),
        retried=count(kept, ~seen.taken, ~unknown),
        queries=count(kept, attempt == 1),
        asked_again=count(kept, seen.shown),
        said_bad=count(kept, (rows["feedback"].fill_null(0).to_numpy() < 0)),
        guessed=count(kept, flags(rows["guessed"])),
        guessed_retrials=count(kept, flags(rows["guessed"]), seen.again),
        **{kind: count(kept, seen.kind == kind) for kind in KINDS},
    )
    columns = {name: rows[name] for name in rows.schema.names if name in SERVICES.names}
    number = rows["turn"].take(pa.array(start)).cast(pa.string())
    place = pa.array(np.arange(rows.num_rows + 1), pa.int32())
    taken = seen.taken | (unknown & (rule.last == "taken"))
    columns |= {
        "query_id": pc.binary_join_element_wise(rows["session_id"], number, "/"),
        "attempt": pa.array(attempt, pa.int32()),
        "offered": pa.ListArray.from_arrays(place, rows["model"]),
        "chosen": pc.if_else(pa.array(taken), rows["model"], pa.scalar(None, pa.string())),
        "silent": pa.array(unknown & (rule.last == "silent")),
        "retry_probability": pa.array(seen.probability, mask=np.isnan(seen.probability)),
    }
    absent = {field.name: pa.nulls(rows.num_rows, field.type) for field in SERVICES}
    services = pa.RecordBatch.from_pydict({**absent, **columns}, SERVICES)
    return services.filter(pa.array(kept)), counts, _known(rows, seen, kept, rule)


def _looked_at(
    turns: pa.RecordBatch, rule: Rule
) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray, "_Outcomes"]:
    """Turns in order, which were answered, what each is a reaction to, and outcomes."""
    rows = turns.filter(pa.array(_in_order(turns)))
    answered = ~flags(rows["failed"])
    before = _answers_before(rows, answered, rule.idle)
    return rows, answered, before, _outcomes(rows, answered, before, rule)


def _known(rows: pa.RecordBatch, seen: "_Outcomes", kept: np.ndarray, rule: Rule) -> Known:
    labelled, drawn, spoke = np.full((3, rows.num_rows), -1)
    if rule.labels:
        asked = np.flatnonzero(kept & (seen.kind == "inferred"))
        pairs = _digests(rows, asked, seen.reaction[asked])
        said = [rule.labels.get(pair) for pair in pairs]
        labelled[asked] = [-1 if one is None else one.retrial for one in said]
        drawn[asked] = [-1 if one is None else one.score_class for one in said]
    after = np.zeros((2, CLASSES), int)
    # In a guessed session the next request may be another user's.
    sure = ~flags(rows["guessed"]) & (seen.kind == "explicit")
    shown = np.flatnonzero(sure & (seen.reaction >= 0))
    spoke[shown] = classes_of(seen.score[shown])
    np.add.at(after, (1 - seen.taken[shown], spoke[shown]), 1)
    return Known(labelled[kept], drawn[kept], spoke[kept], after)


def _in_order(turns: pa.RecordBatch) -> Bool[np.ndarray, " row"]:
    """Whether the number of each turn is above all earlier numbers of its session."""
    begins = _begins(turns)
    number = pd.Series(np.asarray(turns["turn"], np.int64))
    highest = number.groupby(np.cumsum(begins)).cummax()
    return begins | (np.diff(highest, prepend=0) > 0)


def _answers_before(
    rows: pa.RecordBatch, answered: np.ndarray, idle: float
) -> Int[np.ndarray, " row"]:
    """The row of the answer that each turn is a reaction to, or -1."""
    place = np.arange(rows.num_rows)
    session = np.maximum.accumulate(np.where(_begins(rows), place, 0))
    latest = np.maximum.accumulate(np.where(answered, place, -1))
    before = np.r_[-1, latest[:-1]]
    times = rows["timestamp"].cast(pa.int64()).cast(pa.float64())
    seconds = times.to_numpy(zero_copy_only=False) / 1e6
    late = seconds - seconds[before] > idle  # not where a time is absent, which is NaN
    return np.where((before >= session) & ~late, before, -1)


class _Outcomes(NamedTuple):
    """The outcome of each answer, ``[row]``; rows that failed have one too, without a meaning.

    Attributes:
        kind: one of ``KINDS``, or ``unseen``.
        taken: whether the answer was taken, as far as this is known.
        again: whether the user asked again.
        shown: whether the user showed that.
        probability: of a retrial, where the outcome was inferred; NaN elsewhere.
        reaction: the row of a request in other words that was answered next, or -1.
        score: of that request.
    """

    kind: Shaped[np.ndarray, " row"]
    taken: Bool[np.ndarray, " row"]
    again: Bool[np.ndarray, " row"]
    shown: Bool[np.ndarray, " row"]
    probability: Float[np.ndarray, " row"]
    reaction: Int[np.ndarray, " row"]
    score: Float[np.ndarray, " row"]


def _outcomes(
    rows: pa.RecordBatch, answered: np.ndarray, before: np.ndarray, rule: Rule
) -> _Outcomes:
    def reaction(which: np.ndarray) -> Bool[np.ndarray, " row"]:
        """Whether a reaction to each answer is among these turns."""
        found = np.zeros(rows.num_rows, bool)
        found[before[which & (before >= 0)]] = True
        return found

    same, worded = flags(rows["repeated"]), _worded(rows["text"])
    feedback = rows["feedback"].fill_null(0).to_numpy()
    good, bad = feedback > 0, feedback < 0
    rules = [
        (good, "taken"),
        (reaction(flags(rows["regenerated"])), "again"),
        (flags(rows["accepted"]) & ~bad, "taken"),
        (reaction(same) & ~reaction(~same), "again"),
        (reaction(answered) & (rule.next_turn == "taken"), "went_on"),
        (reaction(answered & worded) & worded, "inferred"),
        (reaction(answered), "unseen"),
    ]
    sign = np.select([found for found, _ in rules], [sign for _, sign in rules], "last")
    asked = np.flatnonzero(answered & worded & (before >= 0))
    of = before[asked]
    # After an answer that the user took, too: it says what scores mean in this log.
    plain = ~same[asked] & ~flags(rows["regenerated"])[asked] & (rule.next_turn == "infer")
    asked = asked[(sign[of] == "inferred") | ((sign[of] == "taken") & worded[of] & plain)]
    follows, score = np.full(rows.num_rows, -1), np.full(rows.num_rows, np.nan)
    follows[before[asked]] = asked
    if len(asked):
        first, second = (rows["text"].take(pa.array(which)) for which in (before[asked], asked))
        score[before[asked]] = rule.detector.score(first, second)
    probability = np.where(sign == "inferred", rule.detector.probability(score), np.nan)
    shown = sign == "again"
    again = shown | (probability >= rule.threshold)
    kind = np.where(bad | shown | (sign == "taken"), "explicit", sign)
    taken = ~bad & ~again & (kind != "unseen") & (kind != "last")
    probability = np.where(bad, np.nan, probability)
    return _Outcomes(kind, taken, again, shown, probability, follows, score)


def _worded(text: pa.Array) -> Bool[np.ndarray, " row"]:
    """Whether there are words, not white space alone."""
    blank = pc.or_(pc.equal(pc.binary_length(text), 0), pc.utf8_is_space(text))
    return ~flags(blank.fill_null(True))


def _attempts(
    answered: np.ndarray, before: np.ndarray, again: np.ndarray
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """The row of the first attempt of each answer's query, and the number of the attempt."""
    further = (before >= 0) & again[before]
    place = np.arange(len(answered))
    start = np.maximum.accumulate(np.where(answered & ~further, place, 0))
    answers = np.cumsum(answered)
    return start, answers - answers[start] + 1

"""From requests to turns: which requests are a user's, and which of them follow one another.

Importers state facts; here, and nowhere else, they are interpreted. Every row is accounted for: it
is a turn, or it is counted under the reason why it is none.

**Identity.** What a span does not say of its session and user, the spans around it say. The owner
of a key is no user.

**Sessions.** A session that a client or a tool states is known. Where several users share one, each
has their own. Without one, requests are linked by what they hold: a request goes on from another if
its messages of the user are those of the other and one more; for a user who is known, also if they
are the same. Such sessions are *guessed*: nothing in them counts as explicit.

**Which requests are no turns.** Second records of a request: delivered twice, logged twice (the
second begins before the first has ended), nested in it. Steps of a program: arrays that go on after
the user's last message, prompts of its own within one trace. What an application or a gateway asks
for itself: titles, health checks (:mod:`cqbayes.logs.application_requests`), and what begins during
an answer, or within ``REACTION`` of its end, and leads nowhere. Calls that are no chat.

**A user asked again** (``regenerated``, ``repeated``) only where all of this holds: the session is
known; the second request begins ``REACTION`` after the answer to the first has ended, or later, and
at most ``idle`` later; both messages have words, and all that is in them is the same. What may be a
second record or a user who asked again, and no time decides it, is no turn, and the outcome of the
one before is not known: its ``model`` is null. So is that of requests to several LLMs at once,
since it is not known whose answer was shown.

No outcome depends on the order of records in a file.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from cqbayes.errors import InputError
from cqbayes.logs.application_requests import is_of_application
from cqbayes.logs.formats.digests import (
    chain,
    digest,
)
from cqbayes.logs.formats.importer import EPOCH, Importer
from cqbayes.logs.quarantine import Report
from cqbayes.logs.records import read_requests
from cqbayes.logs.schema import REQUESTS, TURNS
from cqbayes.logs.traces import APPLICATION, OWN_PROMPT, STEP, groups, requests_only

DAY = 86_400.0
REACTION = timedelta(seconds=0.5)  # no person reads an answer and writes another message in it
TASK_SOON = timedelta(seconds=5)  # after an answer, in which applications ask for titles
AT_ONCE = timedelta(seconds=0.1)  # between the beginnings of two records of one request
MOST_ROWS = 5_000_000  # of a log, in memory
OPEN = 64  # turns of a session that are looked back at for overlaps in time

# Why a row is no turn.
DUPLICATE = "second records: the same record again"
LOGGED_TWICE = "second records: begun before the answer to the same request had ended"
RACED = "requests sent to another LLM at the same time"
CONCURRENT = "begun during an answer or at its end, and not gone on with"
BY_GATEWAY = "sent again by the gateway"
UNDATED = "the same request again, and no time says whether after the answer"
WORDLESS = "the same request again, without words"
UNORDERED = "in a session with a request that has no time"


class RequestCounts(NamedTuple):
    """What became of the rows of ``REQUESTS``.

    Attributes:
        requests: all rows; always ``turns`` plus all of ``not_turns``.
        turns: rows that are turns of users.
        not_turns: the other rows, by the reason why they are none.
        sessions: of turns.
        guessed_sessions: of these, the ones that no one states.
        calls: names of calls that are no chat, where they are plain names.
    """

    requests: int = 0
    turns: int = 0
    not_turns: Mapping[str, int] = MappingProxyType({})
    sessions: int = 0
    guessed_sessions: int = 0
    calls: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [("requests and other rows", self.requests), ("turns of users", self.turns)]
        rows += sorted(self.not_turns.items(), key=lambda item: (-item[1], item[0]))
        width = max(len(f"{count:,}") for _, count in rows)
        lines = [f"{count:>{width},}  {name}" for name, count in rows]
        if self.calls:
            lines.append(f"{'':>{width}}  calls that are no chat: {', '.join(self.calls)}")
        lines.append(
            f"{self.sessions:>{width},}  sessions, {self.guessed_sessions:,} of them guessed"
        )
        return "\n".join(lines)


class TurnsOfLog(NamedTuple):
    """Turns, and what became of everything that was read."""

    turns: pa.Table
    counts: RequestCounts
    report: Report | None = None


def read_turns(
    importer: Importer,
    path: str | Path | Sequence[str | Path],
    *,
    idle: float = DAY,
    quarantine: str | Path | None = None,
    strict: bool = False,
) -> TurnsOfLog:
    """The turns of a log, in memory: :func:`turns_of_requests` of what the importer reads.

    Args:
        importer: the log format.
        path, quarantine, strict: as in :func:`cqbayes.logs.records.read_requests`.
        idle: as in :func:`turns_of_requests`.
    """
    source = read_requests(importer, path, quarantine=quarantine, strict=strict)
    batches, rows = [], 0
    for batch in source:
        rows += batch.num_rows
        if rows > MOST_ROWS:
            raise InputError(
                f"log: expected at most {MOST_ROWS:,} requests to be interpreted in memory, got "
                "more; split the log by users, so that sessions stay together"
            )
        batches.append(batch)
    found = turns_of_requests(pa.Table.from_batches(batches, REQUESTS), idle=idle)
    return found._replace(report=source.report)


def turns_of_requests(requests: pa.Table, *, idle: float = DAY) -> TurnsOfLog:
    """The turns of users among requests, session by session, in order.

    Args:
        requests: columns of ``REQUESTS``, in any order.
        idle: seconds after the end of an answer until which a request can be a reaction to it.

    Example:
        >>> from cqbayes.logs.formats.importer import Request
        >>> def request(start):
        ...     return Request(session="a", llm="m", turn=0, text="Why?", message="why", after=0,
        ...                    start=EPOCH + timedelta(seconds=start),
        ...                    end=EPOCH + timedelta(seconds=start + 5))._asdict()
        >>> table = pa.Table.from_pylist([request(t) for t in (60, 3, 0)], REQUESTS)
        >>> found = turns_of_requests(table)
        >>> found.turns.select(["turn", "regenerated"]).to_pylist()
        [{'turn': 0, 'regenerated': None}, {'turn': 1, 'regenerated': True}]
        >>> found.counts.not_turns == {LOGGED_TWICE: 1}
        True
    """
    if not idle > 0:
        raise InputError(f"idle: expected a positive number of seconds, got {idle}")
    counts: Counter[str] = Counter()
    requests, calls = requests_only(requests, counts)
    paths: list[tuple[datetime, str, bool, list[dict[str, Any]]]] = []
    for group in groups(requests):
        threads = _Threads(group, timedelta(seconds=idle), counts)
        paths += threads.paths()
    # By content, so that the order of records in a file makes no difference.
    paths.sort(key=lambda path: path[:2])
    rows = [row for *_, path in paths for row in path]
    found = RequestCounts(
        len(rows) + counts.total(),
        len(rows),
        {reason: count for reason, count in counts.items() if count},
        len(paths),
        sum(guessed for _, _, guessed, _ in paths),
        calls,
    )
    return TurnsOfLog(pa.Table.from_pylist(rows, TURNS), found)


# Requests that may be of one session: which are turns, and which follow which.


@dataclass(slots=True, eq=False)
class _Turn:
    """A request that is a turn of a user, so far."""

    row: dict[str, Any]
    start: datetime | None
    end: datetime | None
    failed: bool
    certain: bool = True  # whether it is known whose answer was shown, and what came of it
    regenerated: bool | None = None
    repeated: bool = False
    probation: str | None = None  # why it is none, if nothing goes on from it
    before: "_Turn | None" = None
    after: "_Turn | None" = None
    texts: list[str] = field(default_factory=list)

    @property
    def place(self) -> Any:
        return self.row["asked"], self.row["message"]

    def merge(self, other: dict[str, Any], whole: bool = True) -> None:
        """Takes what a second record of the same request says and this one does not.

        Args:
            other: the record.
            whole: whether the answer was there only when both had ended.
        """
        for name in (
            "feedback",
            "accepted",
            "cost",
            "response_chars",
            "answer",
            "language",
            "user",
        ):
            if self.row[name] is None:
                self.row[name] = other[name]
        self.start = self.start or other["start"]
        self.end = (max if whole else min)(filter(None, (self.end, _end(other))), default=None)

    def extend(self, step: dict[str, Any]) -> None:
        """Goes on with a step of the program that makes the same answer."""
        self.end = max(filter(None, (self.end, _end(step))), default=None)
        for name in ("feedback", "accepted"):
            self.row[name] = step[name] if step[name] is not None else self.row[name]
        if step["cost"] is not None:
            self.row["cost"] = (self.row["cost"] or 0.0) + step["cost"]
        if not step["failed"]:
            self.row |= {name: step[name] for name in ("response_chars", "answer")}
        self.row["latency"] = None


def _end(row: dict[str, Any]) -> datetime | None:
    if row["end"] is None and row["start"] is not None and row["latency"] is not None:
        return row["start"] + timedelta(seconds=min(row["latency"], DAY))
    if row["end"] is not None and row["start"] is not None and row["end"] < row["start"]:
        return None  # one of the two is not what it is called
    return row["end"]


def _follow(first: _Turn, second: _Turn) -> None:
    first.after, second.before = second, first


class _Threads:
    """The turns of one group of requests, linked to paths."""

    def __init__(self, rows: list[dict[str, Any]], idle: timedelta, counts: Counter[str]) -> None:
        self._idle, self._counts = idle, counts
        self._is_known = rows[0]["session"] is not None
        self._has_user = rows[0]["user"] is not None
        self._turns: list[_Turn] = []
        self._at: dict[Any, _Turn] = {}  # the latest at a place of the conversation
        self._upto: dict[str, list[_Turn]] = {}  # from which a request may go on
        self._of_trace: dict[str, _Turn] = {}
        ordered = self._in_order(rows)
        self._talks = _conversations(ordered)
        answered = [row["place"] for row in ordered if row["response_chars"] is not None]
        self._last_answered = max((place for place in answered if place is not None), default=-1)
        for row in ordered:
            self._add(row)
        self._settle()

    def _in_order(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows in order, without those that came twice; none where no order is known."""
        unique: dict[Any, dict[str, Any]] = {}
        for row in sorted(rows, key=_content):
            own = ("id",) if row["id"] is not None else ("end", "history", "answer", "place")
            key = tuple(row[name] for name in (*own, "start", "message", "asked", "llm"))
            if key in unique:
                self._counts[DUPLICATE] += 1
                kept = unique[key]  # which one copy may have been before its answer
                end = max(filter(None, (kept["end"], row["end"])), default=None)
                absent = {name for name in kept if kept[name] is None}
                unique[key] = {**kept, **{name: row[name] for name in absent}, "end": end}
            else:
                unique[key] = row
        found = list(unique.values())
        if all(row["place"] is not None for row in found):
            return sorted(found, key=lambda row: (row["place"], row["answer"] is None))
        if all(row["start"] is not None for row in found) or not self._is_known:
            return found
        turns = [row["turn"] for row in found]
        if None not in turns and len(set(turns)) == len(turns):
            return sorted(found, key=lambda row: row["turn"])
        self._counts[UNORDERED] += len(found)
        return []

    def _add(self, row: dict[str, Any]) -> None:
        # In a conversation, a message before others that was not answered.
        skipped = row["response_chars"] is None and (row["place"] or 0) < self._last_answered
        failed = bool(row["failed"]) or (row["place"] is not None and skipped)
        new = _Turn(row, row["start"], _end(row), failed)
        same = self._at.get(new.place)
        if same is not None and not self._is_of_program(same, row):
            same = same if self._is_near(same, new) else None
        before = self._goes_on_from(row)
        reason = (
            self._as_step(same, row)
            or self._as_second_record(same, new)
            or self._as_own_prompt(same, before, row)
            or self._again(same, new)
        )
        if reason is None and new.before is None:
            reason = self._further(before, new)
        if reason is not None:
            self._counts[reason] += 1
            return
        self._turns.append(new)
        self._at[new.place] = new
        self._upto.setdefault(chain(*new.place), []).append(new)
        if row["trace"] is not None:
            self._of_trace.setdefault(row["trace"], new)

    # Why a request is no turn, or None.

    def _as_step(self, same: _Turn | None, row: dict[str, Any]) -> str | None:
        if same is not None and self._is_of_program(same, row):
            same.extend(row)
            return STEP
        return STEP if same is None and row["tools"] else None

    @staticmethod
    def _is_of_program(same: _Turn, row: dict[str, Any]) -> bool:
        return bool(row["tools"]) or (row["after"] or 0) > (same.row["after"] or 0)

    def _as_second_record(self, same: _Turn | None, new: _Turn) -> str | None:
        if same is None:
            return None
        if new.row["place"] is not None and new.row["place"] == same.row["place"]:
            both = same.row["answer"], new.row["answer"]
            if None not in both and both[0] != both[1]:
                same.certain = False  # two answers, and who knows which one was shown
            same.merge(new.row)
            return DUPLICATE
        if new.start is None or same.start is None or same.end is None:
            return None
        if _are_ordered(same, new):
            return None
        if same.failed and not new.failed:  # the answer came from the other one
            same.row |= {name: new.row[name] for name in ("llm", "failed", "end", "latency")}
            same.failed, same.end = False, new.end
            same.merge(new.row)
            return LOGGED_TWICE
        if new.failed or _same_llm(same.row["llm"], new.row["llm"]):
            same.merge(new.row)
            return LOGGED_TWICE
        same.certain = False
        same.merge(new.row, whole=False)
        return RACED

    def _as_own_prompt(
        self, same: _Turn | None, before: _Turn | None, row: dict[str, Any]
    ) -> str | None:
        trace = row["trace"]
        if trace not in self._of_trace or trace in self._talks:
            return None
        for other in (same, before):
            if other is not None and other.row["trace"] == trace and other.failed:
                return None
        return OWN_PROMPT

    def _again(self, same: _Turn | None, new: _Turn) -> str | None:
        """Whether the user asks for another answer; links the two turns if so."""
        if same is None:
            return None
        if same.after is not None:
            if same.after.probation is None or same.after.after is not None:
                return None
            same.after.before = None  # what a program sent at once, and nothing went on from
        if same.failed:
            _follow(same, new)
            return None
        if (new.row["attempts"] or 0) > 0:
            same.certain = False
            return BY_GATEWAY
        if not _are_ordered(same, new):
            if not self._is_known:
                return None
            same.certain = False
            return UNDATED
        if self._is_late(same, new):
            return None
        if self._is_too_soon(same, new):
            same.certain = False
            same.end = max(filter(None, (same.end, new.end)), default=None)
            return CONCURRENT
        if new.row["text"] is None:
            same.certain = False
            return WORDLESS
        new.regenerated = True if self._is_known else None
        _follow(same, new)
        return None

    def _further(self, before: _Turn | None, new: _Turn) -> str | None:
        """Links a turn to the one that it goes on from, if it is not the application's."""
        row = new.row
        if before is not None and before.after is None and not self._is_lost(before, new):
            _follow(before, new)
            alike = row["message"] == before.row["message"] and row["text"] is not None
            sure = self._is_known and not before.failed and _are_ordered(before, new, told=True)
            soon = self._is_too_soon(before, new)
            new.repeated = bool(alike and sure and not soon and not self._is_late(before, new))
            new.probation = CONCURRENT if self._is_known and soon else None
            return None
        if not self._turns or row["place"] is not None:
            return None
        since = self._since_answer(new)
        if not row["turn"] and row["text"] is not None:
            earlier = [turn.row["text"] or "" for turn in self._turns[-8:]]
            soon = since is not None and since < TASK_SOON
            if is_of_application(row["text"], earlier, soon):
                return APPLICATION
        if self._is_known and since is not None and since < REACTION:
            new.probation = CONCURRENT
        return None

    # Helpers.

    def _goes_on_from(self, row: dict[str, Any]) -> _Turn | None:
        if row["asked"] is None:
            return None
        found = self._upto.get(row["asked"], [])
        if not self._is_known:
            # Several may have asked the same words; the answers tell whose conversation it is.
            fits = [turn for turn in found if _answer_fits(turn, row) and turn.after is None]
            return fits[-1] if fits else None
        if found:
            return found[-1]
        last = self._turns[-1] if self._turns else None  # where old messages were cut off
        is_last = last is not None and last.row["message"] == row["before"]
        return last if is_last else None

    def _is_near(self, same: _Turn, new: _Turn) -> bool:
        """Whether the same messages are of one user who does nothing else meanwhile."""
        if not self._is_known and not self._has_user:
            # Strangers say the same; but not at the same moment.
            if same.start is None or new.start is None:
                return False
            return abs(new.start - same.start) <= AT_ONCE
        during = same.start is not None and new.start is not None
        if new.row["place"] is not None and new.row["place"] == same.row["place"]:
            return True
        if new.row["asked"] is not None or (during and not _are_ordered(same, new)):
            return True
        # Nothing before it shows where in a conversation it was sent: only the turn before counts.
        settled = [turn for turn in self._turns if turn.probation is None]
        return bool(settled) and settled[-1] is same

    @staticmethod
    def _is_too_soon(first: _Turn, second: _Turn) -> bool:
        """Whether nobody can have read the answer to the first, where requests have times.

        What follows an answer and has begun before its end says that the end is wrong.
        """
        if second.row["place"] is not None or first.end is None or second.start is None:
            return False
        return timedelta(0) <= second.start - first.end < REACTION

    def _is_late(self, first: _Turn, second: _Turn) -> bool:
        begun = first.end or first.start
        if begun is None or second.start is None:
            return False
        return second.start - begun > self._idle

    def _is_lost(self, first: _Turn, second: _Turn) -> bool:
        """Whether a guess that two turns are of one session would be too bold."""
        return not self._is_known and self._is_late(first, second)

    def _since_answer(self, new: _Turn) -> timedelta | None:
        """How long after the latest answer a request begins; below zero during one."""
        ends = [turn.end for turn in self._turns[-OPEN:] if turn.end is not None]
        return None if not ends or new.start is None else new.start - max(ends)

    def _settle(self) -> None:
        """Drops what is on probation, and links what follows in a known session."""
        kept = []
        for turn in self._turns:
            if turn.probation is not None and turn.after is None:
                self._counts[turn.probation] += 1
                if turn.before is not None and turn.before.after is turn:
                    turn.before.after = None
            else:
                kept.append(turn)
        self._turns = kept
        if self._is_known:
            for first, second in pairwise(kept):
                if first.after is None and second.before is None:
                    _follow(first, second)

    def paths(self) -> list[tuple[datetime, str, bool, list[dict[str, Any]]]]:
        """Sessions: when each began, its name, whether it was guessed, and rows of ``TURNS``."""
        found = []
        heads = [turn for turn in self._turns if turn.before is None]
        for place, turn in enumerate(heads):
            begun, name = turn.start or EPOCH, self._name(turn, place)
            rows = []
            step: _Turn | None = turn
            while step is not None:
                rows.append(_as_turn(step, name, len(rows), not self._is_known))
                step = step.after
            found.append((begun, name, not self._is_known, rows))
        return found

    def _name(self, head: _Turn, place: int) -> str:
        row = head.row
        if not self._is_known:
            said = ("user", "owner", "trace", "id", "opening", "message", "answer", "llm")
            return digest(str(head.start), place, *(row[name] for name in said))
        return row["session"] if place == 0 else digest(row["session"], place)


def _content(row: dict[str, Any]) -> tuple[Any, ...]:
    """A key by which rows have the same order, whatever their order was in a file."""
    start, end = row["start"] or EPOCH, _end(row) or EPOCH
    rest = ("turn", "after", "place")
    names = ("id", "llm", "message", "asked", "history", "answer", "parent")
    numbers = tuple(-1 if row[name] is None else row[name] for name in rest)
    return (start, numbers, end, *(row[name] or "" for name in names))


def _conversations(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Traces that hold several turns of a conversation, and not one run of a program."""
    asked: dict[str, set[str]] = {}
    for row in rows:
        if row["trace"] is not None:
            asked.setdefault(row["trace"], set()).add(chain(row["asked"], row["message"]))
    return {row["trace"] for row in rows if row["asked"] in asked.get(row["trace"], ())}


def _are_ordered(first: _Turn, second: _Turn, told: bool = False) -> bool:
    """Whether the second request is known to begin after the answer to the first has ended.

    Args:
        first, second: the turns.
        told: whether the second holds the conversation up to it, and so, perhaps, the answer.
    """
    one, two = first.row, second.row
    if one["place"] is not None and two["place"] is not None:
        return two["place"] > one["place"]
    if second.start is not None and first.end is not None and first.start is not None:
        return second.start >= first.end and second.start > first.start
    unanswered = chain(one["history"], "user", one["message"])
    return told and two["history"] is not None and two["history"] != unanswered


def _answer_fits(first: _Turn, row: dict[str, Any]) -> bool:
    """Whether the answer to a turn is what a later request holds in its place, where both say."""
    one = first.row
    if one["answer"] is None or row["history"] is None:
        return True
    asked = chain(one["history"], "user", one["message"])
    return row["history"] in (asked, chain(asked, "assistant", one["answer"]))


def _same_llm(one: str, other: str) -> bool:
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def _as_turn(turn: _Turn, session: str, number: int, guessed: bool) -> dict[str, Any]:
    row = turn.row
    latency = row["latency"]
    if latency is None and turn.start is not None and turn.end is not None:
        latency = max((turn.end - turn.start).total_seconds(), 0.0)
    return {
        "session_id": session,
        "turn": number,
        "guessed": guessed,
        "user_id": row["user"],
        "timestamp": turn.start,
        "model": row["llm"] if turn.certain else None,
        "text": row["text"],
        "response_chars": None if turn.failed else row["response_chars"],
        "language": row["language"],
        "latency": latency,
        "cost": row["cost"],
        "failed": turn.failed,
        "regenerated": turn.regenerated,
        "feedback": row["feedback"],
        "accepted": row["accepted"],
        "repeated": turn.repeated,
    }

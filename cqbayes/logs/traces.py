"""Which rows of ``REQUESTS`` may be turns, whose they are, and which may be of one session.

The records of a trace say of each other what each alone does not: a root span names the session and
the user, a score is about a request, a request in a request is the same one recorded twice.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from cqbayes.logs.application_requests import is_health_check, is_marked_as_task
from cqbayes.logs.formats.digests import (
    chain,
    digest,
)
from cqbayes.logs.formats.importer import EPOCH
from cqbayes.logs.schema import REQUESTS

MOST_DEPTH = 32  # of spans in spans
ROWS = 65_536  # that are Python objects at a time

# Why a row is no turn.
SPAN = "spans that are no requests to an LLM"
SCORE = "scores: they go to the requests that they are about"
LONE_SCORE = "scores of a record that is not here"
EMPTY = "messages without content"
OTHER_CALL = "calls that are no chat"
HEALTH_CHECK = "health checks of the gateway"
NESTED = "second records: nested in another request"
STEP = "steps of a program: the messages go on after the user's last one"
OWN_PROMPT = "steps of a program: another prompt, or the same again, in one trace"
APPLICATION = "asked by the application itself: titles, tags and the like"
EARLIER = "earlier lines of a conversation that a later line holds whole"
NO_LLM = "requests without an LLM"

# Rows of the table: which of them are requests of a chat, and whose.

_NO_CHAT = re.compile(
    r"embed|moderat|image|transcri|speech|audio|rerank|ocr|video|vector|tool|search|batch|file",
    re.IGNORECASE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,40}")
_ABOUT = ("kind", "id", "trace", "parent", "session", "user", "owner", "start", "call", "marks",
          "llm", "message", "opening", "asked", "history", "answer", "tools", "place", "feedback",
          "accepted")  # fmt: skip


def requests_only(table: pa.Table, counts: Counter[str]) -> tuple[pa.Table, tuple[str, ...]]:
    """Rows that may be turns, with the identity and the opinions that other rows state.

    The column ``group`` is added: rows that may belong to one session have the same number.
    """
    column = {name: table[name].to_pylist() for name in _ABOUT}
    kind, message = column["kind"], column["message"]
    tree = _Tree(column)
    session, user = tree.identity()
    # Who owns a key is not who asks, under whatever name it stands.
    user = [None if one == owner else one for one, owner in zip(user, column["owner"], strict=True)]
    session = _apart(_stated(session, column), user)
    kept: list[int] = []
    calls: set[str] = set()
    stated = tree.stated_inputs()
    earlier = _earlier_lines(session, column)
    for i in range(table.num_rows):
        reason = None
        if kind[i] == "span":
            reason = SPAN
        elif kind[i] == "request":
            call, marks = column["call"][i] or "", column["marks"][i] or ()
            if message[i] is None and column["tools"][i]:
                reason = STEP
            elif message[i] is None and column["place"][i] is not None:
                reason = EMPTY
            elif message[i] is None or _NO_CHAT.search(call):
                reason = OTHER_CALL
                calls |= {call} if _PLAIN_NAME.fullmatch(call) else set()
            elif column["llm"][i] is None:
                reason = NO_LLM
            elif is_health_check(tree.marks_around(i)):
                reason = HEALTH_CHECK
            elif is_marked_as_task(marks):
                reason = APPLICATION
            elif tree.outer_request(i) is not None:
                reason = NESTED
            elif (
                column["asked"][i] is None
                and stated.get(column["trace"][i], message[i]) != (message[i])
            ):
                reason = OWN_PROMPT
            elif session[i] in earlier:
                reason = EARLIER
            else:
                kept.append(i)
        if reason is not None:
            counts[reason] += 1
    opinions = tree.opinions(kept, counts)
    here = table.take(pa.array(kept, pa.int64()))
    for name, values in (("session", session), ("user", user)):
        here = _with(here, name, [values[i] for i in kept])
    for place, name in enumerate(("feedback", "accepted")):
        here = _with(here, name, [opinions[i][place] for i in kept])
    return _with(here, "group", _group_numbers(here, column, kept)), tuple(sorted(calls)[:8])


def _earlier_lines(session: list[str | None], column: dict[str, list[Any]]) -> set[str]:
    """Conversations that are the beginning of another one, which holds them whole.

    A log of requests as conversations has a line for each request, and each line holds the lines
    before. A first message alone is no sign, since strangers begin alike; but where no answer is
    there, and later lines of the same conversation are found, it is one of them.
    """
    place = column["place"]
    rows = [i for i, one in enumerate(session) if one is not None and place[i] is not None]
    last: dict[str, int] = {}
    for i in rows:
        known = last.setdefault(session[i] or "", i)
        last[session[i] or ""] = i if place[i] > place[known] else known
    holders: dict[Any, str] = {}  # of a message that others go on from: the longest conversation
    for i in rows:
        one = session[i] or ""
        key = (column["history"][i], column["message"][i])
        if i != last[one] and place[last[one]] >= place[last[holders.get(key, one)]]:
            holders[key] = one

    def holder(one: str, i: int) -> str | None:
        found = holders.get((column["history"][i], column["message"][i]))
        return None if found == one else found

    late = {one: i for one, i in last.items() if column["history"][i] is not None}
    found = {one for one, i in late.items() if holder(one, i) is not None}
    of = {holder(one, late[one]) for one in found}
    first = {one: i for one, i in last.items() if one not in late and column["answer"][i] is None}
    return found | {one for one, i in first.items() if holder(one, i) in of - {None}}


def _stated(session: list[str | None], column: dict[str, list[Any]]) -> list[str | None]:
    """The sessions, without those that a gateway made up for single requests.

    Where a session has one request, and that one goes on from a request of another session, nobody
    calls that a session. If most sessions of one request with a conversation before it are of this
    kind, none that has only one request is believed.
    """
    number = Counter(one for one in session if one is not None)
    goes_on = {
        chain(asked, message)
        for one, asked, message in zip(session, column["asked"], column["message"], strict=True)
        if one is not None and message is not None
    }
    late = [
        asked in goes_on
        for one, asked, place in zip(session, column["asked"], column["place"], strict=True)
        if one is not None and number[one] == 1 and asked is not None and place is None
    ]
    if sum(late) * 2 <= len(late) or not late:
        return session
    return [None if one is not None and number[one] == 1 else one for one in session]


def _apart(session: list[str | None], user: list[str | None]) -> list[str | None]:
    """The sessions, with another one for each user where several users share one."""
    users: dict[str, set[str]] = {}
    for one, who in zip(session, user, strict=True):
        if one is not None and who is not None:
            users.setdefault(one, set()).add(who)
    shared = {one for one, several in users.items() if len(several) > 1}
    pairs = zip(session, user, strict=True)
    return [digest(one, who) if one in shared else one for one, who in pairs]


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, pa.array(values))
    field_of = REQUESTS.field(name)
    place = table.schema.get_field_index(name)
    return table.set_column(place, field_of, pa.array(values, field_of.type))


class _Tree:
    """The records of each trace, by which one of them is in which other."""

    def __init__(self, column: dict[str, list[Any]]) -> None:
        self._column = column
        self._place = {
            (trace, name): i
            for i, (kind, trace, name) in enumerate(
                zip(column["kind"], column["trace"], column["id"], strict=True)
            )
            if name is not None and kind != "score"
        }
        self._of_trace: dict[str, list[int]] = {}
        for i, trace in enumerate(column["trace"]):
            if trace is not None:
                self._of_trace.setdefault(trace, []).append(i)

    def _outwards(self, i: int) -> Iterator[int]:
        """The records around a record, the nearest first."""
        trace = self._column["trace"][i]
        for _ in range(MOST_DEPTH):
            parent = self._column["parent"][i]
            found = None if parent is None else self._place.get((trace, parent))
            if found is None or found == i:
                return
            yield found
            i = found

    def marks_around(self, i: int) -> list[str]:
        """The marks of a record and of those around it."""
        return [mark for j in (i, *self._outwards(i)) for mark in self._column["marks"][j] or ()]

    def outer_request(self, i: int) -> int | None:
        """The outermost request to an LLM around a request."""
        column, found = self._column, None
        for j in self._outwards(i):
            is_one = column["kind"][j] == "request" and column["message"][j] is not None
            if is_one and column["llm"][j] is not None:
                found = j
        return found

    def identity(self) -> tuple[list[str | None], list[str | None]]:
        """The session and the user of each record, also where only those around it say them."""
        return self._known("session"), self._known("user")

    def _known(self, name: str) -> list[str | None]:
        own = self._column[name]
        only: dict[str, str] = {}
        for trace, rows in self._of_trace.items():
            said = {own[i] for i in rows} - {None}
            if len(said) == 1:
                only[trace] = said.pop()
        found = list(own)
        for i, (kind, value) in enumerate(zip(self._column["kind"], own, strict=True)):
            if value is None and kind == "request" and self._column["trace"][i] is not None:
                around = (own[j] for j in self._outwards(i) if own[j] is not None)
                found[i] = next(around, only.get(self._column["trace"][i]))
        return found

    def stated_inputs(self) -> dict[str, str]:
        """The message that a trace itself calls its input, where one of its requests has it."""
        column, found = self._column, {}
        for trace, rows in self._of_trace.items():
            said = {column["message"][i] for i in rows if column["kind"][i] == "span"} - {None}
            asked = {column["message"][i] for i in rows if column["kind"][i] == "request"}
            both = said & asked
            if len(both) == 1:
                found[trace] = both.pop()
        return found

    def opinions(
        self, kept: Sequence[int], counts: Counter[str]
    ) -> dict[int, tuple[float | None, bool | None]]:
        """What users said of each request that is kept; nothing where they said two things."""
        column = self._column
        of: dict[int, tuple[set[float], set[bool]]] = {i: (set(), set()) for i in kept}

        def add(i: int, target: int) -> None:
            for said, name in zip(of[target], ("feedback", "accepted"), strict=True):
                if column[name][i] is not None:
                    said.add(column[name][i])

        for i, kind in enumerate(column["kind"]):
            if kind == "request" and (target := self._target(i, of)) is not None:
                add(i, target)
            elif kind == "score":
                named = self._place.get((column["trace"][i], column["id"][i]))
                target = None if named is None else self._target(named, of)
                target = self._last_of(column["trace"][i], of) if target is None else target
                if target is None:
                    counts[LONE_SCORE] += 1
                else:
                    counts[SCORE] += 1
                    add(i, target)
        return {i: (_one(said), _one(took)) for i, (said, took) in of.items()}

    def _target(self, i: int, of: Any) -> int | None:
        """The request that is kept and is this one, or around it."""
        return next((j for j in (i, *self._outwards(i)) if j in of), None)

    def _last_of(self, trace: str | None, of: Any) -> int | None:
        here = [i for i in self._of_trace.get(trace or "", ()) if i in of]
        start = self._column["start"]
        return max(here, key=lambda i: (start[i] or EPOCH, i)) if here else None


def _one(values: set[Any]) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _group_numbers(here: pa.Table, column: dict[str, list[Any]], kept: list[int]) -> list[int]:
    """A number for each row: the same where rows may be of one session."""
    session, user = here["session"].to_pylist(), here["user"].to_pylist()
    first: dict[str, tuple[Any, str]] = {}  # of each trace: when it began, and with which words
    for i in kept:
        opening = column["opening"][i] or column["message"][i]
        trace = column["trace"][i]
        if trace is not None:
            begun = (column["start"][i] or EPOCH, opening)
            first[trace] = min(first.get(trace, begun), begun)
    number: dict[Any, int] = {}
    found = []
    for i, one, who in zip(kept, session, user, strict=True):
        if one is not None:
            key: Any = ("session", one)
        elif who is not None:
            key = ("user", who)
        else:
            trace = column["trace"][i]
            opening = column["opening"][i] or column["message"][i]
            opening = first[trace][1] if trace is not None else opening
            key = ("opening", column["owner"][i], opening)
        found.append(number.setdefault(key, len(number)))
    return found


def groups(requests: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Rows that may belong to one session, as dictionaries; few at a time."""
    held: list[dict[str, Any]] = []
    for batch in requests.sort_by("group").to_batches(max_chunksize=ROWS):
        for row in batch.to_pylist():
            if held and held[0]["group"] != row["group"]:
                yield held
                held = []
            held.append(row)
    if held:
        yield held

"""Simulated users: what each asked, whether the answer was taken, and what the user did then.

The law is that of the documentation: an answer is taken with a probability ``p`` of the query and
the LLM; then the user goes on to another query, or ends. Who did not take it leaves in silence, or
asks again, until content. The truth is ``p`` at a first attempt, averaged over queries.
"""

import math
import random
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from simulated_users.wordings import Words
from simulated_users.worlds import World

HOUR, DAY = 3_600.0, 86_400.0
MOST_ATTEMPTS = 100  # then even the most patient user leaves
WRONG_THUMB = 0.02

# What a user does after an answer; the first two mean that it was taken.
ON, END, REGENERATE, SAME, OTHER, LEAVE = (
    "goes on",
    "ends",
    "regenerates",
    "same words",
    "other words",
    "leaves",
)
CAME_BACK, NEW = "came back", "new"


class Asked(NamedTuple):
    """A request of a simulated user, the answer, and what came of it.

    Attributes:
        session, user, query: numbers.
        attempt: 1 for a query's first answer, and so on.
        how: how the request came about: ``new``, ``came back`` in a new session, or what the user
            did after the answer before.
        llm: number of the LLM whose answer the user saw.
        start: seconds.
        latency: seconds until the answer was there.
        taken: whether the answer was taken.
        then: what the user did next.
        thumb: -1, 1 or None.
        copied: whether the answer was copied.
        text: what the user wrote.
    """

    session: int
    user: int
    query: int
    attempt: int
    how: str
    llm: int
    start: float
    latency: float
    taken: bool
    then: str
    thumb: int | None
    copied: bool
    text: str = ""

    @property
    def end(self) -> float:
        return self.start + self.latency


class Simulated(NamedTuple):
    """What simulated users did.

    Attributes:
        asked: requests, sessions one after another.
        acceptance: ``[query, llm]``: how probably an answer is taken, at any attempt.
    """

    asked: list[Asked]
    acceptance: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """Of each LLM: how probably its answer to a fresh query is taken, over all queries."""
        return self.acceptance.mean(axis=0)

    @property
    def sessions(self) -> list[list[Asked]]:
        return [list(session) for _, session in groupby(self.asked, lambda one: one.session)]


class _Query(NamedTuple):
    number: int
    attempt: int
    acceptance: Sequence[float]


class _Users:
    """The state of a simulation: queries so far, and the one source of chance."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.acceptance: list[list[float]] = []
        self.base = [math.log(p / (1 - p)) for p in world.acceptance]
        self.by_topic = [
            [rng.gauss(0, world.topic_sd) for _ in self.base] for _ in range(world.topics)
        ]

    def query(self) -> _Query:
        hard = self.rng.gauss(0, self.world.difficulty_sd)
        topic = self.rng.choice(self.by_topic)
        odds = [base + own - hard for base, own in zip(self.base, topic, strict=True)]
        self.acceptance.append([1 / (1 + math.exp(-one)) for one in odds])
        return _Query(len(self.acceptance) - 1, 1, self.acceptance[-1])

    def llm(self) -> int:
        return self.rng.choices(range(len(self.base)), self.world.shares)[0]

    def act(self, taken: bool, attempt: int) -> str:
        world, rng = self.world, self.rng
        if taken:
            return ON if rng.random() < world.goes_on else END
        if attempt >= MOST_ATTEMPTS or rng.random() < world.leaves:
            return LEAVE
        return rng.choices((REGENERATE, SAME, OTHER), world.again)[0]

    def thumb(self, taken: bool) -> int | None:
        if self.rng.random() >= self.world.thumbs[0 if taken else 1]:
            return None
        wrong = self.rng.random() < WRONG_THUMB
        return 1 if taken != wrong else -1

    def pause(self, then: str) -> float:
        """Seconds until the same user's next request."""
        if then == LEAVE:
            return HOUR + self.rng.expovariate(1 / (6 * HOUR))
        if then == END:
            return 2 * HOUR + self.rng.expovariate(1 / (2 * DAY))
        return 4 + self.rng.expovariate(1 / (90 if then == ON else 25))


def simulate_users(world: World, seed: int, words: Words) -> Simulated:
    """Simulates the users of a world.

    Args:
        world: its settings.
        seed: decides all randomness.
        words: what users say.
    """
    rng = random.Random(f"users {seed}")
    users = _Users(world, rng)
    asked: list[Asked] = []
    session = user = 0
    while session < world.sessions:
        clock = rng.uniform(0, 30 * DAY)
        of_user = users.llm()
        waiting: _Query | None = None
        while session < world.sessions:
            fixed = users.llm() if world.one_llm else None
            fixed = of_user if world.format == "realhumaneval" else fixed
            made = _session(users, session, user, clock, waiting, fixed)
            asked += made
            session += 1
            last = made[-1]
            clock = last.end + users.pause(last.then)
            back = last.then == LEAVE and rng.random() < world.returns
            unhappy = _Query(last.query, last.attempt + 1, users.acceptance[last.query])
            waiting = unhappy if back else None
            if not back and rng.random() < 1 / world.user_sessions:
                break
        user += 1
    return Simulated(_worded(asked, rng, words, world.related), np.array(users.acceptance))


def _session(
    users: _Users, session: int, user: int, clock: float, waiting: _Query | None, fixed: int | None
) -> list[Asked]:
    rng = users.rng
    query, how = (users.query(), NEW) if waiting is None else (waiting, CAME_BACK)
    made: list[Asked] = []
    while True:
        llm = users.llm() if fixed is None else fixed
        taken = rng.random() < query.acceptance[llm]
        then = users.act(taken, query.attempt)
        one = Asked(
            session,
            user,
            query.number,
            query.attempt,
            how,
            llm,
            clock,
            latency=max(0.5, rng.lognormvariate(1.2, 0.6)),
            taken=taken,
            then=then,
            thumb=users.thumb(taken),
            copied=taken and rng.random() < users.world.copies,
        )
        made.append(one)
        if then in (END, LEAVE):
            return made
        clock = one.end + users.pause(then)
        if then == ON:
            query, how = users.query(), NEW
        else:
            query, how = query._replace(attempt=query.attempt + 1), then


def _worded(asked: list[Asked], rng: random.Random, words: Words, related: bool) -> list[Asked]:
    """The same with words: what a user says is chosen knowing what the user does next.

    So a request and its rephrasing are a pair that one person wrote, and so are, where queries are
    related, a request and the next one on another thing.
    """
    made: list[Asked] = []
    # Who comes back has asked nothing else between: a query's requests stand together.
    queries = [list(query) for _, query in groupby(asked, lambda one: one.query)]
    rephrased = [any(one.how == OTHER for one in query) for query in queries]
    ahead = None  # what the pair before says is asked next
    for query, needs, next_needs in zip(queries, rephrased, [*rephrased[1:], False], strict=True):
        subject = rng.choice(list(words.onward))
        pairs = (words.again if needs else words.onward)[subject]
        first, second = _pair(rng, pairs, made[-1].text if made else "")
        text = first if ahead is None or needs else ahead
        goes_on = query[-1].then == ON and not needs and not next_needs
        ahead = second if related and goes_on and text == first != second else None
        for one in query:
            if one.how == OTHER:
                text = second
                second = _pair(rng, words.again[subject], text)[1]
            made.append(one._replace(text=text))
    return made


def _pair(rng: random.Random, pairs: Sequence[tuple[str, str]], before: str) -> tuple[str, str]:
    """A pair without what was said before: nobody says that again and means another thing."""
    while True:
        pair = rng.choice(pairs)
        if before not in pair:
            return pair

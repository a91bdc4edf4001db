"""Worlds of simulated users: how good LLMs are, what users do, and what a gateway gets wrong.

Everything drawn here is simulated. A world is written in one log format, with what that format can
hold: conversations have no failures, and no answer that was asked for once more.
"""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

# Formats, by how an importer is called, and the shapes in which each is written.
GATEWAYS: Mapping[str, tuple[str, ...]] = {
    "litellm": ("payload", "spend log"),
    "langfuse": ("trace", "observation", "download"),
    "opentelemetry": ("gen_ai", "openinference", "openllmetry"),
}
CONVERSATIONS: Mapping[str, tuple[str, ...]] = {
    "openai_chat": ("messages", "messages in a string"),
    "wildchat": ("jsonl", "parquet"),
    "lmsys": ("jsonl", "parquet"),
    "realhumaneval": ("jsonl", "parquet"),
}
SHAPES = {**GATEWAYS, **CONVERSATIONS}

# What users do who did not get what they wanted: shares of regenerate, the same words, other words.
BEHAVIOURS = {
    "regenerate": (1.0, 0.0, 0.0),
    "same words": (0.0, 1.0, 0.0),
    "other words": (0.0, 0.0, 1.0),
    "all three": (0.5, 0.2, 0.3),
    "seldom other words": (0.9, 0.0, 0.1),
}
OF_CONVERSATIONS = {
    "same words": (0.0, 1.0, 0.0),
    "other words": (0.0, 0.0, 1.0),
    "both": (0.0, 0.5, 0.5),
    "seldom other words": (0.0, 0.9, 0.1),
}

# Faults that a format can hold.
_OF_GATEWAYS = (
    "doubles",
    "logged_twice",
    "helpers",
    "embeddings",
    "steps",
    "raced",
    "resent",
    "outages",
    "no_session",
    "no_user",
    "no_time",
)
HOLDS = {
    "litellm": (*_OF_GATEWAYS, "checks"),
    "langfuse": (*_OF_GATEWAYS, "checks", "nested"),
    "opentelemetry": (*_OF_GATEWAYS, "nested"),
    "openai_chat": ("doubles", "steps", "no_session", "no_user", "no_time"),
    "wildchat": ("doubles", "no_user", "no_time"),
    "lmsys": ("doubles",),
    "realhumaneval": ("doubles", "no_time"),
}
# How much of each there may be, where there is any.
SIZES = {
    "doubles": (0.1, 0.3),
    "logged_twice": (0.1, 0.3, 1.0),
    "helpers": (0.3, 1.0),
    "embeddings": (0.3,),
    "steps": (0.1, 0.3),
    "raced": (0.1, 0.3),
    "resent": (0.05, 0.15),
    "outages": (0.03, 0.1),
    "no_session": (0.1, 0.3, 1.0),
    "no_user": (0.1, 1.0),
    "no_time": (0.02, 0.1, 0.3),
    "checks": (0.1,),
    "nested": (0.5, 1.0),
}
# Those that hide what a user did: a log with them need not be believed.
HIDING = ("raced", "no_session", "no_time")


class Faults(NamedTuple):
    """What is wrong with a log, or in it besides users' requests; shares of requests.

    Attributes:
        doubles: records that are there twice, the same in all.
        logged_twice: requests with a second record, a few milliseconds inside the first.
        helpers: answers after which the application asks for a title, tags or follow-ups.
        embeddings: requests before which the application asks for an embedding.
        steps: requests that a program makes in two steps, with a tool between them.
        raced: requests sent to two LLMs at once; the user sees the first answer.
        resent: requests that failed and were sent again by the gateway.
        outages: requests before which one failed and was shown to the user, who sent it again.
        no_session, no_user, no_time: records without.
        checks: health checks, as a share of all requests.
        nested: requests with a second record inside the first.
    """

    doubles: float = 0.0
    logged_twice: float = 0.0
    helpers: float = 0.0
    embeddings: float = 0.0
    steps: float = 0.0
    raced: float = 0.0
    resent: float = 0.0
    outages: float = 0.0
    no_session: float = 0.0
    no_user: float = 0.0
    no_time: float = 0.0
    checks: float = 0.0
    nested: float = 0.0


class World(NamedTuple):
    """Simulated users, LLMs and a gateway.

    Attributes:
        format: name of the importer.
        shape: which of the shapes of the format is written.
        behaviour: what is done by users who did not take an answer, in words.
        again: the same in shares: regenerate, the same words, other words.
        sessions: how many there are.
        acceptance: of each LLM, for a query of middling difficulty.
        shares: how often each LLM is asked.
        topics: number of topics.
        topic_sd: of an LLM's log-odds between topics.
        difficulty_sd: of log-odds between queries, for all LLMs alike.
        queries: mean number of queries in a session that nobody leaves.
        leaves: probability that who did not take an answer leaves without a word.
        returns: probability that who left comes back in a new session with the same query.
        thumbs: probabilities of a thumb after answers that were taken, and that were not.
        copies: probability that an answer that was taken is copied.
        user_sessions: mean number of sessions of a user.
        related: whether a next query goes on from the one before, as in a dialogue; then it looks
            a little like the same query in other words.
        sticky: whether a session keeps its LLM; conversations and programmers do in any case.
        stateless: whether requests hold the last message only.
        rooted: whether the session stands on a request's root span only.
        quoted: whether messages are JSON in a string.
        marked: whether helpers' requests say what they are for.
        shuffled: whether records are in no order.
        faults: what is wrong with the log.
    """

    format: str
    shape: str
    behaviour: str = "regenerate"
    again: tuple[float, float, float] = (1.0, 0.0, 0.0)
    sessions: int = 2_000
    acceptance: tuple[float, ...] = (0.8, 0.5)
    shares: tuple[float, ...] = (0.5, 0.5)
    topics: int = 3
    topic_sd: float = 0.0
    difficulty_sd: float = 0.0
    queries: float = 2.5
    leaves: float = 0.0
    returns: float = 0.0
    thumbs: tuple[float, float] = (0.0, 0.0)
    copies: float = 0.0
    user_sessions: float = 3.0
    related: bool = False
    sticky: bool = False
    stateless: bool = False
    rooted: bool = False
    quoted: bool = False
    marked: bool = True
    shuffled: bool = False
    faults: Faults = Faults()

    @property
    def goes_on(self) -> float:
        """Probability that who took an answer has another query."""
        return 1 - 1 / self.queries

    @property
    def one_llm(self) -> bool:
        """Whether a session has one LLM, as conversations in the data sets have."""
        return self.sticky or self.format in ("wildchat", "lmsys", "realhumaneval")

    @property
    def llms(self) -> tuple[str, ...]:
        return tuple(f"gpt-{letter}" for letter in "abcdefgh"[: len(self.acceptance)])

    @property
    def explicit(self) -> bool:
        """Whether all that users did with answers is in the log, but for who left in silence.

        Where next queries go on from the ones before, a log cannot tell that none of them is the
        same query in other words.
        """
        hidden = [getattr(self.faults, name) for name in HIDING]
        return self.again[2] == 0 and not self.related and not any(hidden)

    @property
    def troubled(self) -> tuple[str, ...]:
        """Names of the faults that the log has."""
        return tuple(name for name, size in zip(Faults._fields, self.faults, strict=True) if size)


def world_of(number: int, seed: int, sessions: int = 2_000) -> World:
    """The world of a number: formats, shapes and behaviours in turn, all else at random.

    Example:
        >>> world_of(0, 0).format, world_of(1, 0).format, world_of(0, 0) == world_of(0, 0)
        ('litellm', 'langfuse', True)
    """
    formats = list(SHAPES)
    name = formats[number % len(formats)]
    place = number // len(formats)
    behaviours = BEHAVIOURS if name in GATEWAYS else OF_CONVERSATIONS
    behaviour = list(behaviours)[place % len(behaviours)]
    shape = SHAPES[name][place // len(behaviours) % len(SHAPES[name])]
    rng = random.Random(f"world {number} {seed}")
    clean = rng.random() < 1 / 4
    return World(
        name,
        shape,
        behaviour,
        behaviours[behaviour],
        sessions,
        **_llms(rng),
        topic_sd=rng.choice((0.0, 0.7)),
        difficulty_sd=rng.choice((0.0, 1.0)),
        queries=1.2 * 5 ** rng.random(),
        leaves=rng.choice((0.0, 0.2, 0.4)),
        returns=rng.choice((0.0, 0.0, 0.3)),
        thumbs=_thumbs(rng),
        copies=rng.choice((0.5, 0.9)),
        user_sessions=rng.choice((1.5, 4.0)),
        related=rng.random() < 0.3,
        sticky=rng.random() < 0.25,
        stateless=name in GATEWAYS and rng.random() < 0.25,
        rooted=rng.random() < 0.5,
        quoted=rng.random() < 0.5,
        marked=rng.random() < 0.5,
        shuffled=not clean and rng.random() < 0.5,
        faults=Faults() if clean else _faults(rng, HOLDS[name]),
    )


def _llms(rng: random.Random) -> dict[str, Any]:
    number = rng.choice((2, 2, 3, 4))
    odds = [rng.uniform(0.5, 2.0) for _ in range(number)]
    return {
        "acceptance": tuple(rng.uniform(0.25, 0.9) for _ in range(number)),
        "shares": tuple(one / sum(odds) for one in odds),
    }


def _thumbs(rng: random.Random) -> tuple[float, float]:
    """None, the same after every answer, or more often after bad ones."""
    return rng.choice(((0.0, 0.0), (0.0, 0.0), (0.2, 0.2), (0.1, 0.3)))


def _faults(rng: random.Random, held: tuple[str, ...]) -> Faults:
    found = [name for name in held if rng.random() < (0.2 if name in HIDING else 0.35)]
    return Faults(**{name: rng.choice(SIZES[name]) for name in found})

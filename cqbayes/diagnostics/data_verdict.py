"""Whether the data of a fit deserve to be believed: a verdict on counts, beside the sampler's.

A sampler can be right about data that are wrong. This file judges the data: what was left out, what
was guessed or inferred, what never occurs, and what a fit could not learn. It sees counts alone, so
that any front end can use it: a log that is fitted, a decision log, a table.

Three levels: ``note``, to know; ``warn``, the fit may be wrong by more than its intervals say;
``fail``, the question that a fit answers cannot be answered with these data. A verdict is ok where
nothing is worse than a note.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int

from cqbayes.diagnostics.alike import apart, chance_if_alike
from cqbayes.diagnostics.stratified import (
    Stratum,
    error_with_more,
    share_of_hits,
    shares_of_classes,
)
from cqbayes.errors import InputError

Level = Literal["note", "warn", "fail"]

# Of the records that were read. A few are broken in any log. If one in twenty is set aside and half
# of those would have said otherwise, an acceptance moves by 0.025, about the width of an interval.
MUCH_SET_ASIDE = 0.05
# Beyond this, who is left is a matter of what could be read; a log is not fitted unless that is
# asked for.
MOST_SET_ASIDE = 0.2
# Of the services. Two users taken for one make a retry that nobody made.
MUCH_GUESSED = 0.05
# Of the services. The detector's errors on this log are not known; they touch this share.
MUCH_INFERRED = 0.05
# Of the words of next requests, those that the detector knows: in English of domains that were left
# out 0.47 to 0.72, in other languages about 0.
FEW_KNOWN = 0.4
# Of the services. Those whose outcome no one could see differ from the others in unknown ways.
MUCH_UNSEEN = 0.05
# Of the services. All of one outcome by decree move acceptance by up to this.
MUCH_DECREED = 0.05
# Of the turns and these. A user's second request that cannot be put in order is one that asks again
# more often than others: left out, it makes answers look taken.
MUCH_UNDATED = 0.02
# Of the queries. Those whose first attempt is not there are the ones that were asked again.
MUCH_HEADLESS = 0.05
# Of the turns that were answered. Raced requests are a sample of all, so more of them are harmless.
MUCH_UNATTRIBUTED = 0.2
# Of next requests. With fewer labels a share of one in ten has a standard error above 0.04.
FEW_LABELS = 50
MORE_LABELS = 50
FLAGGED = 0.2  # scores above it count for a retrial, in what is said of the detector
# Chance of a difference between LLMs that are alike: one log in a hundred is warned of for nothing.
UNLIKE = 0.01
# Rows of an LLM. With fewer, a share has a standard error above 0.11: the prior decides.
FEW_ROWS = 20
# Posterior sd over prior sd of a rate. Above this the data tell less than a fifth of what the prior
# tells: 1 / 0.9^2 - 1 = 0.23.
NOT_LEARNT = 0.9

MOST_NAMED = 3  # LLMs in a sentence
MOST_SHOWN = 40  # characters of a name


class Checked(NamedTuple):
    """Labels of people, of outcomes that are inferred.

    Attributes:
        strata: each class of scores: pairs of requests, those that were labelled, and those of
            these that are retrials.
        ends: scores between classes.
        kinds: how many labels there are of each kind.
        agreement: how often two labellers disagree, and how often two labelled one pair.
        elsewhere: labelled pairs that are not in the log.
        moved: labelled pairs whose score had another class when they were drawn, by another
            detector: how probable it was that they were drawn is not known.
    """

    strata: tuple[Stratum, ...]
    ends: tuple[float, ...]
    kinds: Mapping[str, int]
    agreement: tuple[int, int] = (0, 0)
    elsewhere: int = 0
    moved: int = 0

    @property
    def labelled(self) -> int:
        return sum(one.drawn for one in self.strata)

    @property
    def enough(self) -> bool:
        """Whether the labels check what is inferred."""
        return self.labelled >= FEW_LABELS and not self.moved


class DataFacts(NamedTuple):
    """Counts that describe the data of a fit; 0, empty or None where nothing is known.

    ``services = explicit + inferred + went_on + last + followed`` where signs are known, and
    ``services = retried + taken + silent + followed``.

    Attributes:
        read: records or rows of the file.
        set_aside: those of them that were not kept.
        requests: to LLMs, and spans around them, in the records that were kept.
        not_turns: reason and count of requests that are no turn of a user, such as ``("duplicate",
            12)``. Reasons are words of this package, not of the log.
        undated: of these, users' requests that no time puts in an order.
        turns: of users.
        unattributed: turns that were answered by an LLM that is not known.
        services: rows of the fit.
        queries: different ones.
        first_attempts: services that are the first of their query.
        sessions: in which the turns are; ``guessed_sessions`` were guessed, and nobody states them.
        guessed: services in guessed sessions; ``guessed_retrials`` of these were retried.
        explicit: services whose outcome the user showed, or the table states.
        inferred: services whose outcome a detector inferred.
        went_on: services after which the user asked for something else.
        unseen: turns whose outcome the log cannot show; they are no services.
        last: services at the end of a session, whose outcome is censored.
        decreed_taken: services whose outcome is not known, where they were
            taken for accepted, as was asked for; 0 where their outcome is left open.
        decreed_dropped: answers whose outcome is not known that were left out, as was asked for.
        retried, taken, silent: services by the outcome that the fit was given.
        offered: each LLM, and how many services offer it.
        out_of_order: services that stood elsewhere in the file than their query's order says.
        list_like_names: LLMs whose name looks like a list of names.
        users_missing: services without a user, where others have one.
        rates: name, prior sd and posterior sd of the rates of the channel from what users do to
            what the log shows, such as ``("leave", 0.18, 0.02)``.
        followed: services that were followed by a request in other words, whose outcome is left
            open to its score.
        known_words: share of the words of these requests that the detector knows; None if there
            are none.
        foreign: share of these requests that are stated to be in a language other than English.
        hidden_retries: how many of these, by the fit, were asked for again or complained of.
        checked: what people said of some of these; None without labels.
        spoken: next requests of each class of scores after each LLM's answers, LLMs as in
            ``offered``, where it is known what became of the answer: by labels, taken and not, and
            by what users showed, taken and not. None where nothing is.
        asked_again, said_bad: services after which the user showed that they ask again, or said
            that the answer was bad; some are both.
    """

    read: int = 0
    set_aside: int = 0
    requests: int = 0
    not_turns: tuple[tuple[str, int], ...] = ()
    undated: int = 0
    turns: int = 0
    unattributed: int = 0
    services: int = 0
    queries: int = 0
    first_attempts: int = 0
    sessions: int = 0
    guessed_sessions: int = 0
    guessed: int = 0
    guessed_retrials: int = 0
    explicit: int = 0
    inferred: int = 0
    went_on: int = 0
    unseen: int = 0
    last: int = 0
    decreed_taken: int = 0
    decreed_dropped: int = 0
    retried: int = 0
    taken: int = 0
    silent: int = 0
    offered: tuple[tuple[str, int], ...] = ()
    out_of_order: int = 0
    list_like_names: int = 0
    users_missing: int = 0
    rates: tuple[tuple[str, float, float], ...] = ()
    followed: int = 0
    known_words: float | None = None
    foreign: float = 0.0
    hidden_retries: float | None = None
    checked: Checked | None = None
    spoken: Int[np.ndarray, "4 llm class"] | None = None
    asked_again: int = 0
    said_bad: int = 0


class Finding(NamedTuple):
    """One thing that was found in data.

    Attributes:
        name: short, the same in all versions: what programs ask for.
        level: ``note``, ``warn`` or ``fail``.
        text: one sentence with figures; it holds nothing that a user wrote.
        value: the figure that was compared with a threshold, or the count.
    """

    name: str
    level: Level
    text: str
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.level}: {self.text}"


class DataVerdict(NamedTuple):
    """What was found in the data of a fit, the worst first."""

    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is worse than a note."""
        return not self.doubts

    @property
    def doubts(self) -> tuple[Finding, ...]:
        """Findings that are worse than a note."""
        return tuple(found for found in self.findings if found.level != "note")

    def __str__(self) -> str:
        names = ", ".join(found.name for found in self.doubts)
        said = (
            "ok (nothing found wrong)" if self.ok else f"not to be believed as they are ({names})"
        )
        return "\n".join([f"data: {said}", *map(str, self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """The verdict in types that JSON has."""
        return {"ok": self.ok, "findings": [found._asdict() for found in self.findings]}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> "DataVerdict":
        """The verdict of :meth:`to_dict`.

        Raises:
            InputError: for anything else.
        """
        try:
            found = tuple(Finding(**finding) for finding in said["findings"])
        except (KeyError, TypeError):
            raise InputError(
                "data verdict: expected findings as DataVerdict.to_dict gives them, got others"
            ) from None
        if not all(one.level in get_args(Level) for one in found):
            raise InputError("data verdict: expected levels note, warn or fail, got others")
        return cls(found)


def judge(facts: DataFacts) -> DataVerdict:
    """The verdict on data by their counts.

    Args:
        facts: the counts; what is not known is not judged.

    Example:
        >>> offered = (("a", 90), ("b", 10))
        >>> facts = DataFacts(services=100, taken=60, retried=40, inferred=30, offered=offered)
        >>> print(judge(facts))
        data: not to be believed as they are (inferred, few_rows)
        warn: 30 of 100 outcomes (30.0%) are inferred by a detector, not checked
        warn: fewer than 20 services offer b (10): what is said of it is much of the prior
    """
    parts = (_of_records, _of_turns, _of_signs, _of_last_turns, _of_outcomes, _of_llms, _of_queries)
    found = [finding for part in (*parts, _of_rates) for finding in part(facts)]
    return DataVerdict(tuple(sorted(found, key=lambda one: _WORST_FIRST.index(one.level))))


_WORST_FIRST = ("fail", "warn", "note")


class _Share(NamedTuple):
    """A part of a whole, and what part is much."""

    part: int
    whole: int
    things: str
    much: float = math.inf
    most: float = math.inf

    def finding(self, name: str, text: str) -> Iterator[Finding]:
        """What is found where there is any part: the figures, and then the text."""
        if self.part:
            share = self.part / self.whole if self.whole else 0.0
            level = "fail" if share > self.most else "warn" if share > self.much else "note"
            yield Finding(name, level, f"{self} {text}", share)

    def __str__(self) -> str:
        share = f" ({self.part / self.whole:.1%})" if self.whole else ""
        return f"{self.part:,} of {self.whole:,} {self.things}{share}"


def _of_records(facts: DataFacts) -> Iterator[Finding]:
    aside = _Share(facts.set_aside, facts.read, "records", MUCH_SET_ASIDE, MOST_SET_ASIDE)
    yield from aside.finding(
        "set_aside", "are set aside: if they differ from the rest, the fit is not of all"
    )
    others = _Share(sum(n for _, n in facts.not_turns), facts.requests, "requests and spans")
    reasons = "; ".join(f"{number:,} {reason}" for reason, number in facts.not_turns)
    yield from others.finding("not_turns", f"are no turn of a user: {reasons}")
    moved = _Share(facts.out_of_order, facts.services, "services")
    yield from moved.finding("out_of_order", "were put in the order of their query's attempts")


def _of_turns(facts: DataFacts) -> Iterator[Finding]:
    sessions = _Share(facts.guessed_sessions, facts.sessions, "sessions")
    guessed = _Share(facts.guessed, facts.services, "services", MUCH_GUESSED)
    hang = f", and {facts.guessed_retrials:,} retrials hang on them"
    yield from guessed.finding(
        "guessed_sessions",
        f"are in guessed sessions: nothing states {sessions}"
        + (hang if facts.guessed_retrials else ""),
    )
    lost = _Share(facts.undated, facts.turns + facts.undated, "users' requests", MUCH_UNDATED)
    yield from lost.finding(
        "undated",
        "are left out, since no time says what they follow: more of these ask again than of others",
    )
    nameless = _Share(facts.unattributed, facts.turns, "turns", MUCH_UNATTRIBUTED)
    yield from nameless.finding(
        "unattributed", "are left out: the log does not say which LLM's answer the user saw"
    )
    nobody = _Share(facts.users_missing, facts.services, "services")
    yield from nobody.finding(
        "users_missing",
        "have no user: none of them are linked, and a model of users takes each for the median "
        "user",
    )


def _of_signs(facts: DataFacts) -> Iterator[Finding]:
    inferred = _Share(facts.inferred, facts.services, "outcomes", MUCH_INFERRED)
    yield from inferred.finding("inferred", "are inferred by a detector, not checked")
    checked = facts.checked is not None and facts.checked.enough
    if facts.hidden_retries is not None:
        much = math.inf if checked else MUCH_INFERRED
        hidden = _Share(round(facts.hidden_retries), facts.services, "outcomes", much)
        yield from hidden.finding(
            "inferred",
            "were not taken by the wording of the next request alone, which is "
            + ("checked by labels" if checked else "not checked (cqbayes label does that)"),
        )
    yield from _of_labels(facts)
    if not checked:
        yield from _of_wording(facts)
    yield from _of_plainness(facts)
    unseen = _Share(facts.unseen, facts.turns, "turns", MUCH_UNSEEN)
    yield from unseen.finding("unseen", "are left out: a picture or a file says no outcome")
    if facts.went_on or facts.last or facts.followed:
        kinds = {
            "shown": facts.explicit,
            "inferred": facts.inferred,
            "followed by another request": facts.went_on + facts.followed,
            "last in the session": facts.last,
        }
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        shown = ""
        if facts.asked_again or facts.said_bad:
            shown = (
                f"; users showed {facts.asked_again:,} times that they ask again, and said "
                f"{facts.said_bad:,} times that an answer was bad"
            )
        yield Finding("signs", "note", f"outcomes by their sign: {counts}{shown}")


def _of_labels(facts: DataFacts) -> Iterator[Finding]:
    """What labels say of the log, without the model."""
    if facts.checked is None:
        return
    strata, found = facts.checked.strata, facts.checked
    said = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items())
    disagreed, both = found.agreement
    parts = [f"{found.labelled:,} of {sum(s.size for s in strata):,} next requests are labelled"]
    if found.labelled:
        share, error = share_of_hits(strata)
        more = error_with_more(strata, MORE_LABELS)
        parts.append(
            f"{share:.1%} +- {error:.1%} are retrials, and {MORE_LABELS} more labels would make "
            f"that +- {more:.1%}"
        )
        flags = [k > found.ends.index(FLAGGED) for k in range(len(strata))]
        parts.append(
            f"scores above {FLAGGED:g} have "
            + " and ".join(
                f"{part.median:.0%} ({part.low:.0%} to {part.high:.0%}) of the {name}"
                for name, part in zip(
                    ("retrials", "others"), shares_of_classes(strata, flags), strict=True
                )
                if not math.isnan(part.median)
            )
        )
    parts.append(f"labels in all: {said}")
    if both:
        parts.append(f"two labellers agree on {both - disagreed:,} of {both:,}")
    if found.elsewhere:
        parts.append(f"{found.elsewhere:,} labelled pairs are not in this log")
    if found.moved:
        parts.append(f"{found.moved:,} were drawn by another detector's scores: label anew")
    level = "warn" if found.moved else "note"
    yield Finding("labels", level, "; ".join(parts), float(found.labelled))


def _of_wording(facts: DataFacts) -> Iterator[Finding]:
    """Whether a detector can hear that somebody asks again."""
    if facts.known_words is None or facts.followed <= MUCH_INFERRED * facts.services:
        return
    deaf = "users who ask again in other words are not heard, and the fit takes them for content"
    if not facts.known_words >= FEW_KNOWN:
        known = max(facts.known_words, 0.0)
        yield Finding(
            "unknown_words",
            "warn",
            f"the detector knows {known:.0%} of the words of next requests, as in another language "
            f"or subject: {deaf}",
            _finite(facts.known_words),
        )
    if facts.foreign > MUCH_INFERRED:
        yield Finding(
            "not_english",
            "warn",
            f"{facts.foreign:.0%} of next requests are stated not to be in English: {deaf}",
            facts.foreign,
        )


_KNOWN = (
    "labelled as taken",
    "labelled as not taken",
    "that users showed to be taken",
    "that users showed not to be taken",
)


def _of_plainness(facts: DataFacts) -> Iterator[Finding]:
    """Whether next requests say the same of each LLM's answers, as the fit takes it."""
    if facts.spoken is None or (chance := chance_if_alike(facts.spoken)) >= UNLIKE:
        return
    most = int(np.argmax(apart(facts.spoken)))
    table = facts.spoken[most]
    size, high = table.sum(axis=1), table[:, table.shape[1] // 2 :].sum(axis=1)
    place = np.arange(table.shape[1])
    order = sorted(np.flatnonzero(size), key=lambda j: table[j] @ place / size[j])
    plain, quiet = (
        f"{high[j]:,} of {size[j]:,} for {_shown(facts.offered[j][0])}"
        for j in (order[-1], order[0])
    )
    yield Finding(
        "unlike_llms",
        "warn",
        f"next requests do not say the same of each LLM: after answers {_KNOWN[most]}, scores are "
        f"high in {plain} and {quiet}; chance alone has such differences in {chance:.1%} of logs. "
        "The fit takes what scores mean for the same, so how LLMs compare may be wrong",
        chance,
    )


def _of_last_turns(facts: DataFacts) -> Iterator[Finding]:
    if not facts.decreed_taken:
        yield from _Share(facts.last, facts.services, "services").finding(
            "last_turns",
            "are the last of their session and show no outcome: it is left open; to take them for "
            "accepted would raise acceptance, to drop them would lower it",
        )
    taken = _Share(facts.decreed_taken, facts.services, "services", MUCH_DECREED)
    yield from taken.finding(
        "last_taken",
        "show no outcome and are taken for accepted, as was asked for: this raises acceptance, "
        "since users who left in silence are counted as satisfied",
    )
    turns = facts.services + facts.decreed_dropped
    dropped = _Share(facts.decreed_dropped, turns, "answers", MUCH_DECREED)
    yield from dropped.finding(
        "last_dropped",
        "show no outcome and are dropped, as was asked for: this lowers acceptance, since "
        "satisfied users stop here and retries stay",
    )


def _of_outcomes(facts: DataFacts) -> Iterator[Finding]:
    if not facts.retried + facts.taken + facts.silent + facts.followed:
        return
    if not facts.taken + facts.followed:
        yield Finding(
            "no_acceptance",
            "fail",
            f"none of {facts.services:,} services shows an answer that was taken: how often "
            "answers are taken cannot be learnt",
            0.0,
        )
    if not facts.retried + facts.followed:
        yield Finding(
            "no_retry",
            "fail",
            f"none of {facts.services:,} services was retried: users who ask again cannot be told "
            "from users who take anything",
            0.0,
        )


def _of_llms(facts: DataFacts) -> Iterator[Finding]:
    few = sorted((rows, llm) for llm, rows in facts.offered if rows < FEW_ROWS)
    never = [_shown(llm) for rows, llm in few if not rows]
    some = [f"{_shown(llm)} ({rows:,})" for rows, llm in few if rows]
    if never:
        yield Finding(
            "never_offered",
            "warn",
            f"no service offers {_listed(never)}: what is said of {_it(never)} is the prior",
            float(len(never)),
        )
    if some:
        yield Finding(
            "few_rows",
            "warn",
            f"fewer than {FEW_ROWS} services offer {_listed(some)}: what is said of {_it(some)} "
            "is much of the prior",
            float(min(rows for rows, _ in few if rows)),
        )
    if sum(rows > 0 for _, rows in facts.offered) == 1:
        yield Finding(
            "one_llm", "note", "one LLM only: what is learnt does not help to choose among several"
        )
    lists = _Share(facts.list_like_names, len(facts.offered), "names of LLMs", much=0)
    yield from lists.finding(
        "list_like_names", "look like lists of names: offered holds a list, of one name each"
    )


def _of_queries(facts: DataFacts) -> Iterator[Finding]:
    if facts.services > facts.queries > 0:
        yield Finding(
            "repeated_queries",
            "note",
            f"{facts.services:,} services are of {facts.queries:,} queries: hard ones are asked "
            "again, which lowers acceptance over all services",
            facts.services / facts.queries,
        )
    headless = max(0, facts.queries - facts.first_attempts)
    yield from _Share(headless, facts.queries, "queries", MUCH_HEADLESS).finding(
        "no_first_attempt",
        "have no first attempt among the services: what is said of fresh queries is not of these",
    )


def _of_rates(facts: DataFacts) -> Iterator[Finding]:
    # A prior without width is a number that was given, and nothing to learn. NaN is not learnt.
    ratios = {name: after / before for name, before, after in facts.rates if before != 0}
    missed = {name: ratio for name, ratio in ratios.items() if not ratio <= NOT_LEARNT}
    if missed:
        yield Finding(
            "rate_not_learnt",
            "warn",
            f"the data do not tell {', '.join(missed)}: the posterior is about the prior, and "
            "acceptance depends on it",
            _finite(max(missed.values())),
        )


def _finite(value: float) -> float | None:
    """A number that JSON has."""
    return float(value) if math.isfinite(value) else None


def _shown(name: str) -> str:
    return name if len(name) <= MOST_SHOWN else f"{name[: MOST_SHOWN - 3]}..."


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _it(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"

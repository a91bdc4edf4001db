"""What simulated users say: invented wordings, or those of real dialogues whose users were rated.

A request that is made again, and a request on another thing, each come as a pair with the request
before, so that both are as alike as people make them.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from simulated_users.labelled import DISSATISFIED, RATED, labelled_domains

from cqbayes.logs.retrials.detector import Detector, load_detector, train_detector

DOMAINS = ("sgd", "redial")  # of the rated dialogues
SATISFIED = 3.0  # mean rating of an answer, as the next request shows it

Pairs = Mapping[str, Sequence[tuple[str, str]]]


class Words(NamedTuple):
    """Pairs of consecutive requests, by subject.

    Attributes:
        again: the second says again what the first one asked for.
        onward: the second asks for something else.
        domain: of the dialogues that people had; none where the wordings are made up.
        detector: one that was trained without this domain; that of the package where absent.
    """

    again: Pairs
    onward: Pairs
    domain: str = ""
    detector: Detector | None = None


def real(folder: Path, domain: str) -> Words | None:
    """Wordings of a domain of the rated dialogues; None where the file is not there."""
    domains = labelled_domains(folder)
    if domain not in domains:
        return None
    rows = pq.read_table(folder / RATED, filters=[("domain", "==", domain)]).to_pylist()
    found: tuple[dict, dict] = {}, {}
    for row in rows:
        pair = (row["request"], row["next_request"])
        # Who says the same words again is simulated apart.
        if not all(pair) or pair[0].split() == pair[1].split():
            continue
        if row["rating"] <= DISSATISFIED:
            found[0].setdefault(domain, []).append(pair)
        elif row["rating"] >= SATISFIED:
            found[1].setdefault(domain, []).append(pair)
    others = {name: pairs for name, pairs in domains.items() if name != domain}
    # What words say is learnt without this domain. How far domains differ is not to be learnt from
    # two of them: these few numbers are the package's, from all.
    apart = train_detector(others, trained_on=f"all domains but {domain}", cross=False)
    known = load_detector()._replace(weights=apart.weights, trained_on=apart.trained_on)
    return Words(*found, domain, known._replace(intercept=apart.intercept, close=apart.close))


_VERBS = ("sort", "paint", "repair", "compare", "plan", "weigh", "store", "describe")
_THINGS = ("a bicycle", "two lists", "the garden shed", "an old radio", "my recipe", "a long trip")
_WAYS = ("for a beginner", "without tools", "in an hour", "by hand", "on a small budget", "safely")
_FIRST = ("How do I {} {} {}?", "Please {} {} {}", "I want to {} {} {}", "Tell me how to {} {} {}")
_AGAIN = (
    "No, I meant: how would one {} {} {}?",
    "That is not what I asked. {} {} {}, please",
    "Try again, in other words: {} {} {}",
    "Not quite. What I need is to {} {} {}",
)


def invented(seed: int, size: int = 400) -> Words:
    """Made-up wordings, of a few subjects.

    Example:
        >>> words = invented(0)
        >>> sorted(words.again) == sorted(words.onward), len(words.again["sort"])
        (True, 400)
    """
    rng = random.Random(f"wordings {seed}")
    again: dict[str, list] = {}
    onward: dict[str, list] = {}
    for verb in _VERBS:
        firsts = []
        for _ in range(size):
            task = verb, rng.choice(_THINGS), f"{rng.choice(_WAYS)}, number {rng.randrange(10_000)}"
            firsts.append(rng.choice(_FIRST).format(*task))
            again.setdefault(verb, []).append((firsts[-1], rng.choice(_AGAIN).format(*task)))
        # Of the same requests, so that no word tells what opens a session from what follows.
        onward[verb] = list(zip(firsts, rng.sample(firsts, size), strict=True))
    return Words(again, onward)

"""Semi-synthetic logs: real dialogues whose answers people rated, given to LLMs that are invented.

A log is whole dialogues. That the answer to a request was not taken is what people said of it.
Which LLM gave it is drawn so that the LLMs' preference is known::

    P(not taken | llm, x) = q (1 + s_llm (general + by_context x)),   s = +1, -1,   x = -1 or 1
    P(llm | not taken or not, x)  by Bayes' theorem, with both LLMs as frequent

with ``q`` the share of answers in the log's dialogues that were not taken. Where users complain of
the LLMs more or less plainly, ``P(llm | not taken, score, x)`` has another factor: of answers that
were not taken, ``plain_llm`` are followed by a request whose score is above the median of such, and
the others by one below.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from simulated_users.labelled import labelled_domains
from simulated_users.wordings import invented

from cqbayes import Encoder
from cqbayes.logs.retrials.detector import Detector, Labelled, load_detector, train_detector

LLMS = ("a", "b")
MADE_UP = ("one", "two", "three")  # domains


class RatedLog(NamedTuple):
    """A log and what is true of it.

    Attributes:
        path: of the log, in the format ``openai_chat``.
        encoder: gives each request its context.
        truth: acceptance of each LLM's answer, on average over contexts.
        retrial: of each pair of consecutive requests, whether the first's answer was not taken.
        pairs, overlapping: how many pairs each LLM has, and in how many of them the requests share
            some words and not many, by the rule of gateways.
    """

    path: Path
    encoder: Encoder
    truth: np.ndarray
    retrial: dict[tuple[str, str], bool]
    pairs: np.ndarray
    overlapping: np.ndarray


def domains_of(folder: Path | None) -> dict[str, Labelled]:
    """The labelled domains, or made-up ones where their files are not there."""
    found = {} if folder is None else dict(labelled_domains(folder))
    if len(found) == 3:
        return found
    made = {}
    for seed, name in enumerate(MADE_UP):
        words, rng = invented(seed, 40), np.random.default_rng(seed)
        bad = rng.random(300) < 0.1
        pairs = [(words.again if one else words.onward)["sort"][rng.integers(40)] for one in bad]
        first, second = (pa.array([pair[i] for pair in pairs]) for i in (0, 1))
        made[name] = Labelled(first, second, bad, np.arange(300) // 3)
    return made


def detector_without(domains: dict[str, Labelled], name: str) -> Detector:
    """The detector of the package, with words and closeness learnt from all domains but one."""
    others = {other: pairs for other, pairs in domains.items() if other != name}
    apart = train_detector(others, trained_on=f"all domains but {name}", cross=False)
    return load_detector()._replace(
        weights=apart.weights, intercept=apart.intercept, close=apart.close
    )


def rated_log(
    path: Path,
    pairs: Labelled,
    dialogues: int,
    seed: int,
    plain: tuple[float, float] = (0.5, 0.5),
    detector: Detector | None = None,
) -> RatedLog:
    """Writes a log of some dialogues of a domain.

    Args:
        path: where.
        pairs: of one domain.
        dialogues: how many; those with an answer that was not taken are up to six times as
            frequent as they are.
        seed: decides dialogues, LLMs, and their preferences.
        plain: how plainly users complain of each LLM.
        detector: makes the scores that say how plain a request is; needed where LLMs differ.
    """
    rng = np.random.default_rng(seed)
    group = np.unique(pairs.group, return_inverse=True)[1]
    bad = np.bincount(group, pairs.retrial) > 0
    weight = np.where(bad, np.exp(rng.uniform(0, np.log(6))), 1.0)
    number = min(dialogues, len(weight))
    chosen = rng.choice(len(weight), number, replace=False, p=weight / weight.sum())
    rows = np.flatnonzero(np.isin(group, chosen))
    first, second = pairs.first.to_pylist(), pairs.second.to_pylist()
    rate = float(pairs.retrial[rows].mean())
    general, by_context = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.3)
    topic: dict[str, int] = {}
    high = np.zeros(len(group), bool)
    if detector is not None:
        score = detector.score(pairs.first, pairs.second)
        high = score > np.median(score[pairs.retrial])

    def context(text: str) -> int:
        return topic.setdefault(text, int(rng.integers(2)) * 2 - 1)

    def llm(text: str, retrial: bool, is_high: bool) -> int:
        times = general + by_context * context(text)
        not_taken = rate * np.array([1 + times, 1 - times])
        odds = not_taken if retrial else 1 - not_taken
        if retrial:
            odds = odds * np.abs(np.array(plain) - (not is_high))
        return int(rng.random() < odds[1] / odds.sum())

    count, overlapping, retrial = np.zeros(2, int), np.zeros(2, int), {}
    lines = []
    for one in chosen:
        mine = np.flatnonzero(group == one)
        said: list[dict[str, Any]] = []
        for i in mine:
            j = llm(first[i], bool(pairs.retrial[i]), bool(high[i]))
            said += _asked(first[i], j)
            retrial[first[i], second[i]] = bool(pairs.retrial[i])
            words = set(first[i].lower().split()), set(second[i].lower().split())
            share = len(words[0] & words[1]) / max(len(words[0] | words[1]), 1)
            count[j] += 1
            overlapping[j] += 0 < share < 0.45
            if i == mine[-1] or second[i] != first[i + 1]:
                # What came of the last answer is not known to anyone.
                said += _asked(second[i], int(rng.integers(2)))
                context(second[i])
                lines.append(json.dumps({"id": f"{one}/{i}", "user": f"u{one}", "messages": said}))
                said = []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    circle = {1: (1.0, 0.0), -1: (-1.0, 0.0)}
    encoder = Encoder(
        "topics", lambda texts: np.array([[1.0, *circle[topic[text]]] for text in texts])
    )
    truth = 1 - rate * np.array([1 + general, 1 - general])
    return RatedLog(path, encoder, truth, retrial, count, overlapping)


def _asked(text: str, llm: int) -> list[dict[str, Any]]:
    answer = {"role": "assistant", "content": "answered", "model": LLMS[llm]}
    return [{"role": "user", "content": text, "model": LLMS[llm]}, answer]

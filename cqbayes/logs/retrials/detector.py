"""Does a user's next request say that the answer before it was not taken? The weight of evidence.

A user who did not take an answer **asks again**: the same thing in nearly the same words, in other
words, amended; or **says that it was bad**: a complaint, a correction. One number says how much the
next request speaks for either::

    s = log P(next request | not taken) / P(next request | taken)
      = w_0 + w_c closeness + sum over its words and pairs of words w_bucket / sqrt(their number)

a logistic regression on pairs of requests that people labelled, several domains of dialogue taken
together: each domain, and in it each of the two kinds, weighs the same, so that ``s`` is evidence
and holds no belief about how often users are not content. No log tells that without labels.

**What it is worth elsewhere** is measured by training without each domain in turn: in a domain that
was not seen, the evidence is about ``strength * s``, with ``strength`` as unsure as the domains
differ. And requests that follow an answer that was taken differ from those that open a session:
in the log-odds of a class of scores by ``tilt * s``, with ``tilt`` from 0 to what was measured.
:mod:`cqbayes.models.next_request` takes both doubts into the fit.

Words are hashed into ``2^16`` buckets: the weights hold no text.

Source: a logistic regression; for other domains as draws, Gelman and Hill (2007), chapter 12.
Needs the extra ``logs``.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Shaped
from scipy.special import expit, logit

from cqbayes._tools.files import write_bytes
from cqbayes.errors import InputError
from cqbayes.logs.retrials.pairs import closeness
from cqbayes.logs.retrials.words import BITS, hashed_words

FORMAT = 3
BUCKETS = 1 << BITS
ENDS = (-0.7, 0.2, 1.0)  # of classes of scores
CLASSES = len(ENDS) + 1
PENALTY = 1.0  # inverse of: what scikit-learn calls C
LEAST_MISFIT = 0.1  # of the log of a share
LEAST_DOUBT = 0.25  # standard deviation of log strength: three domains cannot show less
AT_ONCE = 4_096  # texts whose words stay in the processor's cache: twice as fast as all at once
MOST_BYTES = 4 << 20  # of a file, packed or not
# What reading raises if an archive or the JSON is not as it was written.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


class Labelled(NamedTuple):
    """Pairs of consecutive requests of one domain, labelled.

    Attributes:
        first, second: the requests.
        retrial: whether the second says that the answer to the first was not taken.
        group: whose they are, such as a dialogue; pairs of one group stand together, in order.
    """

    first: pa.Array
    second: pa.Array
    retrial: Bool[np.ndarray, " pair"]
    group: Shaped[np.ndarray, " pair"]


class Detector(NamedTuple):
    """A detector of retrials; see the module.

    Attributes:
        intercept, close: ``w_0``, and the weight of closeness.
        weights: of words and pairs of words.
        levels: mean score of each class of scores, between :data:`ENDS`.
        shares: of each class among requests that open a dialogue, on average over domains.
        doubts: by how much, on average, the log of a class's share after an answer that was taken
            differs from that among those that open a dialogue, beside the tilt.
        strength: median of ``strength`` in a domain that was not seen, and standard deviation of
            its log.
        tilt: standard deviation of a half-normal ``tilt`` there.
        prevalence: share of retrials in a labelled domain, on average.
        trained_on: what the labels are and where they come from.
    """

    intercept: float
    close: float
    weights: Float[np.ndarray, " bucket"]
    levels: tuple[float, ...] = (-1.5, -0.2, 0.6, 1.9)
    shares: tuple[float, ...] = (0.7, 0.2, 0.07, 0.03)
    doubts: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    strength: tuple[float, float] = (1.0, LEAST_DOUBT)
    tilt: float = 0.6
    prevalence: float = 0.1
    trained_on: str = ""

    def score(self, first: pa.Array, second: pa.Array) -> Float[np.ndarray, " pair"]:
        """``s`` for each pair of requests.

        Raises:
            InputError: where the extra ``logs`` is absent, or the two are not of one length.
        """
        if len(first) != len(second):
            raise InputError(
                f"pairs: expected as many first requests as second ones, got {len(first)} and "
                f"{len(second)}"
            )
        words = [
            hashed_words(second[start : start + AT_ONCE]).weighed(self.weights)
            for start in range(0, len(second), AT_ONCE)
        ]
        near = self.close * closeness(first, second)
        return self.intercept + near + np.concatenate([*words, np.zeros(0)])

    def probability(self, score: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
        """Of a retrial, if retrials were as frequent as in the labelled domains on average."""
        return expit(score + logit(self.prevalence))

    def known(self, texts: pa.Array) -> float:
        """The share of the words and pairs of words of texts that occur in the labelled pairs.

        Of words that do not occur a part falls into buckets of others, as many as buckets are
        filled: that is taken off. In English of a domain that was left out 0.47 to 0.72 are known,
        in German and French about 0. NaN where there are no words.
        """
        filled = self.weights != 0
        words = hashed_words(texts).bucket
        by_chance = filled.mean()
        return float((filled[words].mean() - by_chance) / (1 - by_chance)) if len(words) else np.nan

    def classes(self, probability: Float[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
        """The class of the score that has such a probability, from 0."""
        return classes_of(logit(probability) - logit(self.prevalence))


def train_detector(
    domains: Mapping[str, Labelled], *, trained_on: str, cross: bool = True
) -> Detector:
    """A detector trained on labelled pairs of several domains.

    Args:
        domains: by name.
        trained_on: what the labels are and where they come from.
        cross: whether to train without each domain in turn, for what the detector is worth
            elsewhere; otherwise the defaults of :class:`Detector` stay.

    Raises:
        InputError: for a domain with pairs of one kind only; for fewer than two domains to compare.
    """
    for name, pairs in domains.items():
        if pairs.retrial.all() or not pairs.retrial.any():
            raise InputError(f"{name}: expected pairs of both kinds, got labels that are all alike")
    from sklearn.linear_model import LogisticRegression

    domains = dict(sorted(domains.items()))
    label = np.concatenate([pairs.retrial for pairs in domains.values()])
    weight = np.concatenate([_balanced(pairs.retrial) for pairs in domains.values()])
    columns = features(domains)
    found = LogisticRegression(C=PENALTY, max_iter=1_000).fit(
        columns, label, sample_weight=weight * len(label) / weight.sum()
    )
    made = Detector(
        _rounded(found.intercept_[0]),
        _rounded(found.coef_[0, -1]),
        found.coef_[0, :-1].astype(np.float16).astype(np.float32),
        prevalence=_rounded(np.mean([pairs.retrial.mean() for pairs in domains.values()])),
        trained_on=trained_on,
    )
    if not cross:
        return made
    if len(domains) < 2:
        raise InputError("domains: expected two or more to compare, got one")
    apart = [elsewhere(domains, name) for name in domains]
    number = len(apart)
    log_strength = np.log([max(one.strength, 0.05) for one in apart])
    doubt = np.std(log_strength, ddof=1) * np.sqrt(1 + 1 / number)
    misfit = np.sqrt(np.mean([np.square(one.misfit) for one in apart], axis=0))
    return made._replace(
        shares=tuple(map(_rounded, np.mean([one.shares for one in apart], axis=0))),
        doubts=tuple(_rounded(max(one, LEAST_MISFIT)) for one in misfit),
        levels=tuple(map(_rounded, np.mean([one.levels for one in apart], axis=0))),
        strength=(_rounded(np.exp(log_strength.mean())), _rounded(max(doubt, LEAST_DOUBT))),
        tilt=_rounded(np.sqrt(np.mean([max(one.tilt, 0) ** 2 for one in apart]))),
    )


class Elsewhere(NamedTuple):
    """What a detector is worth in a domain that it was not trained on.

    Attributes:
        score: of each pair of that domain.
        strength: by what the scores are to be multiplied to be evidence: a logistic regression's.
        levels: mean score of each class.
        shares: of each class among requests that open a dialogue.
        tilt: by what the log-odds of a class differ for each unit of its score, of requests after
            an answer that was taken against those that open a dialogue.
        misfit: by what the logs of the shares differ beyond that.
    """

    score: Float[np.ndarray, " pair"]
    strength: float
    levels: tuple[float, ...]
    shares: Float[np.ndarray, " class"]
    tilt: float
    misfit: Float[np.ndarray, " class"]


def elsewhere(domains: Mapping[str, Labelled], name: str) -> Elsewhere:
    """What a detector trained on all other domains is worth in the one that is named."""
    from sklearn.linear_model import LogisticRegression

    others = {other: pairs for other, pairs in domains.items() if other != name}
    made = train_detector(others, trained_on="", cross=False)
    here = domains[name]
    score = made.score(here.first, here.second)
    slope = LogisticRegression(C=1e6).fit(
        score[:, None], here.retrial, sample_weight=_balanced(here.retrial)
    )
    opens = np.append(True, here.group[1:] != here.group[:-1])
    nothing = pa.nulls(int(opens.sum()), pa.string())
    first = made.score(nothing, here.first.filter(pa.array(opens)))
    after, opening = (shares_of_classes(one) for one in (score[~here.retrial], first))
    place = classes_of(score)
    ends = np.array([ENDS[0] - 1, *ENDS, ENDS[-1] + 1])
    middle = (ends[1:] + ends[:-1]) / 2
    levels = [
        float(score[place == k].mean()) if (place == k).any() else float(middle[k])
        for k in range(CLASSES)
    ]
    # Classes that are common count more: the others' log-odds are noise.
    apart = np.log(after / opening)
    tilt, shift = np.polyfit(levels, apart, 1, w=np.sqrt(opening))
    misfit = apart - shift - tilt * np.array(levels)
    strength = float(slope.coef_[0, 0])
    return Elsewhere(score, strength, tuple(levels), opening, float(tilt), misfit)


def classes_of(score: Float[np.ndarray, " pair"]) -> Int[np.ndarray, " pair"]:
    """The class of each score, from 0."""
    return np.digitize(score, ENDS)


def shares_of_classes(score: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " class"]:
    """The share of scores in each class; half a score is added to each, so that none is empty."""
    counts = np.bincount(classes_of(score), minlength=CLASSES) + 0.5
    return counts / counts.sum()


def _rounded(number: Any) -> float:
    """To six places: what is beyond depends on the order of sums and so on the machine."""
    return round(float(number), 6)


def features(domains: Mapping[str, Labelled]) -> Any:
    """Features ``[pair, bucket + 1]``, the last one closeness."""
    from scipy.sparse import csr_matrix, hstack

    second = pa.concat_arrays([pairs.second for pairs in domains.values()])
    first = pa.concat_arrays([pairs.first for pairs in domains.values()])
    words = hashed_words(second)
    size = 1 / np.sqrt(np.maximum(words.count, 1))
    cells = (size[words.text], (words.text, words.bucket))
    near = csr_matrix(closeness(first, second)[:, None])
    return hstack([csr_matrix(cells, (len(second), BUCKETS)), near]).tocsr()


def _balanced(retrial: np.ndarray) -> Float[np.ndarray, " pair"]:
    """Weights by which both kinds weigh a half."""
    rate = retrial.mean()
    return np.where(retrial, 0.5 / rate, 0.5 / (1 - rate)) / len(retrial)


def save_detector(path: str | Path, detector: Detector) -> None:
    """Writes a detector: numbers and one JSON text, no code.

    Raises:
        InputError: where the file cannot be written.
    """
    said = {"format": FORMAT, **detector._asdict()}
    parts = {"weights": said.pop("weights").astype("<f2").tobytes(), "said": json.dumps(said)}
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, part in parts.items():  # ZipInfo has no time of its own: the same bytes each day
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
    write_bytes(held.getvalue(), path)


def load_detector(path: str | Path | None = None) -> Detector:
    """Reads a detector; without a path, the one that comes with the package.

    Raises:
        InputError: for a file that cannot be read or is no detector.

    Example:
        >>> len(load_detector().levels) == CLASSES
        True
    """
    where = "detector" if path is None else str(path)
    source: Any = (
        resources("cqbayes.logs.retrials") / "detector.zip" if path is None else Path(path)
    )
    try:
        with source.open("rb") as file:
            data = file.read(MOST_BYTES)
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{where}: expected a detector that can be read, got: {reason}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(one.file_size for one in archive.infolist()) > MOST_BYTES:
                raise ValueError
            # Whole members, so that their checksums are compared before anything is read in them.
            weights = np.frombuffer(archive.read("weights"), "<f2")
            said = json.loads(archive.read("said"))
        if said.pop("format") != FORMAT or weights.shape != (BUCKETS,):
            raise ValueError
        for name in ("levels", "shares", "doubts", "strength"):
            said[name] = tuple(map(float, said[name]))
        found = Detector(weights=weights.astype(np.float32), **said)
        numbers = [found.intercept, found.close, found.tilt, *found.levels, *found.strength]
        positive = [found.tilt, *found.strength, *found.shares, *found.doubts]
        right = (
            np.isfinite(numbers).all()
            and np.isfinite(weights).all()
            and len(found.levels) == len(found.shares) == len(found.doubts) == CLASSES
            and list(found.levels) == sorted(found.levels)
            and len(found.strength) == 2
            and np.isfinite(positive).all()
            and min(positive) > 0
            and 0 < found.prevalence < 1
            and isinstance(found.trained_on, str)
        )
        if not right:
            raise ValueError
    except DAMAGED:
        raise InputError(
            f"{where}: expected a detector of format {FORMAT}, got another file; make it with "
            "save_detector"
        ) from None
    return found

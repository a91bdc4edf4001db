"""Is a user's next turn the same request again? A probability for each pair of turns.

No log labels its retrials. A pair is a turn that was answered and the next one of the same session;
``z`` says what the two look like (:data:`FEATURES`), and a logistic regression how probable it is
that the second asks again for what the first asked for::

    intercept ~ Normal(0, 1.5),    w_k ~ Normal(0, prior_sd)
    logit P(retrial | z, w) = intercept + sum_k w_k (z_k - centre_k) / scale_k
    P(retrial | z) = E[P(retrial | z, w) | labelled pairs]

which is the MNL of :mod:`cqbayes.models.disjoint_mnl` with one thing to choose, fitted by
:func:`cqbayes.infer`. A few hundred labelled pairs leave ``w`` uncertain, and the mean over the
posterior is less sure of itself than any one ``w``. With ``m`` and ``v`` the posterior mean and
variance of the logit it is, nearly, ``sigmoid(m / sqrt(1 + pi v / 8))``.

The shipped detector was trained on 667 pairs of short requests to a coding assistant, labelled by
one reading (``analyses/retrial_detection.py`` has its scores). In other logs retrials are more or
less frequent, and look different: :func:`at_prevalence` mends the first, :func:`fit_detector`, with
some hundred pairs of that log labelled, both.

Source: MacKay (1992), The evidence framework applied to classification networks, for the mean of a
logistic function under a Gaussian; Saerens, Latinne and Decaestecker (2002), Adjusting the outputs
of a classifier to new a priori probabilities, for :func:`at_prevalence`. Needs the extra ``logs``.
"""

import json
import re
from collections.abc import Sequence
from importlib.resources import files as resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Real
from scipy.special import expit, logit

from cqbayes.answers import check_columns
from cqbayes.errors import InputError
from cqbayes.files import write_bytes

pc: Any = pyarrow.compute  # whose functions are made when it is imported

MOST_CHARS = 2_000  # of a text that are compared
MOST_CHARS_OF_PHRASES = 300  # of a text in which phrases are looked for: people complain first
CLOSE = 0.7  # similarity from which on two texts may be one request: below, a shared subject
SHORTEST_GAP, LONGEST_GAP = 1.0, 1_800.0  # seconds; what is beyond says no more
FORMAT = 1

# What the first of a turn says of the one before, in English. A log in another language has none.
COMPLAINT = (
    r"\b(wrong|incorrect|not (right|correct|working|what)|(does ?n.?t|do ?n.?t|did ?n.?t|is ?n.?t"
    r"|does not|do not|did not|is not|not) (work|run|return|seem|match|take)\w*|fail(s|ed|ing)?"
    r"|still|mistakes?|you (forgot|missed)|try again|again|fix)\b"
)
AMENDMENT = (
    r"\b(instead|without|rather|i mean(t)?|i (want|need|wanted|said|asked)|should(n.?t)?|must"
    r"|not (allowed|using)|do ?n.?t (use|import)|change|modify|rewrite|make (it|this)|same|but)\b"
)
ONWARD = r"^(thanks?|thank you|ok(ay)?|great|perfect|now|next|then|also|hi|hello)\b"
# What interpreters and compilers print is the same in all languages.
FAULT = r"(traceback \(most recent|\b\w*(error|exception)s?: ?|segmentation fault|stack ?trace)"
_PHRASES = {"complaint": COMPLAINT, "amendment": AMENDMENT, "onward": ONWARD, "fault": FAULT}
_ENGLISH = ("complaint", "amendment", "onward")

FEATURES = ("edit", "tokens", "close", "gap", "length", *_PHRASES)
MEANING = "meaning"
_NEEDED = ("session_id", "turn", "timestamp", "text", "language", "failed", "repeated")


def features(
    first: pa.RecordBatch, second: pa.RecordBatch, meaning: Float[np.ndarray, " pair"] | None = None
) -> Float[np.ndarray, "pair feature"]:
    """What pairs of turns look like: ``FEATURES``, a column each, and ``meaning`` where given.

    =============  =================================================================================
    ``edit``       1 less the edit distance (insertions and deletions) over both lengths, in [0, 1]
    ``tokens``     the same with the words of both in alphabetical order
    ``close``      how far the larger of these is on the way from ``CLOSE`` to 1, in [0, 1]
    ``gap``        log of the seconds between the two, from 1 second to half an hour
    ``length``     log of 1 + the second's characters
    ``complaint``  1 where the second begins with a complaint (in English), else 0
    ``amendment``  likewise where it says what it should have been
    ``onward``     likewise where it thanks or goes on to the next thing
    ``fault``      likewise where it quotes an error of a program
    ``meaning``    cosine of the embeddings of both, in [-1, 1]
    =============  =================================================================================

    Letters are compared without case, white space folded, ``MOST_CHARS`` of each text. NaN where
    nothing is known: a time or text is absent, or the language is known and not English.

    Args:
        first, second: turns (columns of ``TURNS``), row by row the pairs.
        meaning: the cosines, where texts were embedded.

    Raises:
        InputError: where the extra ``logs`` is absent, or the two are not of one length.

    Example:
        >>> said = {"text": ["sort a list", "wrong"], "timestamp": [0, 10_000_000]}
        >>> turns = pa.RecordBatch.from_pydict({**said, "language": ["English", "English"]})
        >>> found = features(turns[:1], turns[1:])[0]
        >>> {name: round(float(found[i]), 2) for i, name in enumerate(FEATURES)}
        {'edit': 0.12, 'tokens': 0.12, 'close': 0.0, 'gap': 2.3, 'length': 1.79, 'complaint': 1.0, \
'amendment': 0.0, 'onward': 0.0, 'fault': 0.0}
    """
    if first.num_rows != second.num_rows:
        raise InputError(
            f"pairs: expected as many first turns as second ones, got {first.num_rows} and "
            f"{second.num_rows}"
        )
    one, two = _plain(first.column("text")), _plain(second.column("text"))
    known = pc.and_(pc.is_valid(one), pc.is_valid(two)).to_numpy(zero_copy_only=False)
    edit, tokens = _similarities(one.fill_null("").to_pylist(), two.fill_null("").to_pylist())
    length = np.log1p(_numbers(pc.utf8_length(second.column("text"))))
    beginning = pc.utf8_slice_codeunits(two, 0, MOST_CHARS_OF_PHRASES)
    english = _english(second.column("language"))
    columns = [
        np.where(known, edit, np.nan),
        np.where(known, tokens, np.nan),
        np.where(known, np.clip((np.maximum(edit, tokens) - CLOSE) / (1 - CLOSE), 0, 1), np.nan),
        np.log(np.clip(seconds_between(first, second), SHORTEST_GAP, LONGEST_GAP)),
        length,
    ]
    for name, pattern in _PHRASES.items():
        said = _numbers(pc.match_substring_regex(beginning, pattern))
        columns.append(np.where(english, said, np.nan) if name in _ENGLISH else said)
    if meaning is not None:
        columns.append(np.asarray(meaning, np.float64))
    return np.stack(columns, axis=1)


def _plain(text: pa.Array) -> pa.Array:
    """Lower case, white space folded."""
    short = pc.utf8_lower(pc.utf8_slice_codeunits(text, 0, MOST_CHARS))
    # To look for white space that is to be folded takes a tenth of the time of folding it.
    ragged = pc.match_substring_regex(short, r"\s\s|[^\S ]").fill_null(False)
    folded = pc.replace_substring_regex(short.filter(ragged), r"\s+", " ")
    return pc.utf8_trim_whitespace(pc.replace_with_mask(short, ragged, folded))


def _similarities(one: list[str], two: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if find_spec("rapidfuzz") is None:
        raise InputError("retrials: expected the extra logs; pip install 'cqbayes[logs]'")
    from rapidfuzz import fuzz, process

    if not one:
        return np.zeros(0), np.zeros(0)
    edit, tokens = (
        process.cpdist(one, two, scorer=scorer, dtype=np.float32, workers=1).astype(float) / 100
        for scorer in (fuzz.ratio, fuzz.token_sort_ratio)
    )
    return edit, tokens


def seconds_between(first: pa.RecordBatch, second: pa.RecordBatch) -> Float[np.ndarray, " pair"]:
    """Seconds from the first of two turns to the second; NaN where a time is absent."""
    times = [batch.column("timestamp").cast(pa.int64()) for batch in (first, second)]
    return _numbers(pc.subtract(times[1], times[0])) / 1e6


def _english(language: pa.Array) -> Bool[np.ndarray, " pair"]:
    """Whether phrases in English may be looked for: also where no language is known."""
    said = pc.match_substring_regex(language.cast(pa.string()), r"(?i)^en(g|[-_]|$)")
    return said.fill_null(True).to_numpy(zero_copy_only=False)


def _numbers(values: pa.Array) -> np.ndarray:
    """As floats, NaN for null."""
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


class Pairs(NamedTuple):
    """Consecutive turns of a table: what a detector is trained on.

    Attributes:
        first: row of the table in which the first of each pair stands.
        second: that of the second.
        features: as of :func:`features`.
    """

    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    features: Float[np.ndarray, "pair feature"]


def pairs(turns: pa.Table, encoder: Any = None) -> Pairs:
    """All turns of a sorted table that were answered, each with the next one of its session.

    Turns that failed are passed over: the pair is then of the turns around them.

    Args:
        turns: columns of ``TURNS``, sorted as by :func:`cqbayes.logs.chains.in_order`.
        encoder: a sentence encoder, for the feature ``meaning``.

    Raises:
        InputError: for a missing column, or a missing extra.
    """
    check_columns("turns", turns.column_names, _NEEDED)
    rows = turns.select(list(_NEEDED)).combine_chunks()
    answered = np.flatnonzero(~flags(rows["failed"]))
    session = rows["session_id"].take(pa.array(answered)).combine_chunks()
    same = pc.equal(session[:-1], session[1:]).to_numpy(zero_copy_only=False)
    first, second = answered[:-1][same], answered[1:][same]
    one, two = (_batch(rows.take(pa.array(which))) for which in (first, second))
    meaning = None if encoder is None else cosines(one, two, encoder)
    return Pairs(first, second, features(one, two, meaning))


def _batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def flags(column: pa.Array | pa.ChunkedArray) -> Bool[np.ndarray, " row"]:
    """Whether it is known to be true."""
    return np.asarray(column.cast(pa.bool_()).fill_null(False))


def cosines(
    first: pa.RecordBatch, second: pa.RecordBatch, encoder: Any
) -> Float[np.ndarray, " pair"]:
    """Cosines of the embeddings of two turns' texts; NaN where a text is absent."""
    from cqbayes.embeddings.encoder import embed

    found = np.full(first.num_rows, np.nan)
    columns = [pc.utf8_slice_codeunits(b.column("text"), 0, MOST_CHARS) for b in (first, second)]
    known = np.flatnonzero(np.asarray(pc.and_(*map(pc.is_valid, columns))))
    if len(known):
        one, two = (embed(c.take(pa.array(known)).to_pylist(), encoder) for c in columns)
        found[known] = np.sum(one.astype(float) * two, axis=1)
    return found


class Logistic(NamedTuple):
    """A logistic regression on standardised features, with what is not known of it.

    Attributes:
        features: their names.
        centre: mean of each over the labelled pairs ``[feature]``; what is not known counts as it.
        scale: its standard deviation, or 1 where that is 0 ``[feature]``.
        mean: posterior mean of the intercept and of each weight ``[1 + feature]``.
        covariance: theirs ``[1 + feature, 1 + feature]``.
        prevalence: share of retrials among the labelled pairs.
    """

    features: tuple[str, ...]
    centre: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]
    mean: Float[np.ndarray, " weight"]
    covariance: Float[np.ndarray, "weight weight"]
    prevalence: float

    def probability(self, values: Real[np.ndarray, "pair feature"]) -> Float[np.ndarray, " pair"]:
        """``P(retrial | z)``, the mean over the posterior, for each pair.

        Example:
            >>> one = np.ones(1)
            >>> Logistic(("edit",), 0 * one, one, np.r_[0.0, 2], np.eye(2), 0.5).probability(
            ...     np.array([[0.0], [1.0], [np.nan]])
            ... ).round(3).tolist()
            [0.5, 0.817, 0.5]
        """
        z = (np.asarray(values, np.float64) - self.centre) / self.scale
        z = np.concatenate([np.ones((len(z), 1)), np.where(np.isnan(z), 0, z)], axis=1)
        variance = np.sum((z @ self.covariance) * z, axis=1)
        return expit(z @ self.mean / np.sqrt(1 + np.pi * variance / 8))


class Errors(NamedTuple):
    """How often a detector errs, as the priors that :mod:`cqbayes.models.misclassified` takes.

    ``misclassified(recognised=errors.recognised, specificity=errors.specificity)``. They are of
    turns with a next one, and as right as the labels are: users who leave dissatisfied and without
    a word are not among them (:mod:`cqbayes.models.abandonment`).

    Attributes:
        threshold: probability from which on a turn counts as a retrial.
        recognised: Beta prior: how far sensitivity lies on the way from 1 - specificity to 1.
        specificity: Beta prior: share of other turns that are not taken for retrials.
    """

    threshold: float
    recognised: tuple[float, float]
    specificity: tuple[float, float]


class Detector(NamedTuple):
    """A detector of retrials.

    Attributes:
        plain: what it does without embeddings.
        embedded: what it does with them; None where it was not trained for that.
        errors: how often ``plain`` errs; None where that was not measured.
        trained_on: what the labels are and where they come from.
    """

    plain: Logistic
    embedded: Logistic | None = None
    errors: Errors | None = None
    trained_on: str = ""

    def probability(self, values: Real[np.ndarray, "pair feature"]) -> Float[np.ndarray, " pair"]:
        """Of each pair, from the features that there are; see :func:`features`.

        Raises:
            InputError: for other features than it was trained on.
        """
        for one in (self.plain, self.embedded):
            if one is not None and len(one.features) == np.shape(values)[1]:
                return one.probability(values)
        known = [len(one.features) for one in (self.plain, self.embedded) if one is not None]
        raise InputError(
            f"features: expected {' or '.join(map(str, known))} columns, got {np.shape(values)[1]}"
        )


def fit_logistic(
    key: PRNGKeyArray,
    values: Real[np.ndarray, "pair feature"],
    retrial: Any,
    *,
    weight: Any = None,
    prior_sd: float = 1.0,
    engine: str = "auto",
) -> Logistic:
    """Fits the detector's regression to labelled pairs.

    Args:
        key: a JAX random key.
        values: as of :func:`features` or :func:`pairs`; NaN counts as the mean.
        retrial: whether the second of each pair asks again for what the first asked for ``[pair]``.
        weight: of each pair, 1 where absent; 0 leaves it out ``[pair]``.
        prior_sd: prior standard deviation of each weight, in log-odds for one standard deviation
            of the feature.
        engine: of :func:`cqbayes.infer`; ``auto`` takes ``laplace`` where that is good enough.

    Raises:
        InputError: for labels other than 0 and 1, of another number than pairs, or all alike; for
            features other than those known; and where the engine says that it failed.
    """
    import jax

    from cqbayes.catalogue import model_factory
    from cqbayes.choice import choice_data
    from cqbayes.inference import infer

    values = np.asarray(values, np.float64)
    names = (*FEATURES, MEANING)[: values.shape[1]]
    if len(names) != values.shape[1] or len(names) < len(FEATURES):
        raise InputError(
            f"features: expected {len(FEATURES)} columns, or one more with {MEANING}, got "
            f"{values.shape[1]}"
        )
    labels = np.asarray(retrial)
    if labels.shape != (len(values),) or not np.isin(labels, (0, 1)).all():
        raise InputError(f"retrial: expected {len(values)} labels, each 0 or 1, got others")
    weight = np.ones(len(values)) if weight is None else np.asarray(weight, np.float64)
    used = weight > 0
    rate = float(np.average(labels, weights=weight)) if used.any() else 0.0
    if not 0 < rate < 1:
        raise InputError("retrial: expected pairs of both kinds, got labels that are all alike")
    centre, scale = _standard(values[used])
    z = (values - centre) / scale
    data = choice_data(
        np.where(np.isnan(z), 0, z),
        np.ones((len(values), 1), bool),
        labels.astype(int),
        weight=weight,
    )
    model = model_factory("disjoint_mnl")(prior_sd=prior_sd)
    fit_key, draw_key = jax.random.split(key)
    posterior, info = infer(fit_key, model, data, engine=engine)
    if not info.ok:
        raise InputError(f"retrial: expected labels that a regression can be fitted to: {info}")
    draws = _flat(posterior.sites(draw_key, 4_000))
    return Logistic(names, centre, scale, draws.mean(axis=0), np.cov(draws.T), rate)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column: 0 and 1 where it says nothing."""
    count = np.sum(~np.isnan(values), axis=0)
    centre = np.nansum(values, axis=0) / np.maximum(count, 1)
    spread = np.sqrt(np.nansum((values - centre) ** 2, axis=0) / np.maximum(count, 1))
    return centre, np.where(spread > 1e-9, spread, 1.0)


def _flat(sites: dict[str, Array]) -> Float[np.ndarray, "draw weight"]:
    slopes = np.asarray(sites["theta"], np.float64)[:, :, 0]
    both = np.concatenate([np.asarray(sites["intercept"], np.float64), slopes], axis=-1)
    return both.reshape(-1, both.shape[-1])


def fit_detector(
    key: PRNGKeyArray,
    values: Real[np.ndarray, "pair feature"],
    retrial: Any,
    *,
    trained_on: str,
    **settings: Any,
) -> Detector:
    """Trains a detector on labels of one's own.

    With the feature ``meaning`` it learns what to do with embeddings and without.

    Args:
        key, values, retrial, settings: as for :func:`fit_logistic`.
        trained_on: what the labels are and where they come from.

    Raises:
        InputError: as there.
    """
    import jax

    values = np.asarray(values, np.float64)
    plain_key, embedded_key = jax.random.split(key)
    plain = fit_logistic(plain_key, values[:, : len(FEATURES)], retrial, **settings)
    embedded = None
    if values.shape[1] > len(FEATURES):
        embedded = fit_logistic(embedded_key, values, retrial, **settings)
    return Detector(plain, embedded, trained_on=trained_on)


def at_prevalence(detector: Detector, rate: float) -> Detector:
    """The same detector for a log in which another share of the next turns are retrials.

    What retrials look like is assumed to be the same; only how many there are differs:
    ``logit P`` moves by ``logit(rate) - logit(prevalence)``. Its error rates at the threshold are
    then no longer known, and are left out.

    Raises:
        InputError: for a rate that is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise InputError(f"rate: expected a share between 0 and 1, got {rate}")

    def moved(one: Logistic) -> Logistic:
        mean = one.mean.copy()
        mean[0] += logit(rate) - logit(one.prevalence)
        return one._replace(mean=mean, prevalence=rate)

    embedded = None if detector.embedded is None else moved(detector.embedded)
    return detector._replace(plain=moved(detector.plain), embedded=embedded, errors=None)


def error_rates(
    probability: Float[np.ndarray, " pair"],
    retrial: Any,
    group: Sequence[Any] | np.ndarray,
    *,
    doubtful: Any = None,
    threshold: float = 0.5,
    seed: int = 0,
    num_samples: int = 2_000,
) -> Errors:
    """Beta priors of a detector's error rates, from pairs that it was not trained on.

    With sensitivity ``c`` and specificity ``d``, ``recognised = 1 - (1 - c) / d``. Users differ,
    and their pairs are not independent, so that groups are weighed, as in the Bayesian bootstrap,
    and before any is seen there is Jeffreys' prior of a share, half a group of either kind::

        w_g ~ Gamma(1),    e, f ~ Gamma(1/2)        for each group, and for the prior
        c   = (sum_g w_g hits_g + s e) / (sum_g w_g retrials_g + s (e + f))

    with ``s`` the mean number of retrials of a group that has any; ``d`` likewise. With one pair a
    group ``c ~ Beta(1/2 + hits, 1/2 + misses)``: no error in five pairs does not mean that there
    are none. Of the pairs with a doubtful label, a share that is uniform in [0, 1] counts as
    retrials in each sample: what a retrial is, is uncertain for all of them at once. Samples in
    which the detector is no better than guessing are left out, since no prior of ``misclassified``
    says that; of the others, the Beta of their mean and variance is given.

    Args:
        probability: of each pair, from a fit without its group.
        retrial: its label.
        group: whose it is.
        doubtful: whether the label may be either; none where absent.
        threshold: from which on a pair counts as a retrial.
        seed: of the sampling.
        num_samples: how many.

    Raises:
        InputError: where there are fewer than two groups, or the detector is as likely as not no
            better than guessing.

    Reference:
        Rubin (1981), The Bayesian bootstrap; Muliere and Secchi (1996), Bayesian nonparametric
        predictive inference and bootstrap techniques, for its prior; that it is half a group of
        either kind, and not half a pair, is ours.

    Example:
        >>> errors = error_rates(np.array([0.9, 0.1] * 5), [1, 0] * 5, range(10))
        >>> round(errors.specificity[0] / sum(errors.specificity), 1)
        0.9
    """
    called, truth = probability >= threshold, np.asarray(retrial).astype(bool)
    unsure = np.zeros(len(truth), bool) if doubtful is None else np.asarray(doubtful).astype(bool)
    _, place = np.unique(np.asarray(group), return_inverse=True)
    num = int(place.max(initial=-1)) + 1
    if num < 2:
        raise InputError(f"group: expected at least two, got {num}")
    sure = ~unsure
    kinds = (truth & sure, ~truth & sure, unsure)
    counts = np.stack(
        [np.bincount(place, kind & said, num) for kind in kinds for said in (called, ~called)]
    )
    rng = np.random.default_rng(seed)
    times = rng.standard_exponential((num, num_samples))
    share = rng.random(num_samples)
    hit, missed, wrong, kept, unsure_called, unsure_not = counts @ times
    hit, missed = hit + share * unsure_called, missed + share * unsure_not
    wrong, kept = wrong + (1 - share) * unsure_called, kept + (1 - share) * unsure_not
    sensitivity = _share(rng, hit, missed, _usual(counts[0] + counts[1]))
    specificity = _share(rng, kept, wrong, _usual(counts[2] + counts[3]))
    recognised = 1 - (1 - sensitivity) / specificity
    better = recognised > 0
    if better.mean() <= 0.5:
        raise InputError("probability: expected a detector better than guessing, got none")
    return Errors(threshold, _beta(recognised[better]), _beta(specificity[better]))


def _usual(count: np.ndarray) -> float:
    """How many pairs a group has that has any."""
    return float(count[count > 0].mean()) if (count > 0).any() else 1.0


def _share(
    rng: np.random.Generator, yes: np.ndarray, no: np.ndarray, size: float
) -> Float[np.ndarray, " sample"]:
    """Samples of a share with half a group of either kind more, of so many pairs."""
    more, less = size * rng.standard_gamma(0.5, (2, len(yes)))
    return (yes + more) / (yes + no + more + less)


def of_all_rows(
    errors: Errors,
    shown: tuple[int, int],
    inferred: tuple[int, int],
    *,
    seed: int = 0,
    num_samples: int = 2_000,
) -> Errors:
    """Error rates over all services of a log, of which users showed some outcomes themselves.

    What is shown is right, so that with shares ``g`` of the retries and of the acceptances that
    are shown, ``1 - sensitivity`` and ``1 - specificity`` are ``1 - g`` times the detector's.
    The shares are estimated from the counts: of the inferred services, retries are as many as make
    the detector call as many as it did. Rows cannot each have their own error rates instead, since
    whether an outcome is shown depends on what it is.

    Args:
        errors: of the detector, on turns that it judged.
        shown: how many retries and how many acceptances users showed.
        inferred: how many of each the detector called.
        seed: of the sampling of error rates.
        num_samples: how many.

    Example:
        >>> known = Errors(0.5, (50.0, 50.0), (90.0, 10.0))
        >>> found = of_all_rows(known, (0, 0), (20, 80))
        >>> round(found.recognised[0] / sum(found.recognised), 2)
        0.5
    """
    rng = np.random.default_rng(seed)
    recognised = rng.beta(*errors.recognised, num_samples)
    specificity = rng.beta(*errors.specificity, num_samples)
    called, total = inferred[0], sum(inferred)
    retries = np.clip((called - (1 - specificity) * total) / (recognised * specificity), 0, total)
    # Half a row on either side: a share is never quite 0 or 1.
    hidden_retry = (retries + 0.5) / (retries + shown[0] + 0.5)
    hidden_taken = (total - retries + 0.5) / (total - retries + shown[1] + 0.5)
    missed = hidden_retry * (1 - recognised) * specificity
    kept = 1 - hidden_taken * (1 - specificity)
    return Errors(errors.threshold, _beta(1 - missed / kept), _beta(kept))


def _beta(values: np.ndarray) -> tuple[float, float]:
    """The Beta of their mean and variance; no surer than after a thousand observations."""
    mean = min(max(float(values.mean()), 1e-3), 1 - 1e-3)
    size = max(min(mean * (1 - mean) / max(float(values.var()), 1e-12) - 1, 1_000.0), 1.0)
    return mean * size, (1 - mean) * size


# Files: numbers and names in JSON, no code.


def save_detector(path: str | Path, detector: Detector) -> None:
    """Writes a detector as JSON.

    Raises:
        InputError: where the file cannot be written.
    """
    said = {
        "format": FORMAT,
        "trained_on": detector.trained_on,
        "errors": None if detector.errors is None else detector.errors._asdict(),
        "plain": _said(detector.plain),
        "embedded": None if detector.embedded is None else _said(detector.embedded),
    }
    text = json.dumps(said, indent=1)
    # A matrix is read row by row: what is innermost stands on one line.
    text = re.sub(r"\[\s*([^\[\]]*?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_bytes((text + "\n").encode(), path)


def _said(one: Logistic) -> dict[str, Any]:
    def short(values: np.ndarray) -> Any:
        return (
            [short(v) for v in values] if values.ndim > 1 else [float(f"{v:.6g}") for v in values]
        )

    numbers = {
        name: short(getattr(one, name)) for name in ("centre", "scale", "mean", "covariance")
    }
    return {"features": list(one.features), **numbers, "prevalence": float(f"{one.prevalence:.6g}")}


def load_detector(path: str | Path | None = None) -> Detector:
    """Reads a detector; without a path, the one that comes with the package.

    Raises:
        InputError: for a file that cannot be read or is no detector.

    Example:
        >>> load_detector().plain.features == FEATURES
        True
    """
    where = "detector" if path is None else str(path)
    try:
        source = resources("cqbayes.logs") / "detector.json" if path is None else Path(path)
        said = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "not readable"
        raise InputError(f"{where}: expected a detector that can be read, got: {reason}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{where}: expected a detector in JSON, got something else") from None
    try:
        if said["format"] != FORMAT:
            raise ValueError
        errors = said["errors"]
        return Detector(
            _read(said["plain"], FEATURES),
            None if said["embedded"] is None else _read(said["embedded"], (*FEATURES, MEANING)),
            None if errors is None else _errors(**errors),
            str(said["trained_on"]),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{where}: expected a detector of format {FORMAT} with these features, got another "
            "file; make it with save_detector"
        ) from None


def _read(said: Any, names: tuple[str, ...]) -> Logistic:
    num = len(names)
    shapes = {"centre": (num,), "scale": (num,), "mean": (num + 1,), "covariance": (num + 1,) * 2}
    numbers = {name: np.asarray(said[name], np.float64) for name in shapes}
    found = Logistic(tuple(said["features"]), **numbers, prevalence=float(said["prevalence"]))
    right = (
        found.features == names
        and all(numbers[name].shape == shape for name, shape in shapes.items())
        and all(np.isfinite(values).all() for values in numbers.values())
        and (found.scale > 0).all()
        and np.allclose(found.covariance, found.covariance.T, rtol=1e-3)
        and (np.linalg.eigvalsh(found.covariance) > -1e-6).all()
        and 0 < found.prevalence < 1
    )
    if not right:
        raise ValueError
    return found


def _errors(threshold: float, recognised: Any, specificity: Any) -> Errors:
    pairs = [tuple(float(v) for v in both) for both in (recognised, specificity)]
    if not 0 < threshold < 1 or any(len(p) != 2 or not 0 < min(p) <= max(p) < 1e9 for p in pairs):
        raise ValueError
    (a, b), (c, d) = pairs
    return Errors(float(threshold), (a, b), (c, d))

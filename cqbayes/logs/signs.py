"""What a next request in other words says of the answer before it, in one log.

Where a log shows retrials explicitly (the same request again), a user who goes on in other words
was content, *if* users do not also ask again in other words. A log cannot tell by itself what its
users meant. But if some of the requests that follow are retrials in other words, there are more of
them after an LLM whose answers are taken less often: what follows looks different after one LLM
than after another. Which is looked for with words alone, beyond what the requests *before* the
answers differ by: those differ where routing depends on the subject.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from cqbayes.errors import InputError
from cqbayes.logs.retrials.pairs import flags

pc: Any = pyarrow.compute  # whose functions are made when it is imported

Signs = Literal["auto", "explicit", "inferred"]
LEAST_EXPLICIT = 10  # retrials; with fewer, users may have no way to show one
LEAST_FOLLOWERS = 30  # after an LLM, or they cannot be compared
MOST_TEXTS = 4_000  # after an LLM, and of more a part
MOST_CHARS = 1_000  # of a text
FAR_APART = 3.0  # standard errors: by chance 1 comparison in 700
FOLDS = 5


class Followers(NamedTuple):
    """How far requests that follow an answer tell which LLM gave it.

    Attributes:
        area: under the receiver operating characteristic, on texts held out, of the LLM for which
            that is farthest from ``before``; 0.5 where nothing is told. NaN where there are too few
            to say, or one LLM alone.
        before: the same for the requests that were answered.
        error: the standard error of an area, were there nothing to tell.
        number: of requests that follow.
    """

    area: float
    before: float
    error: float
    number: int

    @property
    def apart(self) -> float:
        """By how many standard errors more is told than by the requests before."""
        return (self.area - max(self.before, 0.5)) / self.error

    @property
    def are_alike(self) -> bool:
        """Whether they look the same after all LLMs, as far as can be seen."""
        return not self.apart > FAR_APART


def explicit_retrials(turns: pa.Table) -> int:
    """How many turns of a table ask for another answer for sure."""
    return int((flags(turns["regenerated"]) | flags(turns["repeated"])).sum())


def compare_followers(turns: pa.Table) -> Followers:
    """Compares the requests that follow the answers of each LLM, in other words, with all others.

    A logistic regression on words and pairs of words, cross-validated; no label is needed.

    Args:
        turns: of ``TURNS``, in order.

    Raises:
        InputError: without scikit-learn.
    """
    text = pc.utf8_slice_codeunits(turns["text"], 0, MOST_CHARS)
    worded = ~np.asarray(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True))
    again = flags(turns["regenerated"]) | flags(turns["repeated"])
    code = np.asarray(pc.fill_null(turns["model"].combine_chunks().dictionary_encode().indices, -1))
    session = turns["session_id"]
    same = np.asarray(pc.equal(session[1:], session[:-1]), bool) if turns.num_rows > 1 else []
    here = np.flatnonzero(np.asarray(same, bool) & worded[1:] & worded[:-1] & ~again[1:]) + 1
    here = here[code[here - 1] >= 0]
    after = code[here - 1]
    found = Followers(np.nan, np.nan, np.nan, len(here))
    counts = np.bincount(after) if len(here) else np.zeros(0, int)
    if (counts >= LEAST_FOLLOWERS).sum() < 2:
        return found
    rng = np.random.default_rng(0)  # of which texts of many; the outcome is otherwise fixed
    some = np.sort(
        np.concatenate(
            [rng.permutation(np.flatnonzero(after == j))[:MOST_TEXTS] for j in range(len(counts))]
        )
    )
    follows, before = (
        _words(text.take(pa.array(rows)).to_pylist()) for rows in (here[some], here[some] - 1)
    )
    for llm in np.flatnonzero(counts >= LEAST_FOLLOWERS):
        label = after[some] == llm
        first, second = int(label.sum()), int((~label).sum())
        if min(first, second) < LEAST_FOLLOWERS:
            continue
        error = float(np.sqrt((first + second + 1) / (12 * first * second)))
        one = Followers(_area(follows, label), _area(before, label), error, len(here))
        if np.isnan(found.area) or one.apart > found.apart:
            found = one
    return found


def _words(texts: list[str]) -> Any:
    """Words and pairs of words of texts, ``[text, word]``, rare ones more."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ModuleNotFoundError:
        raise InputError("signs: expected the extra logs; pip install 'cqbayes[logs]'") from None
    words = TfidfVectorizer(
        ngram_range=(1, 2), max_features=20_000, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        return words.fit_transform(texts)
    except ValueError:  # no words in any text
        return np.zeros((len(texts), 1))


def _area(words: Any, label: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    model = LogisticRegression(max_iter=200, class_weight="balanced")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    score = cross_val_predict(model, words, label, cv=folds, method="decision_function")
    return float(roc_auc_score(label, score))

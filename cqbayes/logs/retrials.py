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

from cqbayes.logs.detector import Detector, Logistic, at_prevalence, fit_detector, fit_logistic
from cqbayes.logs.detector_files import load_detector, save_detector
from cqbayes.logs.error_rates import Errors, error_rates, of_all_rows
from cqbayes.logs.pairs import (
    AMENDMENT,
    CLOSE,
    COMPLAINT,
    FAULT,
    FEATURES,
    LONGEST_GAP,
    MEANING,
    MOST_CHARS,
    MOST_CHARS_OF_PHRASES,
    ONWARD,
    SHORTEST_GAP,
    Pairs,
    cosines,
    features,
    flags,
    pairs,
    seconds_between,
)

__all__ = [
    "AMENDMENT",
    "CLOSE",
    "COMPLAINT",
    "FAULT",
    "FEATURES",
    "LONGEST_GAP",
    "MEANING",
    "MOST_CHARS",
    "MOST_CHARS_OF_PHRASES",
    "ONWARD",
    "SHORTEST_GAP",
    "Detector",
    "Errors",
    "Logistic",
    "Pairs",
    "at_prevalence",
    "cosines",
    "error_rates",
    "features",
    "fit_detector",
    "fit_logistic",
    "flags",
    "load_detector",
    "of_all_rows",
    "pairs",
    "save_detector",
    "seconds_between",
]

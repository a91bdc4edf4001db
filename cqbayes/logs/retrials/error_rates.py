"""How often a detector of retrials errs, as priors: on labelled pairs, and over a whole log."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cqbayes.errors import InputError


class Errors(NamedTuple):
    """How often a detector errs, as the priors that :mod:`cqbayes.models.misclassified` takes.

    Use: ``misclassified(recognised=errors.recognised, specificity=errors.specificity)``. The rates
    hold for turns that have a next turn, and are as correct as the labels. They do not cover users
    who leave dissatisfied without a word (:mod:`cqbayes.models.abandonment`).

    Attributes:
        threshold: a turn counts as a retrial from this probability on.
        recognised: Beta prior: how far sensitivity lies on the way from 1 - specificity to 1.
        specificity: Beta prior: share of other turns that are not taken for retrials.
    """

    threshold: float
    recognised: tuple[float, float]
    specificity: tuple[float, float]


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
    and the pairs of one user are not independent. So groups are weighted, as in the Bayesian
    bootstrap, with Jeffreys' prior of a share, which is half a group of either kind::

        w_g ~ Gamma(1),    e, f ~ Gamma(1/2)        for each group, and for the prior
        c   = (sum_g w_g hits_g + s e) / (sum_g w_g retrials_g + s (e + f))

    with ``s`` the mean number of retrials of a group that has any; ``d`` likewise. With one pair
    per group, ``c ~ Beta(1/2 + hits, 1/2 + misses)``: five pairs without an error do not prove that
    the detector never errs. In each sample, a share of the pairs with a doubtful label counts as
    retrials. The share is uniform in [0, 1], since the definition of a retrial is uncertain for all
    these pairs together. Samples in which the detector is no better than guessing are left out,
    since no prior of ``misclassified`` allows that. The result is the Beta with the mean and
    variance of the other samples.

    Args:
        probability: of each pair, from a fit without its group.
        retrial: label of each pair.
        group: group of each pair, such as its user.
        doubtful: whether each label may be either; no label where absent.
        threshold: a pair counts as a retrial from this probability on.
        seed: of the sampling.
        num_samples: how many.

    Raises:
        InputError: for fewer than two groups, or where the detector is no better than guessing in
            half of the samples or more.

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
        raise InputError(f"group: expected at least two groups, got {num}")
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
        raise InputError("probability: expected a detector better than guessing, got a worse one")
    return Errors(threshold, _beta(recognised[better]), _beta(specificity[better]))


def _usual(count: np.ndarray) -> float:
    """Mean number of pairs in the groups that have any."""
    return float(count[count > 0].mean()) if (count > 0).any() else 1.0


def _share(
    rng: np.random.Generator, yes: np.ndarray, no: np.ndarray, size: float
) -> Float[np.ndarray, " sample"]:
    """Samples of a share, with half a group of ``size`` pairs added on either side."""
    more, less = size * rng.standard_gamma(0.5, (2, len(yes)))
    return (yes + more) / (yes + no + more + less)


def rates_over_all_rows(
    errors: Errors,
    shown: tuple[int, int],
    inferred: tuple[int, int],
    *,
    seed: int = 0,
    num_samples: int = 2_000,
) -> Errors:
    """Error rates over all services of a log in which users showed some outcomes themselves.

    Shown outcomes are right. If users show a share ``g`` of the retries, ``1 - sensitivity`` is ``1
    - g`` times the detector's; likewise ``1 - specificity`` for the acceptances. The shares are
    estimated from the counts: the number of true retries among the inferred services is the one
    that explains how many the detector called. Error rates for each row would not do instead, since
    whether an outcome is shown depends on the outcome.

    Args:
        errors: of the detector, on turns that it judged.
        shown: how many retries and how many acceptances users showed.
        inferred: how many of each the detector called.
        seed: of the sampling of error rates.
        num_samples: how many.

    Example:
        >>> known = Errors(0.5, (50.0, 50.0), (90.0, 10.0))
        >>> found = rates_over_all_rows(known, (0, 0), (20, 80))
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
    """The Beta with their mean and variance, worth at most a thousand observations."""
    mean = min(max(float(values.mean()), 1e-3), 1 - 1e-3)
    size = max(min(mean * (1 - mean) / max(float(values.var()), 1e-12) - 1, 1_000.0), 1.0)
    return mean * size, (1 - mean) * size

"""Is a user's next turn the same request again? A probability for each pair of turns.

No log labels its retrials. A pair is a turn that was answered and the next one of the same session;
``z`` says what the two look like (:data:`FEATURES`), and a logistic regression how probable it is
that the second asks again for what the first asked for::

    intercept ~ Normal(0, 1.5),    w_k ~ Normal(0, prior_sd)
    logit P(retrial | z, w) = intercept + sum_k w_k (z_k - centre_k) / scale_k
    P(retrial | z) = E[P(retrial | z, w) | labelled pairs]

This is the MNL of :mod:`cqbayes.models.disjoint_mnl` with one LLM, fitted by :func:`cqbayes.infer`.
A few hundred labelled pairs leave ``w`` uncertain, and the mean over the posterior is less
confident than any single ``w``. With ``m`` and ``v`` the posterior mean and variance of the logit,
this mean is nearly ``sigmoid(m / sqrt(1 + pi v / 8))``.

The shipped detector was trained on 667 pairs of short requests to a coding assistant, labelled by
one reading (``analyses/retrial_detection.py`` has its scores). In other logs retrials are more or
less frequent, and look different. :func:`at_prevalence` corrects the frequency;
:func:`fit_detector`, with some hundred labelled pairs of that log, corrects both.

Source: MacKay (1992), The evidence framework applied to classification networks, for the mean of a
logistic function under a Gaussian; Saerens, Latinne and Decaestecker (2002), Adjusting the outputs
of a classifier to new a priori probabilities, for :func:`at_prevalence`. Needs the extra ``logs``.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Real
from scipy.special import expit, logit

from cqbayes.errors import InputError
from cqbayes.logs.retrials.error_rates import Errors
from cqbayes.logs.retrials.pairs import FEATURES, MEANING


class Logistic(NamedTuple):
    """A logistic regression on standardised features, with its uncertainty.

    Attributes:
        features: their names.
        centre: mean of each feature over the labelled pairs ``[feature]``; an unknown value counts
            as the mean.
        scale: standard deviation of each feature, or 1 where that is 0 ``[feature]``.
        mean: posterior mean of the intercept and of each weight ``[1 + feature]``.
        covariance: posterior covariance of the same ``[1 + feature, 1 + feature]``.
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


class Detector(NamedTuple):
    """A detector of retrials.

    Attributes:
        plain: the regression without embeddings.
        embedded: the regression with embeddings; None where it was not trained.
        errors: how often ``plain`` errs; None where this was not measured.
        trained_on: what the labels are and where they come from.
    """

    plain: Logistic
    embedded: Logistic | None = None
    errors: Errors | None = None
    trained_on: str = ""

    def probability(self, values: Real[np.ndarray, "pair feature"]) -> Float[np.ndarray, " pair"]:
        """The probability of a retrial for each pair, from its features; see :func:`features`.

        Raises:
            InputError: for other features than the detector was trained on.
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

    from cqbayes.choice.data import choice_data
    from cqbayes.inference.infer import infer
    from cqbayes.preference import model_factory

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
        raise InputError(
            f"retrial: expected labels that a regression can be fitted to, got: {info}"
        )
    draws = _flat(posterior.sites(draw_key, 4_000))
    return Logistic(names, centre, scale, draws.mean(axis=0), np.cov(draws.T), rate)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column: 0 and 1 where a column has no information."""
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
    """A detector that is trained on your own labels.

    With the feature ``meaning``, one regression uses embeddings and another one does not.

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
    ``logit P`` moves by ``logit(rate) - logit(prevalence)``. The error rates at the threshold are
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

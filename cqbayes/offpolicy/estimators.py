"""Off-policy evaluation: what another policy would have got, from a log with propensities.

A row is one action of the logging policy ``mu``. In a situation ``x`` (all queries that waited),
``mu`` served one query with one assortment, ``a``, and saw the reward ``r``. The quantity to
estimate is the mean reward of a target policy ``pi`` in the same situations. With ``w = pi(a | x) /
mu(a | x)``::

    replay   sum m r / sum m                       m: whether pi would have done the same
    IPS      mean w r
    SNIPS    sum w r / sum w
    DR       mean [ sum_a pi(a | x) q(x, a) + w (r - q(x, a)) ]        q: a fitted model

Replay needs a log whose propensities are all equal. IPS and DR are unbiased with true propensities;
DR is also consistent with a true model. Standard errors are those of the influence function, summed
within queries where a query has several rows. The ``status`` of an estimate says whether it can be
trusted.

In a queue a row's situation is the backlog that the logging policy left. The target would have left
another backlog and met other situations, which none of these estimates knows.
:func:`simulate_policies` does, with truths drawn from a posterior.

Sources: Li, Chu, Langford and Wang (2011) for replay; Dudik, Erhan, Langford and Li (2014), Doubly
robust policy evaluation and optimization, Statistical Science 29; Swaminathan and Joachims (2015)
for SNIPS; Saito et al. (2021), Open Bandit Dataset and Pipeline. Clusters, checks and the queue are
ours.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cqbayes.choice.data import ChoiceData, Situation
from cqbayes.errors import InputError
from cqbayes.offpolicy.counterfactual import posterior_population, simulate_policies
from cqbayes.offpolicy.propensities import (
    ObservedRound,
    Propensities,
    thompson_propensities,
    with_observations,
)
from cqbayes.offpolicy.support import IN_A_QUEUE, Evaluation, Support
from cqbayes.posterior.posteriors import Posterior
from cqbayes.predict.predictions import shares

__all__ = [
    "IN_A_QUEUE",
    "Evaluation",
    "LoggedActions",
    "ObservedRound",
    "Propensities",
    "Support",
    "doubly_robust",
    "expected_reward",
    "ips",
    "logged_actions",
    "posterior_population",
    "replay",
    "simulate_policies",
    "snips",
    "standard_error",
    "thompson_propensities",
    "unsupported_mass",
    "with_observations",
]

LEAST_EFFECTIVE = 100  # rows of equal weight that the weights must be worth
MOST_SHARE = 0.1  # largest share of all weight that one row may have
MOST_OFF = 4  # standard errors by which the mean weight may differ from 1


class LoggedActions(NamedTuple):
    """The columns that all estimators use; :func:`logged_actions` checks and makes them.

    Attributes:
        reward: what the action got.
        propensity: ``mu(a | x)`` of the logged action, query and assortment jointly.
        target: ``pi(a | x)`` of the same action.
        unsupported: ``sum_a pi(a | x) [mu(a | x) = 0]``, as far as it is known.
        weight: how much a row counts.
        query: number of the served query, from 0; standard errors first sum the rows of a query.
        queue: whether a queue was involved.
        by_context: whether queries were identified by their contexts.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    unsupported: np.ndarray
    weight: np.ndarray
    query: np.ndarray
    queue: bool
    by_context: bool

    @property
    def ratio(self) -> np.ndarray:
        """``pi / mu``; 0 where the log gives its own action the propensity 0."""
        possible = self.propensity > 0
        return np.where(possible, self.target / np.where(possible, self.propensity, 1), 0.0)


def logged_actions(
    data: ChoiceData,
    propensity: Any,
    target: Any,
    *,
    values: Any = None,
    query: Any = None,
    queue: bool | None = None,
    unsupported: Any = None,
) -> LoggedActions:
    """The columns that the estimators need, checked.

    Args:
        data: the log. The reward of a row is 1 where an answer was taken. Rows of weight 0 are
            left out, whatever stands in their other columns.
        propensity: ``[obs]``, the logging policy's probability of the logged action.
        target: ``[obs]``, the target's probability of it: 0 or 1 for a deterministic target.
        values: worth of each LLM's answer ``[llm]``: the reward where it was taken.
        query: ``[obs]``, which query was served. Where absent and a queue was involved, rows of the
            same context count as one query.
        queue: whether a queue was involved; where absent, whether ``data.attempt`` or ``query``
            says that a query was served twice.
        unsupported: ``[obs]``, the target's probability of all actions that the logging policy
            never takes.

    Raises:
        InputError: for columns of other lengths, numbers that are no probabilities, or silence,
            whose reward is not known.

    Example:
        >>> import cqbayes
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[1, 0], [0, 1]], [1, 0])
        >>> log = logged_actions(data, [0.5, 0.5], [1.0, 0.0])
        >>> ips(log).estimate, snips(log).estimate, replay(log).estimate
        (1.0, 1.0, 1.0)
    """
    weight = np.asarray(data.weight, np.float64)
    live = weight > 0
    if not live.any():
        raise InputError("off-policy: expected at least one row of positive weight, got none")
    choice = np.where(live, np.asarray(data.choice), 0)
    if (choice < 0).any():
        raise InputError(
            "off-policy: expected an observed outcome in every row, got rows of silence (-1); "
            "give these weight 0, or predict from a model of abandonment"
        )
    columns = {
        name: _probabilities(name, column, live)
        for name, column in (
            ("propensity", propensity),
            ("target", target),
            ("unsupported", np.zeros(live.shape) if unsupported is None else unsupported),
        )
    }
    worth = np.ones(data.num_llms) if values is None else np.asarray(values, np.float64)
    if worth.shape != (data.num_llms,) or not np.isfinite(worth).all():
        raise InputError(f"values: expected {data.num_llms} numbers, got shape {worth.shape}")
    again = data.attempt is not None and (np.asarray(data.attempt)[live] > 1).any()
    names = None if query is None else np.asarray(query)
    if names is not None and names.shape != live.shape:
        raise InputError(f"query: expected {len(live)} numbers, got shape {names.shape}")
    if queue is None:
        queue = bool(again) or (names is not None and _repeats(names[live]))
    by_context = queue and names is None
    if by_context:
        names = np.asarray(data.context)
    return LoggedActions(
        reward=np.where(choice > 0, worth[np.maximum(choice, 1) - 1], 0.0),
        weight=np.where(live, weight, 0.0),
        query=np.arange(len(live)) if names is None else _codes(names, live),
        queue=queue,
        by_context=by_context,
        **columns,
    )


def _repeats(names: np.ndarray) -> bool:
    return len(np.unique(names)) < len(names)


def _codes(names: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Numbers from 0, the same for equal rows, where ``live``; 0 elsewhere."""
    codes = np.zeros(len(live), int)
    codes[live] = np.unique(names[live], axis=0, return_inverse=True)[1].reshape(-1)
    return codes


def _probabilities(name: str, values: Any, live: np.ndarray) -> np.ndarray:
    column = np.asarray(values, np.float64)
    if column.shape != live.shape:
        raise InputError(f"{name}: expected {len(live)} probabilities, got shape {column.shape}")
    column = np.where(live, column, 0.0)
    wrong = ~((column >= 0) & (column <= 1 + 1e-6))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{name}: expected probabilities, got {column[row]:.3g} in row {row}")
    return column


def replay(log: LoggedActions) -> Evaluation:
    """Replay: mean reward of the rows in which the target would have taken the same action.

    A target that acts at random weights each row by its probability of the action. Replay is fair
    only where all propensities are equal; elsewhere ``status`` is ``UNEQUAL_LOGGING``.
    """
    matched = log.weight * log.target
    total = matched.sum()
    if total == 0:
        return _judged(log, np.nan, np.zeros_like(matched), log.target)
    estimate = float(matched @ log.reward / total)
    influence = log.target * (log.reward - estimate) * (log.weight.sum() / total)
    live = log.propensity[log.weight > 0]
    unequal = np.ptp(live) > 1e-5 * live.max()
    found = _judged(log, estimate, influence, log.target, mean_is_one=False)
    if unequal and found.status < Support.UNEQUAL_LOGGING:
        return _with_status(log, found, Support.UNEQUAL_LOGGING)
    return found


def ips(log: LoggedActions) -> Evaluation:
    """Inverse propensity scoring: ``mean w r``. Unbiased, but imprecise with large weights."""
    each = log.ratio * log.reward
    estimate = _mean(log, each) if (log.weight * log.ratio).any() else np.nan
    return _judged(log, estimate, each - estimate, log.ratio)


def snips(log: LoggedActions) -> Evaluation:
    """Self-normalised IPS: ``sum w r / sum w``, always within the range of the rewards.

    A constant factor of all propensities does not change it. Its bias is of order ``1 / n``.
    """
    normaliser = _mean(log, log.ratio)
    if normaliser == 0:
        return _judged(log, np.nan, np.zeros_like(log.ratio), log.ratio)
    estimate = _mean(log, log.ratio * log.reward) / normaliser
    return _judged(log, estimate, log.ratio * (log.reward - estimate) / normaliser, log.ratio)


def doubly_robust(log: LoggedActions, expected_logged: Any, expected_target: Any) -> Evaluation:
    """The doubly robust estimate: ``mean [ q(x, pi) + w (r - q(x, a)) ]``.

    It is unbiased with true propensities, for any ``q``, and consistent with a true ``q``, for any
    propensities. A better ``q`` gives a smaller standard error. Fit ``q`` on other rows than these;
    otherwise the standard error is a little too small.

    Args:
        log: of :func:`logged_actions`.
        expected_logged: ``q(x, a)`` of the logged action ``[obs]``, see :func:`expected_reward`.
        expected_target: ``sum_a pi(a | x) q(x, a)``, or ``q`` of one action drawn from the target.

    Raises:
        InputError: for columns that do not fit or are not finite.
    """
    live = log.weight > 0
    expected = {}
    for name, column in (("logged", expected_logged), ("target", expected_target)):
        values = np.asarray(column, np.float64)
        if values.shape != live.shape or not np.isfinite(values[live]).all():
            raise InputError(
                f"expected_{name}: expected {len(live)} finite numbers, got shape {values.shape}"
            )
        expected[name] = np.where(live, values, 0.0)
    each = expected["target"] + log.ratio * (log.reward - expected["logged"])
    estimate = _mean(log, each)
    return _judged(log, estimate, each - estimate, log.ratio)


def _mean(log: LoggedActions, each: np.ndarray) -> float:
    return float(log.weight @ each / log.weight.sum())


def standard_error(log: LoggedActions, influence: np.ndarray) -> float:
    """Standard error of a mean, clustered by query: a sandwich of each row's ``influence``.

    ``sqrt(G / (G - 1) sum_g (sum_{i in g} v_i psi_i)^2) / sum_i v_i`` with ``v`` the rows' weights
    and ``G`` queries; infinite for one query.
    """
    live = log.weight > 0
    sums = np.bincount(log.query[live], (log.weight * influence)[live])
    groups = np.unique(log.query[live]).size
    if groups < 2:
        return np.inf
    return float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / log.weight.sum())


def _judged(
    log: LoggedActions,
    estimate: float,
    influence: np.ndarray,
    ratio: np.ndarray,
    mean_is_one: bool = True,
) -> Evaluation:
    carried = log.weight * ratio
    total = carried.sum()
    effective = float(total**2 / np.sum(carried**2)) if total > 0 else 0.0
    status = Support.OK
    if effective < LEAST_EFFECTIVE or carried.max() > MOST_SHARE * total:
        status = Support.LOW_OVERLAP
    off = _mean(log, ratio) - 1
    if mean_is_one and abs(off) > MOST_OFF * standard_error(log, ratio - 1 - off) + 1e-5:
        status = Support.WEIGHTS_OFF
    if total == 0:
        status = Support.NOTHING_SHARED
    if _unsupported(log).any():
        status = Support.NO_SUPPORT
    error = standard_error(log, influence) if np.isfinite(estimate) else np.nan
    found = Evaluation(estimate, error, effective, float(ratio.max()), status, "")
    return _with_status(log, found, status)


def _with_status(log: LoggedActions, found: Evaluation, status: Support) -> Evaluation:
    said = [status.meaning]
    missing = int(_unsupported(log).sum())
    if missing:
        said[0] += f", in {missing} of {int((log.weight > 0).sum())} rows"
    if log.queue:
        how = ", with rows of one context counted as one query" if log.by_context else ""
        said += [f"standard errors are by query, not by row{how}", IN_A_QUEUE]
    return found._replace(status=status, note="; ".join(said))


def _unsupported(log: LoggedActions) -> np.ndarray:
    """Rows in which the target takes actions that the log cannot contain."""
    live = log.weight > 0
    return live & ((log.unsupported > 1e-9) | ((log.propensity == 0) & (log.target > 0)))


def unsupported_mass(target: Any, propensity: Any) -> Float[np.ndarray, " obs"]:
    """``sum_a pi(a | x) [mu(a | x) = 0]``, from probabilities of all actions ``[obs, action]``."""
    target, propensity = np.asarray(target, np.float64), np.asarray(propensity, np.float64)
    if target.shape != propensity.shape:
        raise InputError(
            f"unsupported_mass: expected two arrays of one shape, got {target.shape} and "
            f"{propensity.shape}"
        )
    return np.sum(np.where(propensity > 0, 0.0, target).reshape(len(target), -1), axis=1)


def expected_reward(
    key: PRNGKeyArray,
    posterior: Posterior,
    at: Situation,
    offered: Any,
    *,
    values: Any = None,
    num_draws: int = 1_000,
) -> Float[np.ndarray, " query"]:
    """Expected reward of assortments by a model, over its draws, for :func:`doubly_robust`.

    It is the reward that a log **shows**, as the logged rewards are. With a model of inferred
    retrials, what a log shows differs from what users do.

    Args:
        key, posterior, at, num_draws: as for :func:`cqbayes.predict.predictions.shares`.
        offered: the assortments ``[query, llm]``.
        values: worth of each LLM's answer ``[llm]``; 1 each where absent.
    """
    found = shares(key, posterior, at, offered, seen=True, num_draws=num_draws)
    num_llms = posterior.sizes.num_llms
    worth = np.ones(num_llms) if values is None else np.asarray(values, np.float64)
    return found["mean"].values[:, 1 : 1 + num_llms] @ worth

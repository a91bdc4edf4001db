"""How much contexts say of the LLMs: held-out prediction and ranking, by the best linear parameter.

The best linear parameter is fitted to the training split with full information
(:mod:`cqbayes.environments.best_linear`): no learner with linear utilities could know more. It is
then judged on the held-out split. Its penalty is chosen for each table by folds of the training
split; with one penalty for all, wide contexts would be judged by how much they overfit. ::

    log_loss   mean of -(s log p + (1 - s) log(1 - p)) over queries and LLMs, in nats
    auc        area under the curve of p for success, mean over LLMs that both fail and succeed
    routed     mean score of the LLM with the largest p, query by query
    tau        Kendall's tau-b between the LLMs by p and by s, over queries that tell them apart

For ``auc``, a score of at least 1/2 counts as a success. The other numbers use scores as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.environments.best_linear import best_linear

# A score of 0 or 1 is one answer, not a certainty.
FLOOR = 1e-3
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of best_linear
FOLDS = 3


class Quality(NamedTuple):
    """The four numbers above, and their standard errors over held-out queries where they have one.

    ``single`` is the held-out score of the LLM that is best on the training queries, ``best`` that
    of the best LLM for each query; ``routed`` lies between the two. ``losses`` are the log-losses
    of the held-out queries ``[query]``, to compare two kinds of contexts query by query.
    """

    log_loss: float
    log_loss_error: float
    auc: float
    routed: float
    routed_error: float
    tau: float
    single: float
    best: float
    losses: Float[np.ndarray, " query"]


def quality(table: ScoreTable) -> Quality:
    """The quality of a table's contexts, on its held-out queries.

    Raises:
        InputError: for a table without one of the splits.
    """
    train, test = table.part("train"), table.part("test")
    predicted = predict(train, test.context)
    loss = _losses(predicted, test.score)
    rows = np.arange(len(test.score))
    routed = test.score[rows, predicted.argmax(axis=1)]
    return Quality(
        log_loss=float(loss.mean()),
        log_loss_error=_error(loss),
        auc=area_under_curve(predicted, test.score >= 0.5),
        routed=float(routed.mean()),
        routed_error=_error(routed),
        tau=_agreement(predicted, test.score),
        single=float(test.score[:, train.score.mean(axis=0).argmax()].mean()),
        best=float(test.score.max(axis=1).mean()),
        losses=loss,
    )


def predict(
    train: ScoreTable, context: Float[np.ndarray, "query dim"]
) -> Float[np.ndarray, "query llm"]:
    """Probability of success of each LLM, by logistic regressions on the training queries.

    Cross-validation over folds of the training queries chooses their penalty.
    """
    fold = np.arange(len(train.score)) % FOLDS

    def missed(penalty: float) -> float:
        """Mean log-loss of each fold by the others."""
        parts = [(train.rows(fold != k), train.rows(fold == k)) for k in range(FOLDS)]
        found = [_losses(_predict(a, b.context, penalty), b.score).mean() for a, b in parts]
        return float(np.mean(found))

    return _predict(train, context, min(PENALTIES, key=missed))


def _predict(train: ScoreTable, context: np.ndarray, penalty: float) -> np.ndarray:
    chance = np.clip(train.score, FLOOR, 1 - FLOOR)
    given = jnp.asarray(train.context, float), jnp.asarray(chance, float)
    weights = np.asarray(_fit(*given, penalty), np.float64)
    utility = weights[:, 0] + context @ weights[:, 1:].T
    return np.clip(1 / (1 + np.exp(-utility)), FLOOR, 1 - FLOOR)


_fit = jax.jit(best_linear)  # compiled once for all penalties


def _losses(predicted: np.ndarray, score: np.ndarray) -> Float[np.ndarray, " query"]:
    return -(score * np.log(predicted) + (1 - score) * np.log1p(-predicted)).mean(axis=1)


def area_under_curve(predicted: Float[np.ndarray, "query llm"], success: np.ndarray) -> float:
    """Mean over LLMs of the probability that a success has a larger prediction than a failure.

    Example:
        >>> area_under_curve(np.array([[0.1], [0.4], [0.8]]), np.array([[False], [True], [True]]))
        1.0
    """
    areas = []
    for p, good in zip(predicted.T, success.T, strict=True):
        if good.any() and not good.all():
            # Mann and Whitney's statistic is the area, ties counted half.
            statistic = stats.mannwhitneyu(p[good], p[~good])[0]
            areas.append(statistic / (good.sum() * (~good).sum()))
    return float(np.mean(areas)) if areas else float("nan")


def _agreement(predicted: np.ndarray, score: np.ndarray) -> float:
    told_apart = score.min(axis=1) < score.max(axis=1)
    pairs = zip(predicted[told_apart], score[told_apart], strict=True)
    tau = np.array([stats.kendalltau(p, s)[0] for p, s in pairs], float)
    return float(np.nanmean(tau)) if tau.size else float("nan")


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))

"""Independent float64 computations in NumPy that the package is checked against."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy import sparse, stats
from scipy.sparse.linalg import spsolve

from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Population, Query


class Reference(NamedTuple):
    """Posterior moments of the disjoint MNL's weights ``[llm, 1 + dim]``, and their accuracy."""

    mode: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    ess: float


def disjoint_posterior(
    data: ChoiceData, intercept_sd: float, prior_sd: float, num_draws: int = 20_000
) -> Reference:
    """Moments by importance sampling from a Gaussian at the mode, weighted exactly.

    Newton, the Hessian and the likelihood are written out for this one model with NumPy arrays:
    no automatic differentiation and nothing of the package's own likelihood.
    """
    w, lower = _mode(data, intercept_sd, prior_sd)
    z, offered, taken, precision = _plain(data, intercept_sd, prior_sd)
    num_llms, num_features = offered.shape[1], z.shape[1]
    rng = np.random.default_rng(12345)
    noise = rng.standard_normal((num_draws, w.size))
    draws = w + noise @ lower.T
    log_weight = np.empty(num_draws)
    for i, draw in enumerate(draws):
        odds = np.exp(z @ draw.reshape(num_llms, -1).T) * offered
        chosen = np.where(taken.any(axis=1), (odds * taken).sum(axis=1), 1.0)
        log_likelihood = np.sum(np.log(chosen) - np.log1p(odds.sum(axis=1)))
        log_weight[i] = log_likelihood - 0.5 * precision @ draw**2 + 0.5 * noise[i] @ noise[i]
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = weight @ draws
    sd = np.sqrt(weight @ (draws - mean) ** 2)
    shape = (num_llms, num_features)
    return Reference(
        w.reshape(shape), mean.reshape(shape), sd.reshape(shape), 1 / (weight**2).sum()
    )


def disjoint_draws(
    data: ChoiceData, num_draws: int, intercept_sd: float = 1.5, prior_sd: float = 1.0
) -> np.ndarray:
    """Draws ``[draw, llm, 1 + dim]`` of the Gaussian at the mode, to compare richer models with."""
    mode, lower = _mode(data, intercept_sd, prior_sd)
    noise = np.random.default_rng(54321).standard_normal((num_draws, mode.size))
    return (mode + noise @ lower.T).reshape(num_draws, data.num_llms, -1)


def _plain(
    data: ChoiceData, intercept_sd: float, prior_sd: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features with a one first, assortments, what was taken ``[obs, llm]``, prior precisions."""
    x, offered, choice = (np.asarray(a) for a in (data.context, data.offered, data.choice))
    z = np.concatenate([np.ones((len(x), 1)), x.astype(np.float64)], axis=1)
    taken = np.arange(1, offered.shape[1] + 1) == choice[:, None]
    precision = np.tile([intercept_sd**-2.0] + [prior_sd**-2.0] * x.shape[1], offered.shape[1])
    return z, offered, taken, precision


def _mode(data: ChoiceData, intercept_sd: float, prior_sd: float) -> tuple[np.ndarray, np.ndarray]:
    """The posterior mode by Newton, and the Cholesky factor of the inverse curvature there."""
    z, offered, taken, precision = _plain(data, intercept_sd, prior_sd)
    num_llms, num_features = offered.shape[1], z.shape[1]

    def shares(w):
        odds = np.exp(z @ w.reshape(num_llms, -1).T) * offered
        return odds / (1 + odds.sum(axis=1, keepdims=True))

    def hessian(w):
        p = shares(w)
        blocks = np.einsum("nj,nk,na,nb->jakb", p, p, z, z, optimize=True)
        for j in range(num_llms):
            blocks[j, :, j, :] -= np.einsum("n,na,nb->ab", p[:, j], z, z)
        size = num_llms * num_features
        return -blocks.reshape(size, size) + np.diag(precision)

    w, gradient = np.zeros(num_llms * num_features), np.ones(1)
    for _ in range(50):
        gradient = ((taken - shares(w)).T @ z).ravel() - precision * w
        w = w + np.linalg.solve(hessian(w), gradient)
        if np.abs(gradient).max() < 1e-9:
            break
    assert np.abs(gradient).max() < 1e-8
    return w, np.linalg.cholesky(np.linalg.inv(hessian(w)))


def plain_online_mean(data: ChoiceData, intercept_sd: float, prior_sd: float) -> np.ndarray:
    """Means of a plain one-step update: each row linearised where the last one left off."""
    x, offered, choice = (np.asarray(a) for a in (data.context, data.offered, data.choice))
    z = np.concatenate([np.ones((len(x), 1)), x.astype(np.float64)], axis=1)
    num_llms = offered.shape[1]
    mean = np.zeros((num_llms, z.shape[1]))
    covariance = np.tile(np.diag([intercept_sd**2] + [prior_sd**2] * x.shape[1]), (num_llms, 1, 1))
    for row, shown, taken in zip(z, offered, choice, strict=True):
        odds = np.exp(mean @ row) * shown
        share = odds / (1 + odds.sum())
        for j in np.flatnonzero(shown):
            information = share[j] * (1 - share[j])
            along = covariance[j] @ row
            covariance[j] -= information * np.outer(along, along) / (1 + information * row @ along)
            mean[j] += covariance[j] @ row * ((taken - 1 == j) - share[j])
    return mean


def geo_geo_1(arrival: float, service: float, size: int) -> np.ndarray:
    """Stationary distribution of the discrete-time Geo/Geo/1 queue at the start of rounds.

    Late arrivals: a query that arrives in a round can be served from the next one on. Up with
    probability ``a (1 - s)`` (``a`` from empty), down with ``s (1 - a)``: a birth-death chain.
    """
    law = np.empty(size)
    law[0] = 1
    law[1] = arrival / (service * (1 - arrival))
    ratio = arrival * (1 - service) / (service * (1 - arrival))
    law[2:] = law[1] * ratio ** np.arange(1, size - 1)
    return law * (service - arrival) / service


def binomial(count: int, chance: float) -> list[tuple[int, float]]:
    """How many of ``count`` it happens to, with probabilities."""
    return [(k, float(stats.binom.pmf(k, count, chance))) for k in range(count + 1)]


def stationary_law(
    start: Hashable,
    after: Callable[[Any], Iterable[tuple[float, Any]]],
    clip: Callable[[Any], Any],
) -> dict[Any, float]:
    """The stationary law of a Markov chain: all states reached from ``start`` by ``after``.

    ``clip`` brings states that are too rare to matter back to the nearest that is kept.
    """
    places, queue, entries = {start: 0}, [start], defaultdict(float)
    for state in queue:
        for chance, target in after(state):
            target = clip(target)
            if target not in places:
                places[target] = len(places)
                queue.append(target)
            entries[places[target], places[state]] += chance
    size = len(places)
    rows, columns = zip(*entries, strict=True)
    balance = sparse.lil_matrix(sparse.csc_matrix((list(entries.values()), (rows, columns))))
    balance -= sparse.identity(size)
    balance = sparse.lil_matrix(balance)
    balance[0, :] = 1
    law = spsolve(sparse.csc_matrix(balance), np.eye(size)[0])
    assert abs(law.sum() - 1) < 1e-9
    assert law.min() > -1e-12
    return dict(zip(places, law.tolist(), strict=True))


def alike(probability: float) -> Population:
    """All queries alike: one LLM that satisfies with a given probability."""
    return Population(
        draw=Partial(_constant_draw),
        utility=Partial(_constant_utility, jnp.log(probability) - jnp.log1p(-probability)),
    )


def _constant_draw(key):
    return Query(jnp.zeros(1), jnp.array(0, jnp.int32))


def _constant_utility(utility, query):
    return utility[None]

"""Simulation, scoring and densities in NumPy float64, apart from the package: tests of models.

Choices are drawn here and not by the models' own distributions, and densities are written out with
SciPy, so that an error in a model is not repeated in what it is held against.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from reference import disjoint_draws
from scipy import stats
from scipy.special import expit, logsumexp

from cqbayes.choice.data import SILENCE, ChoiceData, choice_data
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, layout, sizes_of

Sites = dict[str, np.ndarray]


# Simulation


def services(
    rng: np.random.Generator, num_obs: int, num_llms: int, dim: int, slate_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts of unit norm, and random assortments."""
    context = rng.normal(size=(num_obs, dim))
    context /= np.linalg.norm(context, axis=1, keepdims=True)
    order = np.argsort(rng.random((num_obs, num_llms)), axis=1)
    return context, order < slate_size


def linear_utilities(sites: Sites, context: np.ndarray) -> np.ndarray:
    """``b_j + x . theta_j``, ``[..., obs, llm]`` for sites with any leading dimensions."""
    slope = np.einsum("nk,...jk->...nj", context, sites["theta"])
    return sites["intercept"][..., None, :] + slope


def log_shares(utility: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """Log-probabilities of a retry and of every LLM, ``[..., 1 + llm]``."""
    with np.errstate(divide="ignore"):
        inside = utility + np.log(offered)
    scores = np.concatenate([np.zeros_like(inside[..., :1]), inside], axis=-1)
    return scores - logsumexp(scores, axis=-1, keepdims=True)


def draw(rng: np.random.Generator, log_probs: np.ndarray) -> np.ndarray:
    """One outcome per row, ``[obs]``, as the index of its column."""
    ends = np.cumsum(np.exp(log_probs), axis=-1)
    ends[..., -1] = 1
    return (rng.random((*log_probs.shape[:-1], 1)) > ends).sum(axis=-1)


# Densities


def normal(x: np.ndarray, mean: Any, sd: Any) -> float:
    """Log density of independent normals, summed."""
    return float(np.sum(stats.norm.logpdf(x, mean, sd)))


def positive(law: Any, free: np.ndarray) -> float:
    """That of positive values with the given law, of their logarithms: with the Jacobian."""
    return float(np.sum(law.logpdf(np.exp(free)) + free))


def probability(law: Any, free: np.ndarray) -> float:
    """That of probabilities with the given law, of their log-odds: with the Jacobian."""
    value = expit(free)
    return float(np.sum(law.logpdf(value) + np.log(value) + np.log1p(-value)))


def log_likelihood(log_probs: np.ndarray, choice: np.ndarray) -> float:
    """Of choices that are columns, silence the last."""
    return float(np.sum(np.take_along_axis(log_probs, choice[:, None], axis=1)))


def example(
    num_obs: int = 40, num_llms: int = 4, dim: int = 3, silent: int = 0, **columns: Any
) -> ChoiceData:
    """A few choices, the first of them silent, for densities that need no truth."""
    rng = np.random.default_rng(3)
    context, offered = services(rng, num_obs, num_llms, dim, 2)
    choice = draw(rng, log_shares(rng.normal(size=(num_obs, num_llms)), offered))
    choice[:silent] = SILENCE
    return choice_data(context, offered, choice, **columns)


def arrays(data: ChoiceData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contexts, assortments and choices as NumPy arrays."""
    return np.asarray(data.context), np.asarray(data.offered), np.asarray(data.choice)


def assert_density(
    model: PreferenceModel, by_hand: Callable[[Sites, ChoiceData], float], **example_settings: Any
) -> None:
    """The log posterior is the one by hand, of unconstrained sites, by every path that there is."""
    with jax.enable_x64(True):
        data = example(**example_settings)
        form = layout(model, sizes_of(data))
        vectors = jnp.asarray(np.random.default_rng(4).normal(size=(3, form.size)))
        every = jax.tree.map(np.asarray, jax.jit(jax.vmap(form.unravel))(vectors))
        expected = [by_hand({n: x[i] for n, x in every.items()}, data) for i in range(3)]
        assert np.isfinite(expected).all()
        for path in {model, model._replace(linear=None)}:
            found = jax.jit(jax.vmap(log_posterior(path, data)))(vectors)
            np.testing.assert_allclose(found, expected, rtol=1e-9)


def disjoint_prior(sites: Sites) -> float:
    """That of the disjoint MNL with its default settings, the base of models on top."""
    return normal(sites["intercept"], 0, 1.5) + normal(sites["theta"], 0, 1)


# Scores


def draws(posterior: Posterior) -> Sites:
    """Draws of all reported sites, ``[draw, ...]``, chains one after another."""
    sites = posterior.sites(jax.random.key(0), 1_000)
    return {name: np.asarray(x, float).reshape(-1, *x.shape[2:]) for name, x in sites.items()}


def thinned(found: Sites, most: int = 250) -> Sites:
    """About as many of the draws, evenly: enough for predictions."""
    return {name: x[:: max(1, len(x) // most)] for name, x in found.items()}


def deviations(found: Sites, truth: dict[str, Any]) -> np.ndarray:
    """``(mean - truth) / sd`` of all parameters of the sites in ``truth``, in one vector."""
    each = [
        (found[name].mean(axis=0) - value) / found[name].std(axis=0)
        for name, value in truth.items()
    ]
    return np.concatenate([np.ravel(z) for z in each])


def assert_recovered(z: np.ndarray) -> None:
    """The truth lies where a calibrated posterior has it, in one of a thousand tests not.

    Mean squares of ``n`` independent deviations are chi-squared / n; those of one posterior are
    correlated, and count as a third as many.
    """
    free = max(1, z.size / 3)
    lowest, highest = np.sqrt(stats.chi2.ppf([5e-4, 1 - 5e-4], free) / free)
    rms = np.sqrt(np.mean(z**2))
    print(
        f"{z.size} deviations: rms {rms:.2f} in [{lowest:.2f}, {highest:.2f}], "
        f"largest {np.abs(z).max():.2f}"
    )
    assert lowest < rms < highest
    assert np.abs(z).max() < 4


def disjoint_log_shares(
    data: ChoiceData, context: np.ndarray, offered: np.ndarray, **prior: float
) -> np.ndarray:
    """What the disjoint MNL, fitted to data, says of fresh rows ``[draw, obs, outcome]``."""
    weights = disjoint_draws(data, num_draws=250, **prior)
    sites = {"intercept": weights[..., 0], "theta": weights[..., 1:]}
    return log_shares(linear_utilities(sites, context), offered)


def named_dims(posterior: Posterior) -> dict[str, tuple[str, ...]]:
    """Names of the dimensions of all sites, as ArviZ has them."""
    sites = posterior.to_arviz()["posterior"].data_vars
    return {name: tuple(map(str, site.dims[2:])) for name, site in sites.items()}


def predicted(log_probs: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Log predictive probability of fresh choices under draws of ``[draw, obs, outcome]``."""
    each = np.take_along_axis(log_probs, choice[None, :, None], axis=2)[..., 0]
    return logsumexp(each, axis=0) - np.log(len(each))


def assert_better(ours: np.ndarray, theirs: np.ndarray, by: float = 4.0) -> None:
    """Fresh rows are predicted better than by another model, in standard errors of the gap."""
    gap = ours - theirs
    error = gap.std() / np.sqrt(gap.size)
    print(f"elpd per row: {gap.mean():.4f} better, {gap.mean() / error:.1f} standard errors")
    assert gap.mean() > by * error

"""Simulation-based calibration: do an engine's posteriors mean what they say?

Parameters are drawn from the prior, a log is simulated with them, and the engine is fitted to it.
Given the log, the truth and exact posterior draws have the same distribution. So the rank of the
truth among ``L`` independent draws is uniform on ``{0, ..., L}``::

    theta ~ p(theta),   y ~ p(y | theta),   theta_1, ..., theta_L ~ q(theta | y)
    rank(f) = #{l : f(theta_l, y) < f(theta, y)},   pit(f) = (rank(f) + U) / (L + 1)

with ``U ~ Uniform(0, 1)``: if ``q`` is the posterior, ``pit(f)`` is exactly ``Uniform(0, 1)``,
for every scalar ``f``. The tested ``f`` are all reported parameters and the log-likelihood.
Parameters alone do not suffice: the prior itself, or a posterior that leaves out some of the data,
passes for each of them.

Sources: Cook, Gelman and Rubin (2006); Talts et al. (2018), arXiv 1804.06788; Modrak et al. (2023),
arXiv 2211.02383, for quantities that depend on the data.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.infer import NUTS, Predictive

from cqbayes._tools.progress import progress_bar
from cqbayes.choice.data import ChoiceData
from cqbayes.diagnostics.collection import Collection
from cqbayes.errors import InputError
from cqbayes.posterior.info import InferenceInfo, Status
from cqbayes.posterior.log_densities import log_likelihoods
from cqbayes.posterior.posteriors import Draws, Posterior
from cqbayes.preference import PreferenceModel, Sites, check_data, layout, outcomes, sizes_of

LOG_LIKELIHOOD = "log_likelihood"
NUM_DRAWS = 99  # the truth's rank is then one of 100
ESS_PER_DRAW = 4  # see _thinned
TINY = float(np.finfo(np.float32).tiny)  # uniform numbers that are never 0
AT_ONCE = 500  # draws whose likelihoods are in memory together

Fit = Callable[[PRNGKeyArray, PreferenceModel, ChoiceData], tuple[Posterior, InferenceInfo]]


def calibrate(
    key: PRNGKeyArray,
    model: PreferenceModel,
    collection: Collection,
    fit: Fit,
    *,
    num_replicates: int = 100,
    num_draws: int = NUM_DRAWS,
    progress: bool = False,
    name: str = "replicates",
) -> xr.Dataset:
    """The calibration of a way to fit a model: ranks of truths among posterior draws.

    Args:
        key: decides all randomness.
        model: its prior and outcome make the truths and the logs.
        collection: how logs are made, see :mod:`cqbayes.diagnostics.collection`.
        fit: the function that is tested, such as ``partial(cqbayes.infer, engine="laplace")``.
        num_replicates: simulated logs, and fits. All have the same shapes: one compilation.
        num_draws: maximum number of posterior draws that a truth is ranked among.
        progress: whether to show a progress bar.
        name: label of the progress bar.

    Returns:
        As :func:`ranks`. :func:`uniformity` tests the result, :func:`figure` draws it.

    Raises:
        InputError: for a model that the collection or the engine cannot take.

    Example:
        >>> import cqbayes, jax
        >>> from functools import partial
        >>> from cqbayes.diagnostics.collection import (fixed_collection, random_design)
        >>> from cqbayes.preference import Sizes
        >>> logs = fixed_collection(random_design(jax.random.key(0), 50, Sizes(num_llms=2, dim=1)))
        >>> found = calibrate(
        ...     jax.random.key(1), cqbayes.load_model("disjoint_mnl"), logs,
        ...     partial(cqbayes.infer, engine="online"), num_replicates=3)
        >>> found["pit"].shape  # two intercepts, two slopes, the log-likelihood
        (3, 5)
    """
    collection.check(model)
    truth_key, collect_key, rank_key = jax.random.split(key, 3)
    truths = Predictive(model.prior, num_samples=num_replicates)(truth_key, collection.sizes)
    logs = collection.collect(collect_key, model, truths)
    return ranks(
        rank_key, model, truths, logs, fit, num_draws=num_draws, progress=progress, name=name
    )


def ranks(
    key: PRNGKeyArray,
    model: PreferenceModel,
    truths: Sites,
    logs: ChoiceData,
    fit: Fit,
    *,
    num_draws: int = NUM_DRAWS,
    progress: bool = False,
    name: str = "replicates",
) -> xr.Dataset:
    """Fits every log and ranks its truth among the posterior's draws.

    Args:
        key, model, fit, num_draws, progress, name: as for :func:`calibrate`.
        truths: the model's sites ``[replicate, ...]``.
        logs: ``[replicate, obs, ...]``.

    Returns:
        ``rank`` and ``pit`` ``[replicate, quantity]``, and of every replicate the ``status`` of
        its fit, how many draws were ``ranked``, and how many independent ones there were, ``ess``.
        No replicate is left out. Where draws of a fit are not finite, its ``pit`` is NaN.
    """
    names = _names(model, truths, logs)
    keys = jax.random.split(key, logs.context.shape[0])
    found = []
    with progress_bar(name, total=len(keys), show=progress) as advance:
        for r, one in enumerate(keys):
            truth, data = jax.tree.map(lambda x, r=r: x[r], (truths, logs))
            found.append(_replicate(one, model, truth, data, fit, num_draws))
            advance(1)
    columns = _Replicate(*(np.stack(column) for column in zip(*found, strict=True)))
    over = ("replicate", "quantity")
    dims = _Replicate(rank=over, pit=over, status=over[:1], ranked=over[:1], ess=over[:1])
    return xr.Dataset(
        {field: (dims._asdict()[field], x) for field, x in columns._asdict().items()},
        coords={"quantity": names, "replicate": np.arange(len(keys))},
    )


class _Replicate(NamedTuple):
    rank: Any
    pit: Any
    status: Any
    ranked: Any
    ess: Any


def _replicate(
    key: PRNGKeyArray,
    model: PreferenceModel,
    truth: Sites,
    data: ChoiceData,
    fit: Fit,
    num_draws: int,
) -> _Replicate:
    fit_key, draw_key, tie_key = jax.random.split(key, 3)
    posterior, info = fit(fit_key, model, data)
    drawn = np.asarray(_drawn(draw_key, posterior, model, data, num_draws))
    true = np.asarray(_true(model, truth, data))
    draws, ess = _thinned(posterior, drawn, num_draws)
    rank, pit = rank_among(tie_key, draws, true)
    finite = bool(np.isfinite(draws).all())
    # Draws that are not finite overrule an engine that reports success.
    status = Status.NOT_FINITE if info.ok and not finite else info.verdict
    return _Replicate(rank, pit if finite else np.full_like(pit, np.nan), status, len(draws), ess)


@eqx.filter_jit
def _drawn(
    key: PRNGKeyArray, posterior: Posterior, model: PreferenceModel, data: ChoiceData, num: int
) -> Float[Array, "chain draw quantity"]:
    return _quantities(model, posterior.sites(key, num), data)


@eqx.filter_jit
def _true(model: PreferenceModel, truth: Sites, data: ChoiceData) -> Float[Array, " quantity"]:
    form = layout(model, sizes_of(data))
    # Several truths can mean the same: take the reported one, as for the draws.
    canonical = form.reported(form.unconstrain(truth))
    return _quantities(model, jax.tree.map(lambda x: x[None, None], canonical), data)[0, 0]


@eqx.filter_jit
def _quantities(
    model: PreferenceModel, sites: Sites, data: ChoiceData
) -> Float[Array, "chain draw quantity"]:
    """All scalars of the reported sites ``[chain, draw, ...]``, then the log-likelihood."""
    form = layout(model, sizes_of(data))
    chains, draws = next(iter(sites.values())).shape[:2]
    flat = {name: x.reshape(chains * draws, *x.shape[2:]) for name, x in sites.items()}

    def log_likelihood(values: Sites) -> Array:
        return jnp.sum(log_likelihoods(model, form.to_params(values), data))

    fitted = jax.lax.map(log_likelihood, flat, batch_size=AT_ONCE)
    columns = [flat[name].reshape(chains * draws, -1) for name in form.dims]
    return jnp.concatenate([*columns, fitted[:, None]], axis=-1).reshape(chains, draws, -1)


def _names(model: PreferenceModel, truths: Sites, logs: ChoiceData) -> list[str]:
    """``site[i, j]`` for every scalar, in the order of :func:`_quantities`."""
    first = jax.tree.map(lambda x: x[0], logs)
    sites = layout(model, sizes_of(first)).dims
    labels = [label for name in sites for label in _labels(name, truths[name].shape[1:])]
    return [*labels, LOG_LIKELIHOOD]


def _labels(name: str, shape: tuple[int, ...]) -> list[str]:
    return [f"{name}[{', '.join(map(str, i))}]" if i else name for i in np.ndindex(shape)]


def _thinned(posterior: Posterior, values: np.ndarray, num_draws: int) -> tuple[np.ndarray, float]:
    """Nearly independent draws ``[draw, quantity]``, and the effective sample size of all draws.

    Ranks among correlated draws pile up at both ends. With ``S`` draws worth ``E`` independent
    ones, every ``S / L``-th is kept, ``L <= E / 4``: the autocorrelation of an AR(1) chain is
    below 0.001 at such a distance. Importance-resampled draws are shuffled and repeat; of ``L``
    such draws, two are the same with probability about ``1 / E``. This raises the part of a rank's
    variance that is due to finite ``L`` by at most a factor ``1 + L / E <= 1.25``, which is
    negligible beside the variance of uniform ranks. ``E`` is the least over all quantities.
    """
    flat = values.reshape(-1, values.shape[-1])
    if not isinstance(posterior, Draws):
        return flat, float(len(flat))
    ess = _effective(posterior, values)
    kept = int(np.clip(ess // ESS_PER_DRAW, 1, num_draws)) if np.isfinite(ess) else 1
    return flat[np.arange(kept) * len(flat) // kept], ess


def _effective(posterior: Draws, values: np.ndarray) -> float:
    from arviz_stats.base import array_stats

    if posterior.effective is not None:
        return float(posterior.effective)
    return float(np.min(array_stats.ess(values, chain_axis=0, draw_axis=1)))


def rank_among(
    key: PRNGKeyArray, draws: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of ``truth [quantity]`` among ``draws [draw, quantity]``, and the PIT values.

    ``pit = (b + U (e + 1)) / (L + 1)`` and ``rank = floor(b + U (e + 1))``, where ``b`` draws are
    below the truth, ``e`` equal to it, and ``U ~ Uniform(0, 1)``: ties are broken at random, and
    the PIT value is uniform within its bin.
    """
    uniform = jax.random.uniform(key, truth.shape, minval=TINY)
    below = np.sum(draws < truth, axis=0)
    equal = np.sum(draws == truth, axis=0)
    place = below + np.asarray(uniform, np.float64) * (equal + 1)
    return np.floor(place).astype(int), place / (len(draws) + 1)


def simuk_sbc(
    key: PRNGKeyArray,
    model: PreferenceModel,
    design: ChoiceData,
    *,
    num_replicates: int = 100,
    num_draws: int = NUM_DRAWS,
    num_warmup: int = 500,
    thinning: int = 10,
) -> Any:
    """Calibration of NumPyro's NUTS by simuk: an independent implementation, for comparison.

    simuk takes only a fixed design and NumPyro's samplers. It compiles once for every replicate and
    gives the ranks of sample sites only.

    Args:
        key, model, num_replicates: as for :func:`calibrate`.
        design: contexts, assortments and optional columns; all rows count once.
        num_draws: draws of one chain that truths are ranked among, each ``thinning``-th of it.
        num_warmup: steps before them.

    Returns:
        A ``simuk.SBC``. ``run_simulations()`` runs it, :func:`of_simuk` reads its ranks.
    """
    from simuk import SBC

    check_data(model, design)

    def joint(design: ChoiceData, choice: Array | None = None) -> None:
        params = model.prior(sizes_of(design))
        with numpyro.plate("obs", design.num_obs):
            numpyro.sample("choice", outcomes(model, params, design), obs=choice)

    return SBC(
        NUTS(joint),
        num_simulations=num_replicates,
        sample_kwargs={
            "num_warmup": num_warmup,
            "num_samples": num_draws * thinning,
            "thinning": thinning,
        },
        seed=int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max)),
        data_dir={"design": design, "choice": design.choice},
    )


def of_simuk(key: PRNGKeyArray, sbc: Any) -> xr.Dataset:
    """``rank`` and ``pit`` as of :func:`ranks`; simuk does not say whether its fits are good."""
    draws = sbc.sample_kwargs["num_samples"] // sbc.sample_kwargs["thinning"]
    simulated = sbc.simulations["prior_sbc"].dataset
    found = {str(name): x.values[0] for name, x in simulated.data_vars.items()}
    names = [label for name, x in found.items() for label in _labels(name, x.shape[1:])]
    rank = np.concatenate([x.reshape(len(x), -1) for x in found.values()], axis=1)
    within = np.asarray(jax.random.uniform(key, rank.shape, minval=TINY), np.float64)
    over = ("replicate", "quantity")
    return xr.Dataset(
        {"rank": (over, rank), "pit": (over, (rank + within) / (draws + 1))},
        coords={"quantity": names, "replicate": np.arange(len(rank))},
    )


class Uniformity(NamedTuple):
    """Tests of uniform PIT values.

    Attributes:
        table: p-values of every quantity: ``any``, ``bias``, ``width``, and ``p_value`` of all
            three.
        p_value: p-value of all quantities together.
        used: replicates.
        left_out: replicates whose fit was not trusted.
    """

    table: pd.DataFrame
    p_value: float
    used: int
    left_out: int


def uniformity(calibration: xr.Dataset, trusted: bool = True) -> Uniformity:
    """Tests whether the PIT values of :func:`calibrate` are uniform.

    Of every quantity, with ``z = Phi^-1(pit)``, which is standard normal under uniformity:

    - ``any``: Kolmogorov and Smirnov's test of ``pit``;
    - ``bias``: ``sum z / sqrt(n)`` is standard normal;
    - ``width``: ``sum z^2`` is chi-squared with ``n`` degrees of freedom (Cook, Gelman and Rubin
      2006), here with both tails: too wide a posterior is wrong as well.

    All tests are exact in distribution for any ``n``. Bonferroni's correction combines them and
    needs no independence: the quantities of a replicate come from the same draws. So a combined
    p-value is never too small; it is too large where quantities depend on each other.

    Args:
        calibration: of :func:`calibrate`.
        trusted: whether to leave out the fits whose own engine reports a failure, as users should.
            Ranks stay uniform: the failure depends on the log and hardly on the truth. Otherwise
            only fits with draws that are not finite are left out.

    Raises:
        InputError: if no fit is left.
    """
    from scipy import stats

    pit = _judged(calibration, trusted)
    z = stats.norm.ppf(pit)
    total = np.sum(z**2, axis=0)
    tails = np.minimum(stats.chi2.cdf(total, len(z)), stats.chi2.sf(total, len(z)))
    tests = {
        "any": np.array([stats.kstest(column, "uniform").pvalue for column in pit.T]),
        "bias": 2 * stats.norm.sf(np.abs(np.sum(z, axis=0)) / np.sqrt(len(z))),
        "width": 2 * tails,
    }
    table = pd.DataFrame(tests, index=pd.Index(calibration["quantity"].values, name="quantity"))
    table["p_value"] = np.minimum(1, len(tests) * np.min(list(tests.values()), axis=0))
    overall = min(1.0, len(table) * np.min(table["p_value"].to_numpy()))
    return Uniformity(table, overall, len(pit), calibration.sizes["replicate"] - len(pit))


def _judged(calibration: xr.Dataset, trusted: bool) -> np.ndarray:
    """PIT values ``[replicate, quantity]`` of the fits that have any, or that are trusted."""
    pit = calibration["pit"].values
    kept = np.isfinite(pit).all(axis=1)
    if trusted:
        kept = kept & (calibration["status"].values == Status.OK)
    if not kept.any():
        raise InputError(
            f"calibration: expected at least one usable fit, got none among {len(pit)}"
        )
    return pit[kept]


def figure(calibration: xr.Dataset, trusted: bool = True, most: int = 12) -> Any:
    """ArviZ's figure of the distribution of PIT values, minus the uniform one.

    It shows the ``most`` quantities that are farthest from uniform. Lines within the band, or
    without marked points where ArviZ draws points, are as uniform ranks would be (Säilynoja et al.
    2022).

    Returns:
        A Matplotlib figure.
    """
    import arviz_plots

    p_values = uniformity(calibration, trusted).table["p_value"].to_numpy()
    pit, names = _judged(calibration, trusted), calibration["quantity"].values
    worst = np.argsort(p_values, kind="stable")[:most]
    group = xr.Dataset({str(names[i]): (("chain", "draw"), pit[None, :, i]) for i in worst})
    size = (12, 2.6 * -(-len(worst) // 4))
    collection = arviz_plots.plot_ecdf_pit(
        xr.DataTree.from_dict({"/prior_sbc": group}),
        backend="matplotlib",
        figure_kwargs={"figsize": size},
    )
    return collection.viz["figure"].item()

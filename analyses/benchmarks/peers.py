"""What others would use for the same model, for posterior.py: each as its own users write it.

The model is the disjoint MNL with retrial. Parameters lie in one vector ``[parameter]``: intercepts
``[llm]``, then slopes ``[llm, dim]``. A peer is imported where it is used, so that one that is
not installed is missed by its own measure only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

INTERCEPT_SD = 1.5
SLOPE_SD = 1.0


class Rows(NamedTuple):
    """Simulated services: contexts ``[obs, dim]``, assortments ``[obs, llm]``, outcomes ``[obs]``.

    Outcome 0 is a retry, ``j + 1`` is LLM ``j``'s answer.
    """

    context: np.ndarray
    offered: np.ndarray
    choice: np.ndarray


class Chains(NamedTuple):
    """How long NUTS runs."""

    warmup: int
    draws: int
    chains: int


# A sampler that is compiled and ready to be timed: draws [chain, draw, parameter] of a seed.
Run = Callable[[int], np.ndarray]


def split(vector: Any, num_llms: int) -> tuple[Any, Any]:
    """Intercepts ``[llm]`` and slopes ``[llm, dim]`` of one vector."""
    return vector[:num_llms], vector[num_llms:].reshape(num_llms, -1)


def log_likelihood(vector: np.ndarray, rows: Rows) -> float:
    """In float64 with NumPy, so that all point estimates are judged by the same arithmetic."""
    intercept, slope = split(np.asarray(vector, np.float64), rows.offered.shape[1])
    utility = np.where(rows.offered, intercept + rows.context.astype(np.float64) @ slope.T, -np.inf)
    utility = np.concatenate([np.zeros((len(utility), 1)), utility], axis=1)
    peak = utility.max(axis=1)
    total = peak + np.log(np.exp(utility - peak[:, None]).sum(axis=1))
    return float((utility[np.arange(len(utility)), rows.choice] - total).sum())


# Log-posteriors written by hand: differentiated as they stand.


def _log_prior(intercept: jax.Array, slope: jax.Array) -> jax.Array:
    return -0.5 * (jnp.sum(intercept**2) / INTERCEPT_SD**2 + jnp.sum(slope**2) / SLOPE_SD**2)


def dense_log_posterior(vector: jax.Array, rows: Rows) -> jax.Array:
    """All LLMs' utilities for every row, masked: ``X @ theta.T`` and a log-sum-exp."""
    intercept, slope = split(vector, rows.offered.shape[1])
    utility = jnp.where(rows.offered, intercept + rows.context @ slope.T, -1e9)
    utility = jnp.concatenate([jnp.zeros_like(utility[:, :1]), utility], axis=1)
    chosen = jnp.take_along_axis(utility, rows.choice[:, None], axis=1)[:, 0]
    likelihood = jnp.sum(chosen - jax.nn.logsumexp(utility, axis=1))
    return likelihood + _log_prior(intercept, slope)


class GatherRows(NamedTuple):
    """The offered LLMs' numbers ``[obs, slate]`` and the place of the outcome among them."""

    context: np.ndarray
    slate: np.ndarray
    place: np.ndarray


def gather_rows(rows: Rows) -> GatherRows:
    """For assortments of equal size: the gather layout needs no mask then."""
    slate = np.nonzero(rows.offered)[1].reshape(len(rows.choice), -1).astype(np.int32)
    place = np.where(rows.choice > 0, np.argmax(slate == rows.choice[:, None] - 1, axis=1) + 1, 0)
    return GatherRows(rows.context, slate, place.astype(np.int32))


def gather_log_posterior(vector: jax.Array, rows: GatherRows) -> jax.Array:
    """Only offered LLMs' utilities: their slopes are gathered for each row."""
    intercept, slope = split(vector, vector.size // (1 + rows.context.shape[1]))
    utility = intercept[rows.slate] + jnp.einsum("okd,od->ok", slope[rows.slate], rows.context)
    utility = jnp.concatenate([jnp.zeros_like(utility[:, :1]), utility], axis=1)
    chosen = jnp.take_along_axis(utility, rows.place[:, None], axis=1)[:, 0]
    likelihood = jnp.sum(chosen - jax.nn.logsumexp(utility, axis=1))
    return likelihood + _log_prior(intercept, slope)


# Samplers.


def _ahead(run: Callable[[jax.Array, Rows], jax.Array], rows: Rows) -> Run:
    """Compiled ahead of time, so that no compilation is left to be timed."""
    rows = jax.tree.map(jnp.asarray, rows)
    compiled = jax.jit(run).lower(jax.random.key(0), rows).compile()
    return lambda seed: np.asarray(compiled(jax.random.key(seed), rows))


def numpyro_nuts(rows: Rows, length: Chains) -> Run:
    """NumPyro's NUTS with the model as one writes it down.

    Chains one after the other: side by side each would wait for the longest tree of all.
    """
    import numpyro
    from numpyro.distributions import Categorical, Normal
    from numpyro.infer import MCMC, NUTS

    def model(rows: Rows) -> None:
        num_llms, dim = rows.offered.shape[1], rows.context.shape[1]
        with numpyro.plate("llm", num_llms):
            intercept = numpyro.sample("intercept", Normal(0, INTERCEPT_SD))
            theta = numpyro.sample("theta", Normal(0, SLOPE_SD).expand([dim]).to_event(1))
        utility = jnp.where(rows.offered, intercept + rows.context @ theta.T, -1e9)
        logits = jnp.concatenate([jnp.zeros_like(utility[:, :1]), utility], axis=1)
        with numpyro.plate("obs", len(rows.context)):
            numpyro.sample("choice", Categorical(logits=logits), obs=rows.choice)

    def chain(key: jax.Array, rows: Rows) -> jax.Array:
        mcmc = MCMC(
            NUTS(model), num_warmup=length.warmup, num_samples=length.draws, progress_bar=False
        )
        mcmc.run(key, rows)
        drawn = mcmc.get_samples()
        slopes = drawn["theta"].reshape(length.draws, -1)
        return jnp.concatenate([drawn["intercept"], slopes], axis=1)

    def run(key: jax.Array, rows: Rows) -> jax.Array:
        keys = jax.random.split(key, length.chains)
        return jax.lax.map(lambda key: chain(key, rows), keys)

    return _ahead(run, rows)


def blackjax_nuts(rows: Rows, length: Chains) -> Run:
    """BlackJAX's NUTS after its window adaptation, chains one after the other."""
    import blackjax
    from blackjax.adaptation.base import get_filter_adapt_info_fn

    size = rows.offered.shape[1] * (1 + rows.context.shape[1])

    def chain(key: jax.Array, rows: Rows) -> jax.Array:
        def density(vector: jax.Array) -> jax.Array:
            return dense_log_posterior(vector, rows)

        begin_key, warmup_key, run_key = jax.random.split(key, 3)
        # Nothing of the adaptation is kept: that would cost time.
        warmup = blackjax.window_adaptation(
            blackjax.nuts, density, adaptation_info_fn=get_filter_adapt_info_fn()
        )
        begin = jax.random.uniform(begin_key, (size,), minval=-1, maxval=1)
        (state, parameters), _ = warmup.run(warmup_key, begin, num_steps=length.warmup)
        kernel = blackjax.nuts(density, **parameters)

        def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, _ = kernel.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(run_key, length.draws))[1]

    def run(key: jax.Array, rows: Rows) -> jax.Array:
        keys = jax.random.split(key, length.chains)
        return jax.lax.map(lambda key: chain(key, rows), keys)

    return _ahead(run, rows)


def nutpie_nuts(rows: Rows, length: Chains) -> Run:
    """nutpie with its default, diagonal mass matrix, on a log-density compiled by JAX."""
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    size = rows.offered.shape[1] * (1 + rows.context.shape[1])
    rows = jax.tree.map(jnp.asarray, rows)
    begin = jnp.zeros(size)
    compiled = jax.jit(jax.value_and_grad(dense_log_posterior)).lower(begin, rows).compile()

    def logp(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = compiled(vector.astype(np.float32), rows)
        return float(value), np.asarray(slope, np.float64)

    model = from_pyfunc(
        ndim=size,
        make_logp_fn=lambda: logp,
        make_expand_fn=lambda *_: lambda vector: {"vector": np.asarray(vector)},
        expanded_dtypes=[np.dtype(np.float64)],
        expanded_shapes=[(size,)],
        expanded_names=["vector"],
    )

    def run(seed: int) -> np.ndarray:
        trace = nutpie.sample(
            model,
            draws=length.draws,
            tune=length.warmup,
            chains=length.chains,
            cores=1,
            seed=seed,
            save_warmup=False,
            progress_bar=False,
        )
        return np.asarray(trace.posterior["vector"])

    return run


# Point estimates: each gives a function without arguments that returns the vector [parameter].


def xlogit_estimate(rows: Rows, standard_errors: bool) -> Callable[[], np.ndarray]:
    """xlogit's MultinomialLogit; its standard errors come from a numerical Hessian."""
    from xlogit import MultinomialLogit

    (num_obs, num_llms), dim = rows.offered.shape, rows.context.shape[1]
    outcomes = num_llms + 1
    names = [f"x{k}" for k in range(dim)]
    long = np.repeat(rows.context.astype(np.float64), outcomes, axis=0)
    taken = (rows.choice[:, None] == np.arange(outcomes)).ravel().astype(int)
    available = np.concatenate([np.ones((num_obs, 1), int), rows.offered], axis=1).ravel()

    def run() -> np.ndarray:
        model = MultinomialLogit()
        model.fit(
            X=long,
            y=taken,
            varnames=names,
            isvars=names,
            alts=np.tile(np.arange(outcomes), num_obs),
            ids=np.repeat(np.arange(num_obs), outcomes),
            avail=available,
            base_alt=0,
            fit_intercept=True,
            skip_std_errs=not standard_errors,
            verbose=0,
        )
        by_feature = model.coeff_.reshape(dim + 1, num_llms)
        return np.concatenate([by_feature[0], by_feature[1:].T.ravel()])

    return run


def statsmodels_estimate(rows: Rows) -> Callable[[], np.ndarray]:
    """statsmodels' MNLogit by Newton, its default, without the final Hessian."""
    from statsmodels.discrete.discrete_model import MNLogit

    ones = np.ones((len(rows.context), 1))
    design = np.concatenate([ones, rows.context.astype(np.float64)], axis=1)

    def run() -> np.ndarray:
        by_feature = np.asarray(MNLogit(rows.choice, design).fit(disp=0, skip_hessian=True).params)
        return np.concatenate([by_feature[0], by_feature[1:].T.ravel()])

    return run


def sklearn_estimate(rows: Rows, solver: str) -> Callable[[], np.ndarray]:
    """scikit-learn's LogisticRegression without penalty, on float64."""
    from sklearn.linear_model import LogisticRegression

    context = rows.context.astype(np.float64)

    def run() -> np.ndarray:
        model = LogisticRegression(C=np.inf, solver=solver, max_iter=1_000)
        model.fit(context, rows.choice)
        # One vector for every outcome, the retry too: only differences from it mean anything.
        intercept = model.intercept_[1:] - model.intercept_[0]
        return np.concatenate([intercept, (model.coef_[1:] - model.coef_[0]).ravel()])

    return run


# Online learning.


def numpy_online(rows: Rows, seed: int, root: str = "svd") -> tuple[np.ndarray, float]:
    """One pass with a precision matrix for each LLM, as research code has it; no intercepts.

    In every row the offered LLMs' matrices are inverted and their parameters drawn; ``root`` is
    NumPy's way of drawing, whose default is the singular value decomposition. Returns the means
    ``[llm, dim]`` and the sum of the drawn utilities.
    """
    rng = np.random.default_rng(seed)
    num_llms, dim = rows.offered.shape[1], rows.context.shape[1]
    mean = np.zeros((num_llms, dim))
    precision = np.stack([np.eye(dim) / SLOPE_SD**2] * num_llms)
    total = 0.0
    for x, offered, choice in zip(
        rows.context.astype(np.float64), rows.offered, rows.choice, strict=True
    ):
        llms = np.nonzero(offered)[0]
        odds = np.exp(mean[llms] @ x)
        for j, share in zip(llms, odds / (1 + odds.sum()), strict=True):
            precision[j] += share * (1 - share) * np.outer(x, x)
            covariance = np.linalg.inv(precision[j])
            mean[j] += covariance @ x * ((choice == j + 1) - share)
            total += rng.multivariate_normal(mean[j], covariance, method=root) @ x
    return mean, total

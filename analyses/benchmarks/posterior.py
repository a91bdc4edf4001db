# %% [markdown]
# # How fast is a posterior?
#
# The engines against what else one would use: samplers, other layouts of the likelihood, maximum
# likelihood packages, and a plain NumPy loop for the online Gaussian. All data are simulated. One
# process on one pinned core, the same data for both sides, process CPU seconds. Compilation is
# apart (`compile_seconds`): what is timed has run or was compiled before. Short runs are medians
# of several, minute-long ones are run once.
#
# What the figures mean:
#
# - Effective draws are ArviZ's bulk effective sample size, the smallest over all parameters; for
#   `laplace` not more than what the package says that its resampled draws are worth, since they
#   look independent. Seconds are all seconds from data to draws, warm-up and diagnostics included.
# - NUTS of the peers: 4 chains of 500 warm-up steps and 500 draws in float32, one chain after the
#   other. Chains side by side would wait for the longest tree, which costs the peers more.
# - A gradient is one call of a compiled function; rows are laid out beforehand on both sides.
# - Point estimates are judged by their log-likelihood in float64; ours may be at most 1e-3 worse.
# - The row of 1,000,000 runs in a process of its own, for its peak memory, and counts its
#   compilation too.
#
# The peers stand in `peers.py`; one that is not installed leaves its row empty.
#
#     python analyses/benchmarks/posterior.py [--quick] [--only NAME] [--json FILE]

# %%
import os

if __name__ == "__main__":
    # Before the numerical libraries are loaded, which start their threads then.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import peers
from arviz_base import from_dict
from cqbayes.models.abandonment import abandonment
from cqbayes.models.attempt_mnl import attempt_mnl
from cqbayes.models.disjoint_mnl import disjoint_mnl
from cqbayes.models.misclassified import misclassified
from peers import Chains, Rows
from rich.console import Console
from rich.table import Table

import cqbayes
from cqbayes import ChoiceData, Sizes, load_engine, provenance, replacing
from cqbayes.choice.data import SILENCE
from cqbayes.inference import online
from cqbayes.posterior.log_densities import log_posterior
from cqbayes.simulation.prng import fast_key

LEAST_CONDITION = 200.0
MOST_KHAT_TO_TRUST = 0.5
LOG_LIKELIHOOD_SLACK = 1e-3
FLAT_SD = 1e3
LONG_RUN = 5.0  # seconds
NUM_GRADIENTS = 20
DRAWS_FOR_400 = 900  # resampled draws that are worth 400 and some to spare, at 330 parameters
GIB = 2**30
PEERS = ("blackjax", "nutpie", "xlogit", "statsmodels", "scikit-learn")


class Scale(NamedTuple):
    """Sizes of one run: everything else is the same in a quick one."""

    small: int = 10_000
    large: int = 100_000
    huge: int = 1_000_000
    xlogit: int = 10_000
    online: int = 4_000
    logs: tuple[int, ...] = (20_000, 1_000_000)
    chains: Chains = Chains(warmup=500, draws=500, chains=4)
    repeats: int = 5


QUICK = Scale(
    small=2_000,
    large=10_000,
    huge=50_000,
    xlogit=500,
    online=500,
    logs=(2_000,),
    chains=Chains(warmup=150, draws=150, chains=1),
    repeats=3,
)


class Row(NamedTuple):
    """One line of the result; ``ratio`` above 1 says that ours is the better one."""

    measure: str
    ours: float | None
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    target: float | None = None
    meets: bool | None = None
    compile_seconds: float | None = None
    note: str = ""

    def against(self, peer: float, higher_wins: bool, good: bool = True) -> "Row":
        """The same with a peer's figure; ``good`` is whether ours counts at all."""
        assert self.ours is not None
        ratio = self.ours / peer if higher_wins else peer / self.ours
        meets = None if self.target is None else bool(ratio >= self.target and good)
        return self._replace(peer=peer, ratio=ratio, meets=meets)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


# %% [markdown]
# ## Simulated data


# %%
def embedding_like(rng: np.random.Generator, num_obs: int, dim: int) -> np.ndarray:
    """Unit vectors around a common mean whose spectrum decays like ``1 / k``, as embeddings'."""
    mean = rng.standard_normal(dim)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    mixing = (0.7 / np.arange(1, dim + 1))[:, None] * rotation.T
    context = rng.standard_normal((num_obs, dim), np.float32) @ mixing.astype(np.float32)
    context += (mean / np.linalg.norm(mean)).astype(np.float32)
    context /= np.linalg.norm(context, axis=1, keepdims=True)
    condition = condition_number(context)
    say(f"  simulated {num_obs:,} embedding-like contexts, d={dim}, condition {condition:,.0f}")
    assert condition > LEAST_CONDITION, f"condition number {condition:.0f}"
    return context


def isotropic(rng: np.random.Generator, num_obs: int, dim: int) -> np.ndarray:
    """Unit vectors of all directions alike."""
    context = rng.standard_normal((num_obs, dim), np.float32)
    return context / np.linalg.norm(context, axis=1, keepdims=True)


def condition_number(context: np.ndarray) -> float:
    """Of the second moments ``X^T X``, which a likelihood's curvature inherits."""
    some = context[:100_000].astype(np.float64)
    return float(np.linalg.cond(some.T @ some))


def simulate(
    num_obs: int,
    num_llms: int,
    dim: int,
    slate_size: int,
    contexts: Callable[[np.random.Generator, int, int], np.ndarray] = embedding_like,
    seed: int = 0,
) -> Rows:
    """Services of a user who follows the model: parameters from a prior, random assortments."""
    rng = np.random.default_rng(seed)
    slope = rng.standard_normal((num_llms, dim), np.float32)
    intercept = 0.5 * rng.standard_normal(num_llms, np.float32)
    context = contexts(rng, num_obs, dim)
    offered = np.zeros((num_obs, num_llms), bool)
    slate = rng.random((num_obs, num_llms), np.float32).argsort(axis=1)[:, :slate_size]
    np.put_along_axis(offered, slate, True, axis=1)
    utility = np.where(offered, intercept + context @ slope.T, -np.inf)
    utility += rng.gumbel(size=utility.shape)
    retry = utility.max(axis=1) < rng.gumbel(size=num_obs)
    choice = np.where(retry, 0, utility.argmax(axis=1) + 1).astype(np.int32)
    return Rows(context, offered, choice)


@cache
def small_rows(scale: Scale) -> Rows:
    return simulate(scale.small, num_llms=5, dim=16, slate_size=3)


@cache
def large_rows(scale: Scale) -> Rows:
    return simulate(scale.large, num_llms=10, dim=32, slate_size=4)


# %% [markdown]
# ## Timing and effective draws


# %%
def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result of one run, on the host or the device but finished, and its CPU seconds."""
    start = time.process_time()
    result = jax.block_until_ready(run())
    return result, time.process_time() - start


def typical(run: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The result and the median CPU seconds of a few runs.

    A first run is not counted, unless it is so long that nothing else matters beside it.
    """
    result, first = timed(run)
    if first > LONG_RUN:
        return result, first
    return result, statistics.median(timed(run)[1] for _ in range(repeats))


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], float]:
    """``function`` of ``arguments``, compiled ahead of time, and what that took."""
    arguments = jax.tree.map(jnp.asarray, arguments)
    program, seconds = timed(lambda: jax.jit(function).lower(*arguments).compile())
    return lambda: program(*arguments), seconds


def attempt(run: Callable[[], Any]) -> tuple[Any, str]:
    """What a peer gives, or None and why not."""
    try:
        return run(), ""
    except ImportError as missing:
        say(f"  not measured: {missing}")
        return None, f"not measured: {missing}"


class Sample(NamedTuple):
    """What a sampler did: draws ``[chain, draw, parameter]``, ESS of each parameter, seconds.

    An engine of ours adds what it says of itself.
    """

    draws: np.ndarray
    ess: np.ndarray
    seconds: float
    compile_seconds: float
    verdict: str = "OK"
    khat: float = 0.0

    @property
    def rate(self) -> float:
        return float(self.ess.min()) / self.seconds

    @property
    def trusted(self) -> bool:
        return self.verdict == "OK" and self.khat < MOST_KHAT_TO_TRUST


def effective(draws: np.ndarray, method: str = "bulk") -> np.ndarray:
    """Effective sample size of every parameter, by ArviZ."""
    dataset = from_dict({"posterior": {"vector": np.asarray(draws, np.float64)}})
    return arviz_stats.ess(dataset["posterior"].dataset, method=method)["vector"].values


def sizes(sample: Sample) -> str:
    """The least effective sizes: tails can be worse than the bulk that is compared."""
    return f"ESS {sample.ess.min():.0f}, tails {effective(sample.draws, 'tail').min():.0f}"


def disagreement(one: Sample, other: Sample) -> float:
    """Largest difference of posterior means, in standard errors of the difference."""
    means = [s.draws.mean(axis=(0, 1)) for s in (one, other)]
    errors = [s.draws.std(axis=(0, 1)) / np.sqrt(s.ess) for s in (one, other)]
    return float(np.max(np.abs(means[0] - means[1]) / np.hypot(*errors)))


# %% [markdown]
# ## Samplers


# %%
def flat(posterior: Any) -> np.ndarray:
    """Draws ``[chain, draw, parameter]`` in the order of `peers`: intercepts, then slopes."""
    drawn = posterior.to_arviz()["posterior"]
    slopes = drawn["theta"].values
    return np.concatenate(
        [drawn["intercept"].values, slopes.reshape(*slopes.shape[:2], -1)], axis=-1
    )


def infer_once(engine: str, data: ChoiceData, seed: int, **settings: int) -> Sample:
    """One call as a user makes it, seen as a sample that took that long."""
    model = cqbayes.load_model("disjoint_mnl")

    (posterior, info), seconds = timed(
        lambda: cqbayes.infer(jax.random.key(seed), model, data, engine=engine, **settings)
    )
    say(f"  {info}; {seconds:.2f} s")
    draws = flat(posterior)
    ess, khat = effective(draws), 0.0
    if engine == "laplace":
        khat = float(info.stats["khat"])
        # A fit that failed gives no draws but its Gaussian, which is not trusted anyway.
        ess = np.minimum(ess, float(getattr(posterior, "effective", 0.0)))
    return Sample(draws, ess, seconds, 0.0, info.verdict.name, khat)


@cache
def our_sample(engine: str, rows: Callable[[Scale], Rows], scale: Scale, **settings: int) -> Sample:
    """The run of median rate, among several after a first that compiles."""
    data = cqbayes.choice_data(*rows(scale))
    first, *runs = (infer_once(engine, data, seed, **settings) for seed in range(scale.repeats + 1))
    middle = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
    return middle._replace(compile_seconds=first.seconds - middle.seconds)


@cache
def peer_sample(prepare: Callable[[Rows, Chains], peers.Run], scale: Scale) -> Sample:
    """One run of a peer; it was compiled before."""
    run, compile_seconds = timed(lambda: prepare(small_rows(scale), scale.chains))
    draws, seconds = timed(lambda: run(1))
    sample = Sample(draws, effective(draws), seconds, compile_seconds)
    say(f"  {prepare.__name__}: ESS {sample.ess.min():.0f} in {seconds:.1f} s")
    return sample


def sampling(
    engine: str,
    peer_name: str,
    prepare: Callable[[Rows, Chains], peers.Run],
    target: float,
    scale: Scale,
) -> list[Row]:
    """Effective draws a second of an engine and of a peer, and whether they agree."""
    ours = our_sample(engine, small_rows, scale)
    peer, note = attempt(lambda: peer_sample(prepare, scale))
    if peer:
        gap = disagreement(ours, peer)
        note = f"means at most {gap:.1f} standard errors apart; the peer's {sizes(peer)}"
    row = Row(
        measure=f"min ESS/s, {engine}, {scale.small:,} simulated rows, 5 LLMs, d=16, K=3",
        ours=ours.rate,
        peer_name=peer_name,
        target=target,
        compile_seconds=ours.compile_seconds,
        note=f"{note}; ours {claims(ours)}",
    )
    return [row.against(peer.rate, higher_wins=True, good=ours.trusted) if peer else row]


def claims(ours: Sample) -> str:
    """What an engine says of itself."""
    khat = f"k-hat {ours.khat:.2f}, " if ours.khat else ""
    return f"{ours.verdict}, {khat}{sizes(ours)}"


def cold(scale: Scale) -> list[Row]:
    """From nothing to at least 400 effective draws of a large posterior."""
    ours = our_sample("laplace", large_rows, scale._replace(repeats=3), num_draws=DRAWS_FOR_400)
    return [
        Row(
            measure=f"s to 400 effective draws, laplace, {scale.large:,} simulated rows, "
            "10 LLMs, d=32, K=4",
            ours=ours.seconds,
            target=2.0,
            meets=bool(ours.seconds <= 2.0 and ours.ess.min() >= 400 and ours.trusted),
            compile_seconds=ours.compile_seconds,
            note=claims(ours),
        )
    ]


# %% [markdown]
# ## One gradient


# %%
class Gradient(NamedTuple):
    """A gradient away from the mode; seconds of one call, and of one inside a compiled loop."""

    slope: np.ndarray
    seconds: float
    loop_seconds: float
    compile_seconds: float


def differentiated(density: Callable[[jax.Array], jax.Array], scale: Scale) -> Gradient:
    """What a density lays out when it is made is not counted, on either side."""
    slope = jax.grad(density)

    def call_often() -> jax.Array:
        for _ in range(NUM_GRADIENTS - 1):
            jax.block_until_ready(run())
        return run()

    def loop(vector: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, NUM_GRADIENTS, lambda _, v: v + 1e-9 * slope(v), vector)

    begin = 0.3 * np.random.default_rng(1).standard_normal(10 * 33).astype(np.float32)
    run, compile_seconds = compiled(slope, begin)
    found, seconds = typical(call_often, scale.repeats)
    _, loop_seconds = typical(compiled(loop, begin)[0], scale.repeats)
    return Gradient(
        np.asarray(found), seconds / NUM_GRADIENTS, loop_seconds / NUM_GRADIENTS, compile_seconds
    )


@cache
def our_gradient(scale: Scale) -> Gradient:
    data = cqbayes.choice_data(*large_rows(scale))
    return differentiated(log_posterior(cqbayes.load_model("disjoint_mnl"), data), scale)


def gradient(
    peer_name: str, density: Callable[..., jax.Array], target: float, scale: Scale
) -> list[Row]:
    """One gradient of the log-posterior, and of the same written in another layout."""
    ours, rows = our_gradient(scale), jax.tree.map(jnp.asarray, large_rows(scale))
    if density is peers.gather_log_posterior:
        rows = jax.tree.map(jnp.asarray, peers.gather_rows(large_rows(scale)))
    peer = differentiated(lambda vector: density(vector, rows), scale)
    difference = np.linalg.norm(ours.slope - peer.slope) / np.linalg.norm(peer.slope)
    row = Row(
        measure=f"ms, gradient of the log-posterior, {scale.large:,} simulated rows, "
        "10 LLMs, d=32, K=4",
        ours=1e3 * ours.seconds,
        peer_name=peer_name,
        target=target,
        compile_seconds=ours.compile_seconds,
        note=f"relative difference {difference:.0e}; inside a compiled loop, which keeps its "
        f"memory, {1e3 * ours.loop_seconds:.2f} and {1e3 * peer.loop_seconds:.2f} ms",
    )
    return [row.against(1e3 * peer.seconds, higher_wins=False, good=bool(difference < 1e-3))]


# %% [markdown]
# ## Point estimates


# %%
class Problem(NamedTuple):
    """Rows to fit: name, and how they are simulated."""

    name: str
    rows: Callable[[Scale], Rows]


def full_rows(scale: Scale, contexts: Callable[..., np.ndarray]) -> Rows:
    """Every LLM is offered, the one case that packages for plain multinomial logit know."""
    return simulate(scale.large, num_llms=10, dim=32, slate_size=10, contexts=contexts)


EMBEDDING = Problem(
    "10 LLMs, d=32, full assortments, embedding-like", lambda s: full_rows(s, embedding_like)
)
ISOTROPIC = Problem("10 LLMs, d=32, full assortments, isotropic", lambda s: full_rows(s, isotropic))
XLOGIT = Problem(
    "5 LLMs, d=16, K=3", lambda s: simulate(s.xlogit, num_llms=5, dim=16, slate_size=3)
)


class Estimate(NamedTuple):
    rows: Rows
    log_likelihood: float
    seconds: float
    compile_seconds: float


@cache
def our_estimate(problem: Problem, scale: Scale) -> Estimate:
    """The mode under a nearly flat prior; the engine's ``fit`` gives its covariance with it."""
    rows = problem.rows(scale)
    model = disjoint_mnl(prior_sd=FLAT_SD, intercept_sd=FLAT_SD)
    fit = load_engine("laplace").fit
    run, compile_seconds = compiled(
        lambda data: fit(jax.random.key(0), model, data), cqbayes.choice_data(*rows)
    )
    (posterior, _), seconds = typical(run, scale.repeats)
    mode = posterior.mean()
    vector = np.concatenate([np.ravel(mode["intercept"]), np.ravel(mode["theta"])])
    return Estimate(rows, peers.log_likelihood(vector, rows), seconds, compile_seconds)


def estimating(
    problem: Problem,
    peer_name: str,
    prepare: Callable[[Rows], Callable[[], np.ndarray]],
    target: float | None,
    scale: Scale,
) -> list[Row]:
    """Seconds to a point estimate, and whose log-likelihood is higher."""
    ours = our_estimate(problem, scale)

    def measure() -> tuple[float, float]:
        vector, seconds = typical(prepare(ours.rows), scale.repeats)
        return peers.log_likelihood(vector, ours.rows), seconds

    say(f"  {peer_name} ...")
    peer, note = attempt(measure)
    row = Row(
        measure=f"s, point estimate, {len(ours.rows.choice):,} simulated rows, {problem.name}",
        ours=ours.seconds,
        peer_name=peer_name,
        target=target,
        compile_seconds=ours.compile_seconds,
        note=note,
    )
    if peer is None:
        return [row]
    found, seconds = peer
    gain = ours.log_likelihood - found
    note = f"log-likelihood {ours.log_likelihood:,.3f}, ours minus the peer's {gain:+.1e}"
    # One-sided: a peer that stops short is quicker for it, which is in its favour.
    good = gain >= -LOG_LIKELIHOOD_SLACK
    return [row._replace(note=note).against(seconds, higher_wins=False, good=good)]


def statsmodels(scale: Scale) -> list[Row]:
    return estimating(
        EMBEDDING, "statsmodels MNLogit, newton", peers.statsmodels_estimate, 8.0, scale
    )


def sklearn(problem: Problem, scale: Scale) -> list[Row]:
    """Its default solver, which stops short, and the one that reaches the same optimum."""
    rows = []
    for solver in ("lbfgs", "newton-cholesky"):
        name = f"scikit-learn LogisticRegression, {solver}"
        rows += estimating(
            problem, name, lambda rows, s=solver: peers.sklearn_estimate(rows, s), 1.0, scale
        )
    return rows


def xlogit(scale: Scale) -> list[Row]:
    """As its defaults are, with a covariance as we have one; and the bare estimate."""
    return [
        *estimating(
            XLOGIT,
            "xlogit MultinomialLogit, defaults",
            lambda rows: peers.xlogit_estimate(rows, standard_errors=True),
            1_000.0,
            scale,
        ),
        *estimating(
            XLOGIT,
            "xlogit MultinomialLogit, no standard errors",
            lambda rows: peers.xlogit_estimate(rows, standard_errors=False),
            None,
            scale,
        ),
    ]


# %% [markdown]
# ## Models of logs
#
# Logs of turns show one LLM a row, hide some choices and mistake others.


# %%
MODELS_OF_LOGS = {
    "disjoint_mnl": disjoint_mnl(),
    "attempt_mnl": attempt_mnl(),
    "abandonment": abandonment(goes_on=(2.0, 2.0)),
    "misclassified": misclassified(),
    "misclassified(abandonment(attempt_mnl))": misclassified(
        abandonment(attempt_mnl(), goes_on=(2.0, 2.0))
    ),
}
SEEN = np.array([[0.6, 0.15, 0.25], [0.05, 0.6, 0.35]])  # of a retry and of an acceptance


@cache
def turns(num_obs: int) -> tuple[Rows, np.ndarray]:
    """Services that show one LLM, and what a log shows of their choices."""
    rows = simulate(num_obs, num_llms=4, dim=16, slate_size=1, contexts=isotropic)
    ends = np.cumsum(SEEN, axis=1)[np.minimum(rows.choice, 1)]
    seen = (np.random.default_rng(1).random((num_obs, 1)) > ends).sum(axis=1)
    shown = rows.offered.argmax(axis=1) + 1
    return rows, np.select([seen == 0, seen == 1], [0, shown], SILENCE)


def model_of_log(name: str, num_obs: int, scale: Scale) -> Row:
    """One call of `laplace` as a user makes it."""
    model = MODELS_OF_LOGS[name]
    rows, seen = turns(num_obs)
    if not model.silence:
        seen = np.maximum(seen, 0) if name == "misclassified" else rows.choice
    attempt = np.random.default_rng(2).integers(1, 7, num_obs)
    data = cqbayes.choice_data(rows.context, rows.offered, seen, attempt=attempt)

    def run() -> tuple[Any, Any]:
        return cqbayes.infer(jax.random.key(0), model, data, engine="laplace")

    _, first = timed(run)
    (_, info), seconds = typical(run, scale.repeats)
    return Row(
        measure=f"s, laplace, {name}, {num_obs:,} simulated rows, 4 LLMs, d=16, K=1",
        ours=seconds,
        compile_seconds=first - seconds,
        note=str(info),
    )


def models_of_logs(scale: Scale) -> list[Row]:
    return [model_of_log(name, n, scale) for n in scale.logs for name in MODELS_OF_LOGS]


# %% [markdown]
# ## Online


# %%
def online_pass(num_llms: int, dim: int, slate_size: int) -> Callable[..., Any]:
    """Update by a row, draw all parameters, see their utilities: a learner's work in a round."""
    model = disjoint_mnl(intercept=False)

    def run(key: jax.Array, data: ChoiceData) -> tuple[jax.Array, jax.Array]:
        def step(belief: online.OnlineGaussian, row: Any) -> tuple[Any, jax.Array]:
            key, context, offered, choice, weight = row
            belief = online.update_row(belief, context, offered, choice, weight, slate_size)
            return belief, belief.draw(key)["theta"] @ context

        keys = jax.random.split(fast_key(key), data.num_obs)  # as in the package's simulations
        columns = (keys, data.context, data.offered, data.choice, data.weight)
        belief, drawn = jax.lax.scan(step, online.prior(model, Sizes(num_llms, dim)), columns)
        return belief.location, drawn

    return run


def online_gaussian(scale: Scale) -> list[Row]:
    """The online Gaussian against a loop that inverts and samples for every offered LLM."""
    num_llms, dim, slate_size, peer_obs = 11, 64, 3, 300
    rows = simulate(scale.online, num_llms, dim, slate_size)
    head = Rows(*(column[:peer_obs] for column in rows))
    data = cqbayes.choice_data(*rows)
    key = jax.random.key(0)
    run, compile_seconds = compiled(online_pass(num_llms, dim, slate_size), key, data)
    ours = scale.online / typical(run, scale.repeats)[1]

    def theirs(root: str) -> tuple[np.ndarray, float]:
        (mean, _), seconds = typical(lambda: peers.numpy_online(head, 1, root), scale.repeats)
        return mean, peer_obs / seconds

    mean, peer = theirs("svd")
    model = disjoint_mnl(intercept=False)
    start = online.prior(model, Sizes(num_llms, dim))
    located = online.update(start, cqbayes.choice_data(*head), slate_size).location
    alike = np.corrcoef(np.ravel(located), np.ravel(mean))[0, 1]
    row = Row(
        measure=f"rows/s, online update and joint draw, simulated, {num_llms} LLMs, d={dim}, "
        f"K={slate_size}",
        ours=ours,
        peer_name="NumPy, inverse and multivariate_normal",
        target=100.0,
        compile_seconds=compile_seconds,
        note=f"with method='cholesky' the peer does {theirs('cholesky')[1]:,.0f}/s; "
        f"correlation of the means {alike:.3f}",
    )
    return [row.against(peer, higher_wins=True)]


# %% [markdown]
# ## A million rows, in a process of its own


# %%
def million_child(num_obs: int) -> None:
    """Prints seconds, peak bytes, and what the engine says, as JSON."""
    # Beyond this a failure would take the whole machine with it.
    resource.setrlimit(resource.RLIMIT_DATA, (12 * GIB, 12 * GIB))
    data = cqbayes.choice_data(*simulate(num_obs, num_llms=10, dim=64, slate_size=4))
    before = peak_bytes()
    model = cqbayes.load_model("disjoint_mnl")
    (_, info), seconds = timed(
        lambda: cqbayes.infer(jax.random.key(0), model, data, engine="laplace")
    )
    found = {"seconds": seconds, "bytes": peak_bytes(), "before": before, "ok": info.ok}
    print(json.dumps(found | {"info": str(info)}))


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux lets ru_maxrss start from the peak of the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def million(scale: Scale) -> list[Row]:
    """Seconds and peak memory of a first call, all of it: data, compilation, diagnostics."""
    command = [sys.executable, __file__, "--child", str(scale.huge)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        note = found.get("info", f"failed with exit status {done.returncode}")
    except subprocess.TimeoutExpired:
        found, note = {}, "stopped after 600 s"
    name = f"{scale.huge:,} simulated rows, 10 LLMs, d=64, K=4, laplace from a cold start"
    gib = found["bytes"] / GIB if found else None
    if found:
        note += f"; {found['before'] / GIB:.1f} GiB of the peak are there before inference"

    def row(measure: str, ours: float | None, target: float) -> Row:
        meets = bool(found and found["ok"] and ours <= target)
        return Row(measure, ours, target=target, meets=meets, note=note)

    return [
        row(f"s with compilation, {name}", found.get("seconds"), 60.0),
        row(f"GiB peak memory, {name}", gib, 6.0),
    ]


# %%
MEASURES: dict[str, Callable[[Scale], list[Row]]] = {
    "laplace_numpyro": lambda s: sampling("laplace", "NumPyro NUTS", peers.numpyro_nuts, 300.0, s),
    "hmc_numpyro": lambda s: sampling("hmc", "NumPyro NUTS", peers.numpyro_nuts, 60.0, s),
    "hmc_blackjax": lambda s: sampling("hmc", "BlackJAX NUTS", peers.blackjax_nuts, 30.0, s),
    "hmc_nutpie": lambda s: sampling("hmc", "nutpie NUTS", peers.nutpie_nuts, 60.0, s),
    "cold": cold,
    "gradient_gather": lambda s: gradient("gather layout", peers.gather_log_posterior, 7.0, s),
    "gradient_dense": lambda s: gradient("dense autodiff", peers.dense_log_posterior, 1.9, s),
    "xlogit": xlogit,
    "statsmodels": statsmodels,
    "sklearn_isotropic": lambda s: sklearn(ISOTROPIC, s),
    "sklearn_embedding": lambda s: sklearn(EMBEDDING, s),
    "models_of_logs": models_of_logs,
    "online": online_gaussian,
    "million": million,
}


def show(rows: list[Row]) -> None:
    table = Table(title="Posteriors, on one core; a ratio above 1 is in our favour")
    columns = [name for name in Row._fields if name != "compile_seconds"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("measure", "note") else "right")
    for row in rows:
        cells = [getattr(row, column) for column in columns]
        table.add_row(*(f"{v:,.4g}" if isinstance(v, float) else str(v) for v in cells))
    # Wide enough that nothing is cut where there is no terminal.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def peer_versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# %%
def main() -> None:
    parser = argparse.ArgumentParser(description="Inference engines against other software.")
    parser.add_argument("--quick", action="store_true", help="a smaller run of the same")
    parser.add_argument("--only", default="", help=f"part of a name of: {', '.join(MEASURES)}")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        million_child(arguments.child)
        return
    chosen = {name: measure for name, measure in MEASURES.items() if arguments.only in name}
    if not chosen:
        parser.error(f"--only: expected part of one of {', '.join(MEASURES)}")
    rows = []
    for name, measure in chosen.items():
        say(f"{name} ({time.process_time():.0f} s)")
        rows += measure(QUICK if arguments.quick else Scale())
    show(rows)
    if arguments.json:
        found = {"rows": [row._asdict() for row in rows], **provenance(**peer_versions())}
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

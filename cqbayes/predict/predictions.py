"""Predictions of a posterior for new queries, and effects of a change.

For every draw of the parameters, with ``u_j`` the utilities of a query ``x``::

    P(taken | x, {j}) = 1 / (1 + exp(-u_j))                               one LLM alone
    P(j | x, S)       = exp(u_j) / (1 + sum_{m in S} exp(u_m))            shares of an assortment

Means and intervals are over draws. By default the functions predict what **users do**. A log may
show something else, because retrials were inferred (``misclassified``) or users leave in silence
(``abandonment``): ``seen=True`` predicts the labels that such a log would have. The model's outcome
has the channel from one to the other, see :mod:`cqbayes.choice.channels`.

A few queries are computed at a time, so that memory does not grow with the number of queries.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cqbayes.choice.data import OPTIONAL, Situation, choice_data
from cqbayes.choice.mnl import MNL
from cqbayes.errors import InputError
from cqbayes.posterior.datatree import coordinates
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, layout, utilities

AT_ONCE = 4_000_000  # probabilities in memory at a time
MOST_DRAWS = 4_000  # of more draws, evenly spread ones are used
OUTCOMES = ("retry", "silence")  # outcomes other than an LLM's answer
USERS_DO = "what users do: the multinomial logit of the utilities"
LOG_SHOWS = "what a log shows: the model's outcome"


class Interval(NamedTuple):
    """How intervals of predictions are made.

    Attributes:
        probability: of the values between the bounds.
        kind: ``eti``, with equal tails, or ``hdi``, the shortest.
    """

    probability: float = 0.9
    kind: str = "eti"


def new_queries(
    posterior: Posterior,
    context: Any,
    *,
    attributes: Any = None,
    user: Any = None,
    attempt: Any = None,
    time: Any = None,
    failures: Any = None,
) -> Situation:
    """New queries, after checks that the posterior can predict their outcomes.

    Args:
        posterior: the posterior for the predictions.
        context: embeddings ``[query, dim]``.
        attributes: attributes of the LLMs, ``[llm, attribute]`` or ``[query, llm, attribute]``.
        user, attempt, time: ``[query]``, as in :func:`cqbayes.choice_data`. Users and blocks of
            time that are not in the posterior's data are allowed; the model's docstring
            says how it treats them.
        failures: how often each LLM answered a query in vain, ``[query, llm]``, or ``[llm]`` for
            all; for a model that remembers them, queries are fresh where absent.

    Raises:
        InputError: for arrays that :func:`cqbayes.choice_data` refuses, another number of
            dimensions or attributes than the posterior has, or a missing column.

    Example:
        >>> import cqbayes, jax
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True], [True]], [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="laplace")
        >>> new_queries(posterior, [[0.5]]).context.shape
        (1, 1)
    """
    num_llms = posterior.sizes.num_llms
    count = len(context) if hasattr(context, "__len__") else 1
    everyone = np.ones((count, num_llms), bool)
    given = {"attributes": attributes, "user": user, "attempt": attempt, "time": time}
    if failures is not None:
        failures = np.asarray(failures)
        if failures.shape == (num_llms,):
            failures = np.broadcast_to(failures, everyone.shape)
    elif "failures" in posterior.model.needs:
        failures = np.zeros(everyone.shape, int)
    rows = choice_data(context, everyone, np.zeros(count, int), failures=failures, **given)
    expected = {"dim": rows.dim}
    if rows.attributes is not None and "attributes" in posterior.model.needs:
        expected["num_attributes"] = rows.attributes.shape[-1]
    for name, found in expected.items():
        if found != getattr(posterior.sizes, name):
            raise InputError(
                f"queries: expected {name} of {getattr(posterior.sizes, name)} as in the "
                f"posterior, got {found}"
            )
    _check_columns(posterior.model, rows.situation)
    return rows.only(posterior.model.needs).situation


def acceptance(
    key: PRNGKeyArray,
    posterior: Posterior,
    at: Situation,
    *,
    num_draws: int = 1_000,
    interval: Interval = Interval(),
    llms: list[str] | None = None,
) -> xr.Dataset:
    """``P(taken | x, {j})`` for every LLM ``j``: users take its answer when it alone answers.

    These are probabilities of what users do, whatever a log shows of it.

    Args:
        key: JAX key for draws, unless the posterior already consists of draws.
        posterior: any posterior.
        at: queries, as :func:`new_queries` gives them.
        num_draws: number of draws.
        interval: how intervals are made.
        llms: names of the LLMs.

    Returns:
        ``mean`` and ``interval``, with dimensions ``query``, ``llm`` and ``ci_bound`` (lower,
        upper). ``overall_mean`` and ``overall_interval`` describe the mean over the queries.

    Raises:
        InputError: for another kind, a probability outside (0, 1), or names that do not fit.

    Example:
        >>> import cqbayes, jax
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True], [True]], [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="laplace")
        >>> at = new_queries(posterior, [[0.5], [-0.5]])
        >>> found = acceptance(jax.random.key(1), posterior, at)
        >>> bool(found["mean"].sel(query=0, llm="llm0") > found["mean"].sel(query=1, llm="llm0"))
        True
    """
    params, names = _begin(key, posterior, num_draws, llms)
    shape = (len(names),)

    def alone(chunk: tuple[Situation]) -> Array:
        return _alone(posterior.model, params, *chunk)

    pieces = _in_chunks(alone, (at,), params, len(names))
    found = _summaries(pieces, at.context.shape[0], shape, interval)
    return _dataset(found, ("llm",), {"llm": names}, USERS_DO)


def shares(
    key: PRNGKeyArray,
    posterior: Posterior,
    at: Situation,
    offered: Any,
    *,
    seen: bool = False,
    num_draws: int = 1_000,
    interval: Interval = Interval(),
    llms: list[str] | None = None,
) -> xr.Dataset:
    """``P(y | x, S)`` of every outcome: a retry, and each LLM's answer.

    Args:
        key, posterior, at, num_draws, interval, llms: as for :func:`acceptance`.
        offered: the assortment ``[llm]``, or one for each query ``[query, llm]``.
        seen: whether to predict what the log shows, with silence, instead of what users do.

    Returns:
        As :func:`acceptance`, with the dimension ``outcome`` in place of ``llm``: ``retry``, the
        LLMs, and ``silence`` and further signs if the log has them.

    Raises:
        InputError: as for :func:`acceptance`; also for assortments that do not fit, and for an LLM
            with the name of an outcome.
    """
    params, names = _begin(key, posterior, num_draws, llms)
    sets = _assortments(offered, at, posterior.sizes.num_llms)
    outcomes = _outcome_names(posterior.model, names, seen)

    def chosen(chunk: tuple[Situation, Array]) -> Array:
        return _chosen(posterior.model, params, *chunk, seen)

    pieces = _in_chunks(chosen, (at, sets), params, len(outcomes))
    found = _summaries(pieces, at.context.shape[0], (len(outcomes),), interval)
    return _dataset(found, ("outcome",), {"outcome": outcomes}, LOG_SHOWS if seen else USERS_DO)


def what_if(
    key: PRNGKeyArray,
    posterior: Posterior,
    at: Situation,
    offered: Any,
    *,
    without: str | int | None = None,
    adding: str | int | None = None,
    attributes: Any = None,
    seen: bool = False,
    num_draws: int = 1_000,
    interval: Interval = Interval(),
    llms: list[str] | None = None,
) -> xr.Dataset:
    """Shares before a change, after it, and their difference, draw by draw.

    The same draws give both shares, so the interval of their difference is narrower than the two
    intervals suggest. To add a new LLM, pass a posterior of
    :func:`cqbayes.predict.new_llm.with_new_llm`.

    Args:
        key, posterior, at, offered, seen, num_draws, interval, llms: as for
            :func:`shares`.
        without: name or number of an LLM that the change takes out of the assortment.
        adding: name or number of an LLM that the change adds to the assortment.
        attributes: attributes of the LLMs after the change, such as another price, ``[llm,
            attribute]`` or ``[query, llm, attribute]``.

    Returns:
        As :func:`shares`, with a first dimension ``scenario``: ``before``, ``after`` and
        ``change``, which is after less before.

    Raises:
        InputError: as for :func:`shares`; also if nothing changes, for an unknown LLM, for
            attributes if the model uses none, and for a query that no LLM would answer.

    Example:
        >>> import cqbayes, jax
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True, True]] * 2, [1, 0])
        >>> posterior, _ = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="laplace")
        >>> at = new_queries(posterior, [[0.5]])
        >>> found = what_if(jax.random.key(1), posterior, at, [True, True], without="llm0")
        >>> float(found["mean"].sel(scenario="after", query=0, outcome="llm0"))
        0.0
    """
    model = posterior.model
    if without is None and adding is None and attributes is None:
        raise InputError("what_if: expected a change, got none; pass without, adding or attributes")
    params, names = _begin(key, posterior, num_draws, llms)
    outcomes = _outcome_names(model, names, seen)
    sets = _assortments(offered, at, posterior.sizes.num_llms)
    after_sets, after = sets, at
    for llm, there in ((without, False), (adding, True)):
        if llm is not None:
            after_sets = after_sets.at[:, _number(llm, names)].set(there)
    empty = ~np.asarray(after_sets).any(axis=1)
    if empty.any():
        raise InputError(
            f"what_if: expected an LLM to answer after the change, got none for query "
            f"{int(np.argmax(empty))}; offer another LLM"
        )
    if attributes is not None:
        if "attributes" not in model.needs:
            raise InputError(
                f"{model.name or 'model'}: expected a model that uses attributes of LLMs, such as "
                "shared_mnl, got one that does not; leave attributes out"
            )
        after = new_queries(posterior, at.context, **(_optional(at) | {"attributes": attributes}))
    if np.array_equal(sets, after_sets) and (
        attributes is None
        or np.array_equal(np.asarray(at.attributes), np.asarray(after.attributes))
    ):
        raise InputError(
            "what_if: expected a change, got one that changes nothing for any query; name an "
            "offered LLM in without, another LLM in adding, or pass other attributes"
        )

    def compared(chunk: tuple[Situation, Array, Situation, Array]) -> Array:
        before = _chosen(model, params, *chunk[:2], seen)
        later = _chosen(model, params, *chunk[2:], seen)
        return jnp.stack([before, later, later - before], axis=2)

    pieces = _in_chunks(compared, (at, sets, after, after_sets), params, 3 * len(outcomes))
    found = _summaries(pieces, at.context.shape[0], (3, len(outcomes)), interval)
    coords = {"scenario": ["before", "after", "change"], "outcome": outcomes}
    return _dataset(found, ("scenario", "outcome"), coords, LOG_SHOWS if seen else USERS_DO)


# Probabilities


@eqx.filter_jit
def _alone(model: PreferenceModel, params: Any, at: Situation) -> Float[Array, "draw query llm"]:
    return jax.vmap(lambda p: jax.nn.sigmoid(utilities(model, p, at)))(params)


@eqx.filter_jit
def _chosen(
    model: PreferenceModel, params: Any, at: Situation, offered: Array, seen: bool
) -> Float[Array, "draw query outcome"]:
    def one(p: Any) -> Array:
        utility = utilities(model, p, at)
        law = model.outcome(p, utility, offered) if seen else MNL(utility, offered)
        return jnp.exp(law.log_probs)  # pyright: ignore[reportAttributeAccessIssue]

    return jax.vmap(one)(params)


@eqx.filter_jit
def _params(posterior: Posterior, vectors: Array) -> Any:
    return jax.vmap(layout(posterior.model, posterior.sizes).params)(vectors)


def _begin(
    key: PRNGKeyArray, posterior: Posterior, num_draws: int, llms: list[str] | None
) -> tuple[Any, list[str]]:
    """Parameters ``[draw, ...]`` of the posterior's draws, and names of the LLMs."""
    if not isinstance(posterior, Posterior):
        raise InputError(f"predict: expected a posterior, got {type(posterior).__name__}")
    if num_draws < 1:
        raise InputError(f"num_draws: expected at least 1, got {num_draws}")
    names = coordinates(posterior, llms)["llm"]
    vectors = posterior.draws(key, num_draws)
    flat = vectors.reshape(-1, vectors.shape[-1])
    return _params(posterior, flat[:: -(-len(flat) // MOST_DRAWS)]), names


def check_llm_names(llms: Sequence[str]) -> None:
    """Refuses LLMs with the name of an outcome: shares have one entry for each name.

    Raises:
        InputError: if an LLM is called ``retry`` or ``silence``.
    """
    taken = [name for name in OUTCOMES if name in llms]
    if taken:
        raise InputError(
            f"llms: expected none called {' or '.join(OUTCOMES)}, since these are outcomes, got "
            f"one called {taken[0]}; give this LLM another name"
        )


def _outcome_names(model: PreferenceModel, llms: list[str], seen: bool) -> list[str]:
    check_llm_names(llms)
    retry, silence = OUTCOMES
    signs = [silence, *(f"sign {k}" for k in range(2, model.signs + 1))][: model.signs]
    return [retry, *llms, *(signs if seen else [])]


def _number(llm: str | int, names: list[str]) -> int:
    if isinstance(llm, str) and llm in names:
        return names.index(llm)
    if isinstance(llm, int | np.integer) and 0 <= llm < len(names):
        return int(llm)
    known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise InputError(f"LLM: expected one of {known} or a number below {len(names)}, got {llm!r}")


def _assortments(offered: Any, at: Situation, num_llms: int) -> Bool[Array, "query llm"]:
    sets = np.asarray(offered)
    shape = (at.context.shape[0], num_llms)
    if sets.shape not in (shape, shape[1:]) or not np.isin(sets, (0, 1)).all():
        raise InputError(
            f"offered: expected booleans of shape {shape[1:]} or {shape}, got {sets.dtype} of "
            f"shape {sets.shape}"
        )
    return jnp.broadcast_to(jnp.asarray(sets.astype(bool)), shape)


def _optional(at: Situation) -> dict[str, Any]:
    return {name: getattr(at, name) for name in OPTIONAL}


def _check_columns(model: PreferenceModel, at: Situation) -> None:
    for name in model.needs:
        if getattr(at, name) is None:
            raise InputError(
                f"{model.name or 'model'}: expected queries with {name}, got none; see "
                "cqbayes.predict.predictions.new_queries"
            )


# Summaries


class _Summaries(NamedTuple):
    mean: np.ndarray
    interval: np.ndarray
    overall_mean: np.ndarray
    overall_interval: np.ndarray
    attrs: dict[str, Any]


def _in_chunks(function: Any, rows: Any, params: Any, per_query: int) -> Iterator[np.ndarray]:
    """Results ``[draw, query, ...]`` of ``function``, for a few queries at a time."""
    num_draws = jnp.shape(jax.tree.leaves(params)[0])[0]
    count = jax.tree.leaves(rows)[0].shape[0]
    size = max(1, min(count, AT_ONCE // (num_draws * per_query)))
    for begin in range(0, count, size):
        # The last query fills up the last chunk: all chunks have one shape, compiled once.
        index = np.minimum(np.arange(begin, begin + size), count - 1)
        found = np.asarray(function(jax.tree.map(lambda column, i=index: column[i], rows)))
        yield found[:, : count - begin]


def _summaries(
    pieces: Iterator[np.ndarray], count: int, shape: tuple[int, ...], how: Interval
) -> _Summaries:
    from arviz_stats.base import array_stats

    intervals = {"eti": array_stats.eti, "hdi": array_stats.hdi}
    probability, kind = how
    if kind not in intervals:
        raise InputError(f"kind: expected eti or hdi, got {kind!r}")
    if not 0 < probability < 1:
        raise InputError(f"probability: expected a number between 0 and 1, got {probability!r}")
    interval = intervals[kind]
    mean, bounds = np.empty((count, *shape)), np.empty((count, *shape, 2))
    total, done, num_draws = np.zeros(()), 0, 0
    for piece in pieces:
        here = slice(done, done + piece.shape[1])
        values = piece.astype(np.float64)
        mean[here] = values.mean(axis=0)
        bounds[here] = interval(values, probability, axis=0)
        total, done, num_draws = total + values.sum(axis=1), here.stop, len(values)
    average = total / count
    attrs = {"probability": probability, "interval": kind, "draws": num_draws}
    return _Summaries(
        mean, bounds, average.mean(axis=0), interval(average, probability, axis=0), attrs
    )


def _dataset(
    found: _Summaries, dims: tuple[str, ...], coords: dict[str, list[str]], of: str
) -> xr.Dataset:
    bound = ("ci_bound",)
    return xr.Dataset(
        {
            "mean": (("query", *dims), found.mean),
            "interval": (("query", *dims, *bound), found.interval),
            "overall_mean": (dims, found.overall_mean),
            "overall_interval": ((*dims, *bound), found.overall_interval),
        },
        coords={"query": np.arange(len(found.mean)), **coords, "ci_bound": ["lower", "upper"]},
        attrs={**found.attrs, "predicts": of},
    )

"""How a learning policy keeps its posterior: updated in every round, or refitted on a schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray

from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference import online_memory
from cqbayes.inference.infer import engine_names, load_engine
from cqbayes.inference.online import relinearised, update
from cqbayes.posterior.info import Status
from cqbayes.posterior.online_gaussian import OnlineGaussian, prior
from cqbayes.posterior.online_memory import OnlineMemory
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, Sizes, check_data, load_model

QUEUE_COLUMNS = ("attempt", "failures")  # optional columns that the queue's rows have


class Believed(NamedTuple):
    """A posterior, and how many of its updates failed.

    ``failures`` counts refits whose engine reported a failure, and rows that offered more LLMs than
    the policy's slate holds. After a failure the posterior stays as it was. A first fit that failed
    is counted but used: no earlier posterior exists. Refits run an engine's ``fit`` alone, without
    the diagnostics of its ``check``.
    """

    posterior: Posterior
    failures: Int[Array, ""]


class Belief(NamedTuple):
    """Functions that start, update and refit a posterior: a policy's way to learn.

    They are as in :class:`cqbayes.policies.policy.Policy`, except that ``update`` takes one more
    argument, the first: the maximum number of LLMs that a row offers. ``spread`` is what Thompson
    draws are scaled by, where a policy is not told another ``alpha``.
    """

    init: Callable[[PRNGKeyArray], Believed]
    update: Callable[[int, PRNGKeyArray, Believed, ChoiceData], Believed]
    refit: Callable[[PRNGKeyArray, Believed, ChoiceData], Believed] | None = None
    spread: float = 1.0


def fixed(posterior: Posterior) -> Belief:
    """A belief that never changes: a posterior as deployed between two fits of a log."""
    return Belief(init=Partial(_start, posterior), update=_keep)


def online(
    model: PreferenceModel,
    sizes: Sizes,
    log: ChoiceData | None = None,
    relinearise: bool = False,
) -> Belief:
    """A belief that is an online Gaussian, updated in every round; ACQB's default.

    Args:
        model: a disjoint linear model.
        sizes: numbers of LLMs and context dimensions.
        log: earlier choices to start from.
        relinearise: whether a Laplace fit to all rows corrects the Gaussian whenever the driver
            asks for a refit. Without this, every round costs the same and no history is kept, but
            the Gaussian drifts from the exact posterior (:mod:`cqbayes.inference.online`).

    Raises:
        InputError: if the model is not disjoint and linear.
    """
    begin = prior(model, sizes)
    if log is not None:
        check_data(model, log)
        begin = jax.jit(update)(begin, log)
    before = _nothing(model, sizes) if log is None else log.only(model.needs)
    refit = Partial(_relinearise, model, before) if relinearise else None
    return Belief(init=Partial(_start, begin), update=_update_online, refit=refit)


def memory(
    sizes: Sizes,
    log: ChoiceData | None = None,
    *,
    model: PreferenceModel | None = None,
    members: tuple[online_memory.Member, ...] = online_memory.MEMBERS,
) -> Belief:
    """A belief that knows which LLMs answered each waiting query in vain.

    Args:
        sizes: numbers of LLMs and context dimensions.
        log: earlier choices to start from, with ``failures``.
        model: a :mod:`cqbayes.models.failures_mnl`.
        members: the priors that are averaged over, each weighed by its evidence.

    Raises:
        InputError: if the log has no failures, or rows of other weights than 0 and 1.
    """
    model = load_model("failures_mnl") if model is None else model
    begin = online_memory.prior(model, sizes, members)
    if log is not None:
        check_data(model, log)
        weight = np.asarray(log.weight)
        if not np.isin(weight, (0, 1)).all():
            raise InputError(
                "log: expected a row for each service, of weight 1 (or 0), got a weight of "
                f"{weight[~np.isin(weight, (0, 1))][0]:.3g}"
            )
        most = int(np.asarray(log.offered)[weight > 0].sum(axis=1).max())
        begin = jax.jit(online_memory.update, static_argnums=2)(begin, log, most)
    # Draws need not try other LLMs for the sake of a query that failed: memory does.
    return Belief(init=Partial(_start, begin), update=_update_memory, spread=0.5)


def _update_memory(
    slate_size: int, key: PRNGKeyArray, state: Believed, rows: ChoiceData
) -> Believed:
    too_many = jnp.sum((rows.weight > 0) & (jnp.sum(rows.offered, axis=-1) > slate_size))
    assert isinstance(state.posterior, OnlineMemory)
    return Believed(
        online_memory.update(state.posterior, rows, slate_size), state.failures + too_many
    )


def _relinearise(
    model: PreferenceModel,
    before: ChoiceData,
    key: PRNGKeyArray,
    state: Believed,
    history: ChoiceData,
) -> Believed:
    assert isinstance(state.posterior, OnlineGaussian)
    posterior, good = relinearised(state.posterior, _joined(model, before, history))
    return Believed(posterior, state.failures + ~good)


def _joined(model: PreferenceModel, before: ChoiceData, history: ChoiceData) -> ChoiceData:
    needed = history.only(model.needs)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, needed)


def _start(posterior: Posterior, key: PRNGKeyArray) -> Believed:
    return Believed(posterior, jnp.array(0))


def _update_online(
    slate_size: int, key: PRNGKeyArray, state: Believed, rows: ChoiceData
) -> Believed:
    too_many = jnp.sum((rows.weight > 0) & (jnp.sum(rows.offered, axis=-1) > slate_size))
    assert isinstance(state.posterior, OnlineGaussian)
    return Believed(update(state.posterior, rows, slate_size), state.failures + too_many)


def refitted(
    fit: Callable[..., Any],
    model: PreferenceModel,
    sizes: Sizes,
    log: ChoiceData | None = None,
    **settings: Any,
) -> Belief:
    """A belief that an engine refits whenever the driver asks; it is unchanged in between.

    Args:
        fit: an engine's ``fit``, such as ``load_engine("laplace").fit``.
        model: any model that the engine can run.
        sizes: numbers of LLMs and context dimensions.
        log: earlier choices, kept in every refit. Without one the policy starts from the prior.
        settings: further settings of the engine.

    Raises:
        InputError: if the model needs columns that the queue's rows lack.
    """
    absent = [name for name in model.needs if name not in QUEUE_COLUMNS]
    if absent:
        raise InputError(
            f"{model.name or 'model'}: expected a model that needs only the columns of the queue's "
            f"rows, context and {', '.join(QUEUE_COLUMNS)}; got one that needs {absent[0]}"
        )
    if log is not None:
        check_data(model, log)
    before = _nothing(model, sizes) if log is None else log.only(model.needs)
    engine = Partial(fit, **settings)
    return Belief(
        init=Partial(_fit_first, engine, model, before),
        update=_keep,
        refit=Partial(_refit, engine, model, before),
    )


def _nothing(model: PreferenceModel, sizes: Sizes) -> ChoiceData:
    """A row of weight zero, with the columns that the model needs."""
    row = ChoiceData(
        context=jnp.zeros((1, sizes.dim)),
        offered=jnp.zeros((1, sizes.num_llms), bool),
        choice=jnp.zeros(1, jnp.int32),
        weight=jnp.zeros(1),
        attempt=jnp.ones(1, jnp.int32),
        failures=jnp.zeros((1, sizes.num_llms), jnp.int32),
    )
    return row.only(model.needs)


def _fit_first(
    engine: Any, model: PreferenceModel, before: ChoiceData, key: PRNGKeyArray
) -> Believed:
    posterior, info = engine(key, model, before)
    return Believed(posterior, (info.status != Status.OK).astype(int))


def _keep(slate_size: int, key: PRNGKeyArray, state: Believed, rows: ChoiceData) -> Believed:
    return state


def _refit(
    engine: Any,
    model: PreferenceModel,
    before: ChoiceData,
    key: PRNGKeyArray,
    state: Believed,
    history: ChoiceData,
) -> Believed:
    rows = _joined(model, before, history)
    posterior, info = engine(key, model, rows, state.posterior)
    good = info.status == Status.OK
    # Never route on a posterior whose own engine reports a failure.
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), posterior, state.posterior)
    return Believed(kept, state.failures + ~good)


def check_posterior(posterior: str) -> None:
    """Refuses a name that is neither ``memory`` nor an engine for policies."""
    # The engine auto decides by diagnostics, which refits do not run.
    known = ["memory", *(name for name in engine_names() if name != "auto")]
    if posterior not in known:
        raise InputError(f"posterior: expected one of {', '.join(known)}, got {posterior!r}")


def belief_by_name(posterior: str, sizes: Sizes) -> Belief:
    """A belief with memory, or the disjoint model's, updated online or refitted by an engine."""
    check_posterior(posterior)
    if posterior == "memory":
        return memory(sizes)
    model = load_model("disjoint_mnl")
    if posterior == "online":
        return online(model, sizes)
    engine = load_engine(posterior)
    # Enough draws for a Thompson step, which takes one; too few for tail probabilities.
    settings: dict[str, dict[str, Any]] = {
        "nuts": {"num_warmup": 150, "num_draws": 150, "num_chains": 1},
        "hmc": {"num_chains": 4, "num_draws": 100},
    }
    return refitted(engine.fit, model, sizes, **settings.get(posterior, {}))

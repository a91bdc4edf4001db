"""How a learning policy keeps its posterior: updated in every round, or refitted on a schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray

from cqbayes.choice import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference import Status
from cqbayes.inference.online import OnlineGaussian, prior, relinearised, update
from cqbayes.posterior import Posterior
from cqbayes.preference import PreferenceModel, Sizes, check_data

QUEUE_COLUMNS = ("attempt",)  # optional columns that the queue's rows have


class Believed(NamedTuple):
    """A posterior, and how often it could not be brought up to date and stayed as it was.

    That is: refits whose engine reported a failure, and rows that offered more LLMs than the
    policy's slate holds. A first fit that failed is counted but used: there is nothing before it.
    Refits run an engine's ``fit`` alone, without the diagnostics of its ``check``.
    """

    posterior: Posterior
    failures: Int[Array, ""]


class Belief(NamedTuple):
    """``init`` and ``refit`` as in :class:`cqbayes.policies.Policy`, and the same for ``update``.

    ``update`` takes first the most LLMs that a row offers, which a policy knows beforehand.
    """

    init: Callable[[PRNGKeyArray], Believed]
    update: Callable[[int, PRNGKeyArray, Believed, ChoiceData], Believed]
    refit: Callable[[PRNGKeyArray, Believed, ChoiceData], Believed] | None = None


def fixed(posterior: Posterior) -> Belief:
    """A posterior that stays as it is: what is deployed between two fits of a log."""
    return Belief(init=Partial(_start, posterior), update=_keep)


def online(
    model: PreferenceModel,
    sizes: Sizes,
    log: ChoiceData | None = None,
    relinearise: bool = False,
) -> Belief:
    """The online Gaussian, updated in every round; ACQB's default.

    Args:
        model: a disjoint linear model.
        sizes: numbers of LLMs and context dimensions.
        log: earlier choices to start from.
        relinearise: whether it is set right by a Laplace fit to all rows whenever the driver calls
            for refits. Without, it costs the same in every round and keeps no history, and drifts
            from the exact posterior as :mod:`cqbayes.inference.online` says.

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
    """Refitted by an engine whenever the driver says so; unchanged in between.

    Args:
        fit: an engine's ``fit``, such as ``load_engine("laplace").fit``.
        model: any model that the engine can run.
        sizes: numbers of LLMs and context dimensions.
        log: earlier choices, kept in every refit. Without one the policy starts from the prior.
        settings: the engine's own.

    Raises:
        InputError: if the model needs columns that the queue's rows lack.
    """
    absent = [name for name in model.needs if name not in QUEUE_COLUMNS]
    if absent:
        raise InputError(
            f"{model.name or 'model'}: expected a model of what the queue shows, "
            f"{', '.join(QUEUE_COLUMNS)} besides the context; it needs {absent[0]}"
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

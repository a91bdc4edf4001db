"""Inference with any engine by name: :func:`infer` and :func:`load_engine`."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from cqbayes._tools import discovery
from cqbayes._tools.jit_cache import forget_when_many
from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.inference.engine import Engine, _check_settings, _settings_of, run_engine
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.log_densities import with_terms
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel, check_data, sizes_of


def infer(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    *,
    engine: str = "nuts",
    start: Posterior | None = None,
    **settings: Any,
) -> tuple[Posterior, InferenceInfo]:
    """The posterior of a preference model given choices, and the engine's report on it.

    Args:
        key: a JAX random key.
        model: a preference model, such as :func:`cqbayes.load_model` gives.
        data: the choices.
        engine: ``auto``, ``laplace``, ``hmc``, ``nuts``, ``svi`` or ``online``.
        start: an earlier posterior of the same model; the search begins near it. It never counts as
            information. Engines that do not search ignore it.
        settings: settings of the engine, such as ``num_draws=1000`` for nuts.

    Returns:
        The posterior, and the engine's report: look at ``info.ok``.

    Raises:
        InputError: for an unknown engine or setting, or an engine that cannot run this model.

    Example:
        >>> import jax, cqbayes
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True], [True]], [1, 0])
        >>> posterior, info = cqbayes.infer(
        ...     jax.random.key(0), cqbayes.load_model("disjoint_mnl"), data, engine="laplace")
        >>> info.engine
        'laplace'
    """
    if not isinstance(model, PreferenceModel) or not isinstance(data, ChoiceData):
        raise InputError(
            "infer: expected a PreferenceModel and ChoiceData, "
            f"got {type(model).__name__} and {type(data).__name__}"
        )
    chosen = load_engine(engine)
    known = [*_settings_of(chosen.fit), *_settings_of(chosen.check)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InputError(
            f"engine {engine}: expected settings among {', '.join(known) or 'none'}, "
            f"got {', '.join(unknown)}"
        )
    _check_settings(engine, chosen, settings)
    _check_key(key)
    check_data(model, data)
    if start is not None and not isinstance(start, Posterior):
        raise InputError(f"start: expected a posterior, got {type(start).__name__}")
    if start is not None and (start.model, start.sizes) != (model, sizes_of(data)):
        raise InputError(
            f"start: expected a posterior of {model!r} at {sizes_of(data)}, "
            f"got one of {start.model!r} at {start.sizes}"
        )
    forget_when_many()
    return run_engine(chosen, key, model, with_terms(model, data), start, settings)


def _check_key(key: Any) -> None:
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    old = np.shape(key) == (2,) and getattr(key, "dtype", None) == np.uint32
    if not (typed and key.ndim == 0) and not old:
        raise InputError("key: expected one JAX key, such as jax.random.key(0)")


def engine_names() -> list[str]:
    """Names of the files of ``inference/`` that have an ``ENGINE``."""
    return discovery.entry_names("inference", "ENGINE")


def load_engine(name: str) -> Engine:
    """The ``ENGINE`` of ``cqbayes/inference/<name>.py``.

    Raises:
        InputError: if there is no such engine; the message lists the known engines.
    """
    return discovery.find_entry("inference", "engine", name, "ENGINE").ENGINE

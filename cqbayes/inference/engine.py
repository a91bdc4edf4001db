"""The record of an inference engine, and its run: a compiled ``fit``, then a plain ``check``."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from cqbayes.choice.data import ChoiceData
from cqbayes.errors import InputError
from cqbayes.posterior.info import InferenceInfo
from cqbayes.posterior.posteriors import Posterior
from cqbayes.preference import PreferenceModel

# Smallest allowed values of integer settings, if not 1. R-hat needs four draws.
LEAST = {"num_burn_in": 0, "num_warmup": 0, "num_draws": 4}


class Engine(NamedTuple):
    """An inference engine.

    Attributes:
        fit: ``(key, model, data, start, **settings) -> (Posterior, InferenceInfo)``, pure:
            ``jit`` and ``vmap`` work. ``start`` is an earlier posterior or None.
        check: ``(key, posterior, info, model, data, **settings) -> (Posterior, InferenceInfo)``,
            run once outside ``jit``: computes diagnostics with ArviZ, and may replace the posterior
            and its status accordingly.
    """

    fit: Callable[..., tuple[Posterior, InferenceInfo]]
    check: Callable[..., tuple[Posterior, InferenceInfo]] | None = None


@eqx.filter_jit
def _fit(
    fit: Callable[..., tuple[Posterior, InferenceInfo]],
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None,
    settings: dict[str, Any],
) -> tuple[Posterior, InferenceInfo]:
    return fit(key, model, data, start, **settings)


def run_engine(
    engine: Engine,
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[Posterior, InferenceInfo]:
    """Posterior and report of an engine's compiled ``fit`` and then its ``check``."""
    fit_key, check_key = jax.random.split(key)
    settings = settings or {}
    of_fit = {name: value for name, value in settings.items() if name in _settings_of(engine.fit)}
    posterior, info = _fit(engine.fit, fit_key, model, data, start, of_fit)
    if engine.check is not None:
        of_check = {n: v for n, v in settings.items() if n in _settings_of(engine.check)}
        posterior, info = engine.check(check_key, posterior, info, model, data, **of_check)
    return posterior, info


def _check_settings(name: str, engine: Engine, settings: dict[str, Any]) -> None:
    """Refuses settings that do not fit the type of their default: counts are positive or 0."""
    parameters: dict[str, Any] = {}
    for function in (engine.fit, engine.check):
        parameters |= {} if function is None else dict(inspect.signature(function).parameters)
    for setting, value in settings.items():
        default = parameters[setting].default
        least = LEAST.get(setting, 1)
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if isinstance(default, bool):
            good, expected = isinstance(value, bool), "True or False"
        elif isinstance(default, int) or default is None:
            whole = isinstance(value, int | np.integer) and number
            good = (whole and value >= least) or (default is None and value is None)
            expected = f"an integer of at least {least}"
        elif isinstance(default, float):
            good, expected = number and 0 <= value < float("inf"), "a finite number, not negative"
        else:
            good, expected = isinstance(value, type(default)), f"a {type(default).__name__}"
        if not good:
            raise InputError(f"engine {name}: expected {setting} to be {expected}, got {value!r}")


def _settings_of(function: Callable[..., Any] | None) -> list[str]:
    """Names of the function's keywords that have a default, without ``start``."""
    if function is None:
        return []
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty and p.name != "start"]

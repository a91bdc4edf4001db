"""Inference engines, one file each, and one way to call them: :func:`infer`."""

import inspect
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from cqbayes.choice import ChoiceData
from cqbayes.compiled import forget_when_many
from cqbayes.errors import InputError
from cqbayes.posterior import Posterior
from cqbayes.preference import PreferenceModel, check_data, sizes_of


class Status(IntEnum):
    """What an engine says of its own result."""

    OK = 0
    NOT_CONVERGED = 1
    NOT_POSITIVE_DEFINITE = 2
    POOR_APPROXIMATION = 3
    POOR_MIXING = 4
    NOT_FINITE = 5

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


# Smallest values of settings that count something, where they are not 1. R-hat needs four draws.
LEAST = {"num_burn_in": 0, "num_warmup": 0, "num_draws": 4}

_MEANINGS = {
    Status.OK: "nothing found wrong",
    Status.NOT_CONVERGED: "the optimiser stopped before it converged",
    Status.NOT_POSITIVE_DEFINITE: "the curvature at the mode is not that of a peak: use nuts",
    Status.POOR_APPROXIMATION: "the Gaussian is far from the posterior (k-hat or ESS): use nuts",
    Status.POOR_MIXING: "the chains disagree or diverged: more draws, or another form of the model",
    Status.NOT_FINITE: (
        "the density is not finite: check the data's scale, and that the model allows such choices"
    ),
}


class InferenceInfo(eqx.Module):
    """For people: what an engine found out about its own result. Nothing is computed from it.

    Attributes:
        engine: name of the engine.
        status: a :class:`Status` (an array inside ``jit``).
        stats: named numbers; which ones depends on the engine.
        reason: why this engine was chosen, where one was.
    """

    engine: str = eqx.field(static=True)
    status: Int[Array, ""]
    stats: dict[str, Array]
    reason: str = eqx.field(static=True, default="")

    @property
    def verdict(self) -> Status:
        return Status(int(self.status))

    @property
    def ok(self) -> bool:
        return self.verdict == Status.OK

    def because(self, reason: str) -> "InferenceInfo":
        """The same, with the reason why this engine was chosen."""
        return InferenceInfo(self.engine, self.status, self.stats, reason)

    @property
    def scalars(self) -> dict[str, float]:
        """The stats that are single numbers."""
        return {name: float(v) for name, v in self.stats.items() if np.ndim(v) == 0}

    def __str__(self) -> str:
        chosen = f", chosen because {self.reason}" if self.reason else ""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.scalars.items())
        found = f"{self.verdict.name.lower()} ({self.verdict.meaning}{chosen})"
        return f"{self.engine}: {found}; {numbers}"


class Engine(NamedTuple):
    """An inference engine.

    Attributes:
        fit: ``(key, model, data, start, **settings) -> (Posterior, InferenceInfo)``, pure:
            ``jit`` and ``vmap`` work. ``start`` is an earlier posterior or None.
        check: ``(key, posterior, info, model, data) -> (Posterior, InferenceInfo)``, run once
            outside ``jit``: the diagnostics that come from ArviZ, and what follows from them.
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


def infer(
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    *,
    engine: str = "nuts",
    start: Posterior | None = None,
    **settings: Any,
) -> tuple[Posterior, InferenceInfo]:
    """Fits a preference model to choices.

    Args:
        key: a JAX random key.
        model: a file of ``models/``, through :func:`cqbayes.load_model`.
        data: the choices.
        engine: ``auto``, ``laplace``, ``hmc``, ``nuts``, ``svi`` or ``online``.
        start: an earlier posterior of the same model, near which to begin the search. It never
            counts as information; engines that do not search ignore it.
        settings: the engine's own, such as ``num_draws=1000`` for nuts.

    Returns:
        The posterior, and what the engine says of it: look at ``info.ok``.

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
    from cqbayes.catalogue import load_engine

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
    return run_engine(chosen, key, model, data, start, settings)


def run_engine(
    engine: Engine,
    key: PRNGKeyArray,
    model: PreferenceModel,
    data: ChoiceData,
    start: Posterior | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[Posterior, InferenceInfo]:
    """An engine's compiled ``fit``, then its ``check``, each with its own settings."""
    fit_key, check_key = jax.random.split(key)
    settings = settings or {}
    of_fit = {name: value for name, value in settings.items() if name in _settings_of(engine.fit)}
    posterior, info = _fit(engine.fit, fit_key, model, data, start, of_fit)
    if engine.check is not None:
        of_check = {n: v for n, v in settings.items() if n in _settings_of(engine.check)}
        posterior, info = engine.check(check_key, posterior, info, model, data, **of_check)
    return posterior, info


def _check_key(key: Any) -> None:
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    old = np.shape(key) == (2,) and getattr(key, "dtype", None) == np.uint32
    if not (typed and key.ndim == 0) and not old:
        raise InputError("key: expected one JAX key, such as jax.random.key(0)")


def _check_settings(name: str, engine: Engine, settings: dict[str, Any]) -> None:
    """By what their defaults are: counts are at least 1 or 0, other numbers finite."""
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
    """Keywords with a default, other than ``start``."""
    if function is None:
        return []
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty and p.name != "start"]

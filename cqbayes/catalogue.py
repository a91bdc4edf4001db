"""Finds models, engines, policies and data sets by name: one file or folder is one entry."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cqbayes.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cqbayes.answers import Answers
    from cqbayes.datasets import Card
    from cqbayes.environments.scores import ScoreTable
    from cqbayes.inference import Engine
    from cqbayes.logs.records import Importer
    from cqbayes.policies import Policy, Setup
    from cqbayes.preference import PreferenceModel


# Arguments of functions that make policies which are not settings: they come from the setup.
_GIVEN = ("belief", "num_llms", "dim", "sizes", "slate_size", "population", "truth", "rounds")


def names(package: str) -> list[str]:
    """Names of the entries of ``models``, ``inference``, ``policies`` or ``data``."""
    module = importlib.import_module(f"cqbayes.{package}")
    return sorted(entry.name for entry in pkgutil.iter_modules(module.__path__))


def _load(package: str, kind: str, name: str, attribute: str, *default: Any) -> Any:
    known = names(package)
    if name not in known:
        raise InputError(f"{kind}: expected one of {', '.join(known)}, got {name!r}")
    return getattr(importlib.import_module(f"cqbayes.{package}.{name}"), attribute, *default)


def load_model(name: str) -> "PreferenceModel":
    """The ``MODEL`` of ``models/<name>.py``.

    Raises:
        InputError: names the models that there are.
    """
    return _load("models", "model", name, "MODEL")


def model_factory(name: str) -> "Callable[..., PreferenceModel]":
    """The function of ``models/<name>.py`` that makes the model with given settings."""
    return _load("models", "model", name, name)


def load_engine(name: str) -> "Engine":
    """The ``ENGINE`` of ``cqbayes/inference/<name>.py``."""
    return _load("inference", "engine", name, "ENGINE")


def load_scores(
    name: str, dim: int = 16, *, method: str = "pca", progress: bool = False, **settings: Any
) -> "ScoreTable":
    """The score table of ``data/<name>/``, with contexts of ``dim`` dimensions.

    Args:
        name: of the data set.
        dim: dimensions of a context.
        method: how text becomes contexts, fitted to the training queries: any of
            :data:`cqbayes.embeddings.METHODS`. A data set that comes with contexts has its own.
        progress: whether to show a bar while text is embedded.
        settings: further keywords of the data set's ``answers``.

    Raises:
        InputError: for a data set that has no scores, or whose files are not there, for an unknown
            method, and for settings where contexts are made already.
    """
    from cqbayes.embeddings import METHODS, contexts

    check_scores(name)
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    load = _load("data", "data set", name, "load", None)
    if load is not None:
        if settings:
            raise InputError(f"{name}: expected no settings but dim, got {', '.join(settings)}")
        return load(dim=dim)
    answers = load_answers(name, **settings)
    return contexts(answers, dim, method=method, progress=progress).table


def has_text(name: str) -> bool:
    """Whether a data set has queries in words."""
    return _load("data", "data set", name, "answers", None) is not None


def has_scores(name: str) -> bool:
    """Whether a data set has scores of LLMs, and is not a log of conversations."""
    return has_text(name) or _load("data", "data set", name, "load", None) is not None


def check_scores(name: str) -> None:
    """Refuses a data set without scores.

    Raises:
        InputError: says how the data set can be read.
    """
    if not has_scores(name):
        raise InputError(
            f"{name}: expected a data set with scores of LLMs, this one has conversations only; "
            f"cqbayes.data.{name}.turns() reads them"
        )


def load_answers(name: str, **settings: Any) -> "Answers":
    """The queries of ``data/<name>/`` in words, with scores.

    Args:
        name: of the data set.
        settings: further keywords of its ``answers``.

    Raises:
        InputError: for a data set that has no scores or no text, or whose files are not there.
    """
    check_scores(name)
    if not has_text(name):
        raise InputError(f"{name}: expected a data set with text, this one has contexts only")
    return _load("data", "data set", name, "answers")(**settings)


def load_card(name: str) -> "Card":
    """The ``CARD`` of ``data/<name>/``: what it is, and which files it needs."""
    return _load("data", "data set", name, "CARD")


def importer_names() -> list[str]:
    """Log formats that can be read: files of ``cqbayes/logs`` that have an ``IMPORTER``."""
    return [
        name
        for name in names("logs")
        if hasattr(importlib.import_module(f"cqbayes.logs.{name}"), "IMPORTER")
    ]


def load_importer(name: str) -> "Importer":
    """The ``IMPORTER`` of ``cqbayes/logs/<name>.py``.

    Raises:
        InputError: names the formats that there are.
    """
    known = importer_names()
    if name not in known:
        raise InputError(f"log format: expected one of {', '.join(known)}, got {name!r}")
    return importlib.import_module(f"cqbayes.logs.{name}").IMPORTER


def policy_names() -> list[str]:
    """Policies that :func:`load_policy` can build, besides ``fifo_<any of them>``."""
    return [
        name
        for name in names("policies")
        if hasattr(importlib.import_module(f"cqbayes.policies.{name}"), "build")
    ]


def check_policy_name(name: str) -> str:
    """The policy's own name, without ``fifo_``.

    Raises:
        InputError: names the policies that there are.
    """
    rule = name.removeprefix("fifo_")
    known = policy_names()
    if rule not in known:
        raise InputError(
            f"policy: expected one of {', '.join(known)}, or fifo_ before one, got {name!r}"
        )
    return rule


def load_policy(name: str, setup: "Setup", settings: Mapping[str, Any] | None = None) -> "Policy":
    """Builds a policy by name; ``fifo_<name>`` lets it route but serves in order of arrival.

    Only policies that declare it get to see ``setup.truth``.

    Args:
        name: of the policy.
        setup: what it may use.
        settings: keywords of its ``build``, or else of the function of its own name, whose other
            arguments are taken from the setup.
    """
    rule = check_policy_name(name)
    module = importlib.import_module(f"cqbayes.policies.{rule}")
    seen = setup if needs_truth(rule) else setup._replace(truth=None)
    policy = _configured(rule, seen, settings) if settings else module.build(seen)
    if rule == name:
        return policy
    return importlib.import_module("cqbayes.policies.fifo").fifo(policy)


def _from_setup(setup: "Setup") -> dict[str, Any]:
    """What functions that make policies call the parts of a setup."""
    return {
        **setup._asdict(),
        "num_llms": setup.sizes.num_llms,
        "dim": setup.sizes.dim,
        "population": setup.truth,
        "rounds": setup.horizon,
    }


def _factory(rule: str) -> tuple[Any, bool]:
    """What takes a policy's settings, and whether that is ``build``."""
    module = importlib.import_module(f"cqbayes.policies.{rule}")
    if len(inspect.signature(module.build).parameters) > 1:
        return module.build, True
    return getattr(module, rule, None), False


def policy_settings(name: str) -> list[str]:
    """The keywords that :func:`load_policy` takes for a policy."""
    factory, is_build = _factory(check_policy_name(name))
    parameters = list(inspect.signature(factory).parameters) if factory else []
    given = ("setup",) if is_build else _GIVEN
    return [parameter for parameter in parameters if parameter not in given]


def _configured(rule: str, setup: "Setup", settings: Mapping[str, Any]) -> "Policy":
    known = policy_settings(rule)
    unknown = [name for name in settings if name not in known]
    if unknown:
        taken = f"one of {', '.join(known)}" if known else "none"
        raise InputError(f"settings of {rule}: expected {taken}, got {unknown[0]!r}")
    factory, is_build = _factory(rule)
    if is_build:
        return factory(setup, **settings)
    parameters = inspect.signature(factory).parameters
    given = {name: part for name, part in _from_setup(setup).items() if name in parameters}
    return factory(**{**given, **settings})


def needs_truth(name: str) -> bool:
    """Whether a policy is built with the true utilities, as the oracle is."""
    module = importlib.import_module(f"cqbayes.policies.{name.removeprefix('fifo_')}")
    return getattr(module, "NEEDS_TRUTH", False)

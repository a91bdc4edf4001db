"""Finds models, engines, policies and data sets by name: one file or folder is one entry."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from cqbayes.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cqbayes.environments.scores import ScoreTable
    from cqbayes.inference import Engine
    from cqbayes.policies import Policy, Setup
    from cqbayes.preference import PreferenceModel


def names(package: str) -> list[str]:
    """Names of the entries of ``models``, ``inference``, ``policies`` or ``data``."""
    module = importlib.import_module(f"cqbayes.{package}")
    return sorted(entry.name for entry in pkgutil.iter_modules(module.__path__))


def _load(package: str, kind: str, name: str, attribute: str) -> Any:
    known = names(package)
    if name not in known:
        raise InputError(f"{kind}: expected one of {', '.join(known)}, got {name!r}")
    return getattr(importlib.import_module(f"cqbayes.{package}.{name}"), attribute)


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


def load_scores(name: str, dim: int = 16) -> "ScoreTable":
    """The score table of ``data/<name>/``, with contexts of ``dim`` dimensions."""
    return _load("data", "data set", name, "load")(dim=dim)


def policy_names() -> list[str]:
    """Policies that :func:`load_policy` can build, besides ``fifo_<any of them>``."""
    return [
        name
        for name in names("policies")
        if hasattr(importlib.import_module(f"cqbayes.policies.{name}"), "build")
    ]


def load_policy(name: str, setup: "Setup") -> "Policy":
    """Builds a policy by name; ``fifo_<name>`` lets it route but serves in order of arrival.

    Only policies that declare it get to see ``setup.truth``.
    """
    rule = name.removeprefix("fifo_")
    known = policy_names()
    if rule not in known:
        raise InputError(
            f"policy: expected one of {', '.join(known)}, or fifo_ before one, got {name!r}"
        )
    module = importlib.import_module(f"cqbayes.policies.{rule}")
    policy = module.build(setup if needs_truth(rule) else setup._replace(truth=None))
    if rule == name:
        return policy
    return importlib.import_module("cqbayes.policies.fifo").fifo(policy)


def needs_truth(name: str) -> bool:
    """Whether a policy is built with the true utilities, as the oracle is."""
    module = importlib.import_module(f"cqbayes.policies.{name.removeprefix('fifo_')}")
    return getattr(module, "NEEDS_TRUTH", False)

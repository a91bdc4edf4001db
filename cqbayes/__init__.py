"""Bayesian preference models of user retrials, and queueing bandits that route and schedule LLMs.

Names are imported when they are first used, so that ``import cqbayes`` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ChoiceData": "choice",
    "InputError": "errors",
    "MNL": "choice",
    "Setup": "policies",
    "Sizes": "preference",
    "choice_data": "choice",
    "fit": "logs.fitting",
    "growth_exponent": "regret",
    "infer": "inference",
    "load_answers": "catalogue",
    "load_engine": "catalogue",
    "load_model": "catalogue",
    "load_policy": "catalogue",
    "load_posterior": "storage",
    "load_scores": "catalogue",
    "performance": "regret",
    "program": "preference",
    "read_choices": "logs",
    "read_log": "logs.fitting",
    "regrets": "regret",
    "retrial_queue": "environments.queue",
    "save_posterior": "storage",
    "sizes_of": "preference",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from cqbayes.catalogue import (
        load_answers,
        load_engine,
        load_model,
        load_policy,
        load_scores,
    )
    from cqbayes.choice import MNL, ChoiceData, choice_data
    from cqbayes.environments.queue import retrial_queue
    from cqbayes.errors import InputError
    from cqbayes.inference import infer
    from cqbayes.logs import read_choices
    from cqbayes.logs.fitting import fit, read_log
    from cqbayes.policies import Setup
    from cqbayes.preference import Sizes, program, sizes_of
    from cqbayes.regret import growth_exponent, performance, regrets
    from cqbayes.storage import load_posterior, save_posterior


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cqbayes' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cqbayes.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

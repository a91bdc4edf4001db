"""Data sets of the folder ``data/`` by name: one folder is one data set."""

from importlib.util import find_spec
from typing import Any

from cqbayes.datasets.contexts import contexts
from cqbayes.datasets.files import data_set_module, missing
from cqbayes.datasets.score_table import ScoreTable
from cqbayes.datasets.text_scores import TextScores
from cqbayes.embeddings.methods import METHODS
from cqbayes.errors import InputError


def load_scores(
    name: str, dim: int = 16, *, method: str = "pca", progress: bool = False, **settings: Any
) -> ScoreTable:
    """The score table of ``data/<name>/``, with contexts of ``dim`` dimensions.

    Args:
        name: of the data set.
        dim: dimensions of a context.
        method: how text becomes contexts, fitted to the training queries: any of
            :data:`cqbayes.embeddings.methods.METHODS`. A data set that comes with contexts has its
            own.
        progress: whether to show a bar while text is embedded.
        settings: further keywords of the data set's ``answers``.

    Raises:
        InputError: for a data set that has no scores, or whose files are not there, for an unknown
            method, and for settings where contexts are made already.
    """
    check_has_scores(name)
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    load = getattr(data_set_module(name), "load", None)
    if load is not None:
        if settings:
            raise InputError(f"{name}: expected no settings but dim, got {', '.join(settings)}")
        return load(dim=dim)
    answers = load_text_scores(name, **settings)
    return contexts(answers, dim, method=method, progress=progress).table


def has_text(name: str) -> bool:
    """Whether a data set has queries in words."""
    return hasattr(data_set_module(name), "answers")


def has_scores(name: str) -> bool:
    """Whether a data set has scores of LLMs, and is not a log of conversations."""
    return has_text(name) or hasattr(data_set_module(name), "load")


def check_has_scores(name: str) -> None:
    """Refuses a data set without scores.

    Raises:
        InputError: says how the data set can be read.
    """
    if not has_scores(name):
        raise InputError(
            f"{name}: expected a data set with scores of LLMs, this one has conversations only; "
            f"cqbayes.data.{name}.turns() reads them"
        )


def load_text_scores(name: str, **settings: Any) -> TextScores:
    """The queries of ``data/<name>/`` in words, with scores.

    Args:
        name: of the data set.
        settings: further keywords of its ``answers``.

    Raises:
        InputError: for a data set that has no scores or no text, or whose files are not there.
    """
    check_has_scores(name)
    if not has_text(name):
        raise InputError(f"{name}: expected a data set with text, this one has contexts only")
    return data_set_module(name).answers(**settings)


def lacking(name: str) -> list[str]:
    """What it takes to make contexts of a data set and is not there: files, or the extra embed."""
    has_encoder = not has_text(name) or find_spec("sentence_transformers")
    return missing(name) or ([] if has_encoder else ["cqbayes[embed]"])

"""From text to contexts: a frozen sentence encoder, then a projection fitted on training queries.

The only place that imports PyTorch, where it is used (extra ``embed``).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cqbayes.answers import Answers, score_table
from cqbayes.embeddings.contrastive import Curve, contrastive
from cqbayes.embeddings.encoder import Encoder, embed, load_encoder
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Projection, raw
from cqbayes.embeddings.supervised import supervised
from cqbayes.environments.scores import ScoreTable
from cqbayes.errors import InputError

METHODS = ("contrastive", "supervised", "pca", "raw")


class Contexts(NamedTuple):
    """Answers with contexts, and what made these.

    Attributes:
        table: the scores with contexts of all queries, training and held-out ones.
        projection: fitted to training queries alone.
        curve: of the training, where there was one.
    """

    table: ScoreTable
    projection: Projection
    curve: Curve | None = None


def contexts(
    answers: Answers,
    dim: int,
    *,
    method: str = "contrastive",
    seed: int = 0,
    encoder: Encoder | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> Contexts:
    """Contexts of all queries, by a projection that has seen the training split only.

    Args:
        answers: queries in words, with scores.
        dim: of the contexts; "raw" keeps the embedding's own and needs none.
        method: one of ``METHODS``.
        seed: decides the training of "contrastive".
        encoder: the default one where absent.
        folder: of the cache of embeddings.
        progress: whether to show bars.
        settings: further keywords of :func:`cqbayes.embeddings.contrastive.contrastive`.

    Raises:
        InputError: for an unknown method, a missing split, or too many dimensions.
    """
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    encoder = load_encoder() if encoder is None else encoder
    embedding = embed(list(answers.text), encoder, folder=folder, progress=progress)
    train = answers.split == "train"
    if not train.any():
        raise InputError(f"{answers.name}: expected training queries, got none")
    projection, curve = fit_projection(
        embedding[train],
        answers.score[train],
        dim,
        method,
        encoder=encoder.name,
        seed=seed,
        progress=progress,
        **settings,
    )
    return Contexts(score_table(answers, projection(embedding)), projection, curve)


def fit_projection(
    embedding: np.ndarray,
    score: np.ndarray,
    dim: int,
    method: str,
    *,
    encoder: str,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> tuple[Projection, Curve | None]:
    """A projection of training queries by any of ``METHODS``; arguments as there."""
    if method == "contrastive":
        return contrastive(
            embedding, score, dim, encoder=encoder, seed=seed, progress=progress, **settings
        )
    if method == "supervised":
        return supervised(embedding, score, dim, encoder=encoder), None
    if method == "pca":
        return pca(embedding, dim, encoder=encoder), None
    return raw(embedding.shape[1], encoder=encoder), None

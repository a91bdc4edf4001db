"""Contexts of queries in words, by a projection that has seen their training split alone."""

from pathlib import Path
from typing import Any, NamedTuple

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.datasets.text_scores import TextScores, score_table
from cqbayes.embeddings.contrastive import Curve
from cqbayes.embeddings.encoder import Encoder, embed, load_encoder
from cqbayes.embeddings.methods import METHODS, fit_projection
from cqbayes.embeddings.projection import Projection
from cqbayes.errors import InputError


class Contexts(NamedTuple):
    """TextScores with contexts, and what made these.

    Attributes:
        table: the scores with contexts of all queries, training and held-out ones.
        projection: fitted to training queries alone.
        curve: of the training, where there was one.
    """

    table: ScoreTable
    projection: Projection
    curve: Curve | None = None


def contexts(
    answers: TextScores,
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

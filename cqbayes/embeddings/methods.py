"""Methods that fit projections from embeddings to contexts, by name."""

from typing import Any

import numpy as np

from cqbayes.embeddings.contrastive import Curve, contrastive
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Projection, raw
from cqbayes.embeddings.supervised import supervised

METHODS = ("contrastive", "supervised", "pca", "raw")


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
    """A projection fitted to training queries, and the training curve of ``contrastive``.

    Args:
        embedding, score, dim, encoder, seed, progress, settings: as for the method's own function.
        method: one of ``METHODS``.
    """
    if method == "contrastive":
        return contrastive(
            embedding, score, dim, encoder=encoder, seed=seed, progress=progress, **settings
        )
    if method == "supervised":
        return supervised(embedding, score, dim, encoder=encoder), None
    if method == "pca":
        return pca(embedding, dim, encoder=encoder), None
    return raw(embedding.shape[1], encoder=encoder), None

"""Supervised linear projection: directions of embeddings that best predict the LLMs' scores.

Partial least squares of scores on embeddings: each component has the largest covariance with the
part of the scores that earlier components leave. It is the linear baseline of contrastive
refinement.

Source: Wold, Sjöström and Eriksson, PLS-regression, 2001; scikit-learn's ``PLSRegression``.
"""

import numpy as np
from jaxtyping import Float

from cqbayes.embeddings.projection import Projection, check_training
from cqbayes.errors import InputError


def supervised(
    embedding: Float[np.ndarray, "query embedding"],
    score: Float[np.ndarray, "query llm"],
    dim: int,
    *,
    encoder: str,
) -> Projection:
    """The projection on ``dim`` components of partial least squares, each scaled to variance 1.

    Args:
        embedding: embeddings of training queries.
        score: scores of each LLM's answers to these queries, in [0, 1].
        dim: number of dimensions of the contexts.
        encoder: name of the encoder of the embeddings.

    Raises:
        InputError: for more dimensions than queries, embedding dimensions or dimensions that
            predict scores; for embeddings that are not finite or all the same; for scores outside
            [0, 1] or all the same.
    """
    check_training(embedding, score)
    if not 1 <= dim <= min(embedding.shape):
        raise InputError(
            f"dim: expected 1 to {min(embedding.shape)} for embeddings of shape "
            f"{embedding.shape}, got {dim}"
        )
    if (score == score[0]).all():
        raise InputError("scores: expected scores that differ among queries, got the same for all")
    from sklearn.cross_decomposition import (  # pyright: ignore[reportMissingImports]
        PLSRegression,
    )

    x = embedding.astype(np.float64)
    fitted = PLSRegression(n_components=dim, scale=False).fit(x, score)
    linear = fitted.x_rotations_
    spread = ((x - x.mean(axis=0)) @ linear).std(axis=0)
    if not (spread > 0).all():
        raise InputError(
            f"dim: expected at most {(spread > 0).sum()}, the number of dimensions of these "
            f"embeddings that predict scores, got {dim}"
        )
    return Projection("supervised", encoder, x.mean(axis=0), linear / spread)

"""Supervised linear projection: the directions of embeddings that say most of the LLMs' scores.

Partial least squares of scores on embeddings: each component has the largest covariance with the
scores that is left after the ones before. The linear baseline of contrastive refinement.

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
    """``dim`` components of partial least squares, scaled to one variance each.

    Args:
        embedding: of training queries.
        score: of each LLM's answer to them, in [0, 1].
        dim: of the contexts.
        encoder: name of the encoder of the embeddings.

    Raises:
        InputError: for more dimensions than there are queries or embedding dimensions or than tell
            the scores apart, and for embeddings or scores that cannot be meant.
    """
    check_training(embedding, score)
    if not 1 <= dim <= min(embedding.shape):
        raise InputError(
            f"dim: expected 1 to {min(embedding.shape)} for embeddings of shape "
            f"{embedding.shape}, got {dim}"
        )
    if (score == score[0]).all():
        raise InputError("scores: expected some that differ among queries, got all the same")
    from sklearn.cross_decomposition import (  # pyright: ignore[reportMissingImports]
        PLSRegression,
    )

    x = embedding.astype(np.float64)
    fitted = PLSRegression(n_components=dim, scale=False).fit(x, score)
    linear = fitted.x_rotations_
    spread = ((x - x.mean(axis=0)) @ linear).std(axis=0)
    if not (spread > 0).all():
        raise InputError(
            f"dim: expected at most the {(spread > 0).sum()} dimensions of these embeddings that "
            f"say something of the scores, got {dim}"
        )
    return Projection("supervised", encoder, x.mean(axis=0), linear / spread)

"""Supervised linear projection: the directions of embeddings that say most of the LLMs' scores.

Partial least squares of scores on embeddings: each component has the largest covariance with the
scores that is left after the ones before. The linear baseline of contrastive refinement.

Source: Wold, Sjöström and Eriksson, PLS-regression, 2001; scikit-learn's ``PLSRegression``.
"""

import numpy as np
from jaxtyping import Float

from cqbayes.embeddings.projection import Projection


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
    """
    from sklearn.cross_decomposition import (  # pyright: ignore[reportMissingImports]
        PLSRegression,
    )

    x = embedding.astype(np.float64)
    fitted = PLSRegression(n_components=dim, scale=False).fit(x, score)
    linear = fitted.x_rotations_
    spread = ((x - x.mean(axis=0)) @ linear).std(axis=0)
    return Projection("supervised", encoder, x.mean(axis=0), linear / spread)

"""Principal components of training queries: the baseline that does not use the LLMs' scores."""

import numpy as np
from jaxtyping import Float

from cqbayes.embeddings.projection import Projection, check_training
from cqbayes.errors import InputError


def pca(embedding: Float[np.ndarray, "query embedding"], dim: int, *, encoder: str) -> Projection:
    """The projection on the ``dim`` leading components; each has a positive largest loading.

    Args:
        embedding: embeddings of training queries.
        dim: number of dimensions of the contexts.
        encoder: name of the encoder of the embeddings.

    Raises:
        InputError: for more dimensions than there are queries or embedding dimensions, and for
            embeddings that are not finite or all the same.
    """
    check_training(embedding)
    if not 1 <= dim <= min(embedding.shape):
        raise InputError(
            f"dim: expected 1 to {min(embedding.shape)} for embeddings of shape "
            f"{embedding.shape}, got {dim}"
        )
    x = embedding.astype(np.float64)
    mean = x.mean(axis=0)
    # By the covariance matrix: there are many queries and few dimensions.
    _, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
    components = vectors[:, ::-1][:, :dim]
    largest = np.abs(components).argmax(axis=0)
    components = components * np.sign(components[largest, np.arange(dim)])
    return Projection("pca", encoder, mean, components)

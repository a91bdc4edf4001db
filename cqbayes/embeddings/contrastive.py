"""Contrastive refinement: queries on which the LLMs have similar scores get similar contexts.

A small projection head on frozen embeddings is trained with soft-label InfoNCE. The score profile
``s_i`` in ``[0, 1]^N`` holds the LLMs' scores on query ``i``. The more two profiles agree, the more
the two queries count as a positive pair::

    q_ij = softmax_{j != i}( -||s_i - s_j||^2 / (agreement D) )         target
    p_ij = softmax_{j != i}( z_i . z_j / temperature )                  from the contexts
    loss = - mean_i sum_{j != i} q_ij log p_ij  -  (the same with p = q, the least value)

over the pairs of a batch, with ``D`` the mean of ``||s_i - s_j||^2``. The temperature is learnt
with the head: with a fixed temperature, contexts first fall together and only later come apart. The
linear part of the head starts as the principal components and the hidden layer's output at zero, so
training starts from this baseline. A part of the training split is held out for validation.
Training stops when the validation loss has not fallen for some epochs, and returns the weights of
the lowest validation loss.

Source: van den Oord, Li and Vinyals, Representation learning with contrastive predictive coding,
2018. Pairs of queries by score profiles are the idea of arXiv 2602.02061; this loss is our reading.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cqbayes._tools.files import write_bytes
from cqbayes._tools.progress import progress_bar
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Hidden, Projection, check_training, digest
from cqbayes.errors import InputError


class TrainingSettings(NamedTuple):
    """Settings of the training. The defaults were chosen on parts of training splits only.

    Attributes:
        hidden: units of the hidden layer; 0 for a linear head.
        temperature: initial temperature of the contexts' similarities.
        agreement: squared difference of two profiles at which a pair counts 1 / e, in units of the
            mean over all pairs.
        batch_size: queries in a batch; pairs are formed within a batch.
        learning_rate, weight_decay: settings of AdamW.
        epochs: most epochs.
        patience: epochs without a lower validation loss after which training stops.
        validation: share of the training queries that is held out for validation.
    """

    hidden: int = 256
    temperature: float = 1.0
    agreement: float = 1.0
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    epochs: int = 200
    patience: int = 20
    validation: float = 0.15


class Curve(NamedTuple):
    """Losses after each epoch, in nats; 0 is the least possible value."""

    training: list[float]
    validation: list[float]
    best_epoch: int


def contrastive(
    embedding: Float[np.ndarray, "query embedding"],
    score: Float[np.ndarray, "query llm"],
    dim: int,
    *,
    encoder: str,
    seed: int = 0,
    settings: TrainingSettings = TrainingSettings(),  # noqa: B008  (immutable)
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> tuple[Projection, Curve]:
    """A projection by contrastive refinement, with its training curve.

    Args:
        embedding: embeddings of training queries only.
        score: scores of each LLM's answers to these queries, in [0, 1].
        dim: number of dimensions of the contexts.
        encoder: name of the encoder of the embeddings.
        seed: seed of the split, the batches and the initial hidden layer.
        settings: settings of the training.
        device: PyTorch device; if absent, a CUDA device if there is one, else the CPU.
        checkpoint: a file that is written after every epoch. If the file exists, training continues
            from it, to the same result. A checkpoint of other data or settings is refused.
        progress: whether to show a progress bar.

    Returns:
        The projection, and the training curve.

    Raises:
        InputError: for too few queries, scores outside [0, 1] or embeddings that are not finite,
            settings out of range, a checkpoint of another training, and a loss that is not finite.
    """
    import torch  # pyright: ignore[reportMissingImports]

    if len(embedding) != len(score) or len(score) < 20:
        raise InputError(
            f"contrastive: expected at least 20 embeddings with as many scores, "
            f"got {len(embedding)} and {len(score)}"
        )
    check_training(embedding, score)
    _check(settings)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    order = np.random.default_rng(seed).permutation(len(score))
    held_out = max(2, round(settings.validation * len(score)))
    parts = {"validation": order[:held_out], "training": order[held_out:]}
    start = pca(embedding[parts["training"]], dim, encoder=encoder)
    centred = embedding - start.mean
    # Scaled to a mean square norm of 1, so that one learning rate suits any encoder.
    norm = np.sqrt(np.mean(np.sum(centred[parts["training"]] ** 2, axis=1)))
    x, s = (
        {
            name: torch.as_tensor(values[rows], dtype=torch.float32, device=where)
            for name, rows in parts.items()
        }
        for values in (centred / norm, score)
    )
    made = _Training(start.linear, settings, seed, where)
    identity = _identity(embedding, score, dim, seed, settings, encoder)
    if checkpoint is not None and Path(checkpoint).exists():
        made.restore(Path(checkpoint), identity)

    # The mean over all pairs is twice the variance. It is 0 if all profiles are the same.
    scale = settings.agreement * max(2 * float(s["training"].var(dim=0).sum()), 1e-12)

    def loss(name: str, rows: Any) -> Any:
        z = made.head(x[name][rows])
        return soft_info_nce(z, s[name][rows], made.log_temperature.exp(), scale)

    with (
        _one_thread(),
        progress_bar("contrastive refinement", total=settings.epochs, show=progress) as advance,
    ):
        advance(made.epoch)
        while made.epoch < settings.epochs and made.since_best < settings.patience:
            # Batches depend on the epoch only, so that a resumed training sees the same batches.
            rng = np.random.default_rng([seed, made.epoch])
            batches = _batches(rng.permutation(len(parts["training"])), settings.batch_size)
            made.train(loss, batches)
            made.validate(loss, _batches(np.arange(held_out), settings.batch_size))
            if not np.isfinite(made.losses["validation"][-1]):
                raise InputError(
                    f"contrastive: expected a finite loss, got none in epoch {made.epoch}; try a "
                    "smaller learning_rate or a larger temperature"
                )
            if checkpoint is not None:
                write_bytes(made.saved(identity), checkpoint)
            advance(1)
    linear, *layer = made.best_arrays()[1:]
    hidden = Hidden(layer[0] / norm, *layer[1:]) if layer else None
    curve = Curve(made.losses["training"], made.losses["validation"], made.best_epoch)
    return Projection("contrastive", encoder, start.mean, linear / norm, hidden), curve


def soft_info_nce(z: Any, score: Any, temperature: Any, scale: float) -> Any:
    """The loss of one batch, a tensor; 0 if the contexts give exactly the target.

    Args:
        z: contexts ``[batch, dim]`` of any norm.
        score: profiles ``[batch, llm]``.
        temperature: temperature of the contexts' similarities.
        scale: ``agreement D`` above.
    """
    import torch  # pyright: ignore[reportMissingImports]

    z = torch.nn.functional.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)

    def logs(similarity: Any) -> Any:
        # A finite number, since 0 * -inf is NaN.
        return torch.log_softmax(similarity.masked_fill(itself, -1e9), dim=1)

    wanted = logs(-torch.cdist(score, score).square() / scale)
    found = logs(z @ z.T / temperature)
    return (wanted.exp() * (wanted - found)).sum(dim=1).mean()


def _check(settings: TrainingSettings) -> None:
    """Refuses settings that are out of range."""
    least = {"hidden": 0, "batch_size": 2, "weight_decay": 0, "epochs": 0, "patience": 1}
    for name, value in settings._asdict().items():
        if name in least and not value >= least[name]:
            raise InputError(f"{name}: expected at least {least[name]}, got {value}")
        most = 1 if name == "validation" else np.inf
        if name not in least and not 0 < value < most:
            raise InputError(f"{name}: expected a number between 0 and {most}, got {value}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits PyTorch to one thread: small matrices gain nothing from more, and results differ."""
    import torch  # pyright: ignore[reportMissingImports]

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of nearly equal size, none of a single query."""
    return np.array_split(rows, max(1, round(len(rows) / size)))


def _identity(
    embedding: Any, score: Any, dim: int, seed: int, settings: TrainingSettings, encoder: str
):
    """Facts that identify a training, so that a checkpoint of another training is noticed."""
    digest = hashlib.sha256()
    for array in (embedding, score):
        digest.update(np.ascontiguousarray(array, np.float64).tobytes())
    facts = {"data": digest.hexdigest(), "dim": dim, "seed": seed, "encoder": encoder}
    return {name: str(value) for name, value in (facts | settings._asdict()).items()}


class _Training:
    """State of a training: the head, its optimiser, losses and epoch. Mutable, as in PyTorch."""

    def __init__(
        self, linear: np.ndarray, settings: TrainingSettings, seed: int, device: Any
    ) -> None:
        import torch  # pyright: ignore[reportMissingImports]

        self.torch, self.device = torch, device
        rng = np.random.default_rng([seed, 1])
        wide, dim = linear.shape
        arrays = [np.log(settings.temperature), linear]
        if settings.hidden:
            into = rng.normal(size=(wide, settings.hidden))
            arrays += [into, np.zeros(settings.hidden), np.zeros((settings.hidden, dim))]
        self.weights = [
            torch.tensor(array, dtype=torch.float32, device=device, requires_grad=True)
            for array in arrays
        ]
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.epoch, self.best_epoch = 0, 0
        self.best = [w.detach().clone() for w in self.weights]
        self.losses: dict[str, list[float]] = {"training": [], "validation": []}

    @property
    def log_temperature(self) -> Any:
        return self.weights[0]

    def head(self, x: Any) -> Any:
        linear, *layer = self.weights[1:]
        z = x @ linear
        if layer:
            into, bias, out = layer
            inner = self.torch.nn.functional.gelu(x @ into + bias, approximate="tanh")
            z = z + inner @ out
        return z

    @property
    def since_best(self) -> int:
        return self.epoch - self.best_epoch

    def train(self, loss: Callable[[str, Any], Any], batches: list[np.ndarray]) -> None:
        total = 0.0
        for rows in batches:
            self.optimiser.zero_grad()
            value = loss("training", rows)
            value.backward()
            self.optimiser.step()
            total += float(value.detach()) * len(rows)
        self.losses["training"].append(total / sum(map(len, batches)))

    def validate(self, loss: Callable[[str, Any], Any], batches: list[np.ndarray]) -> None:
        with self.torch.no_grad():
            total = sum(float(loss("validation", rows)) * len(rows) for rows in batches)
        self.losses["validation"].append(total / sum(map(len, batches)))
        self.epoch += 1
        if self.losses["validation"][-1] <= min(self.losses["validation"]):
            self.best_epoch = self.epoch
            self.best = [w.detach().clone() for w in self.weights]

    def best_arrays(self) -> list[np.ndarray]:
        return [w.cpu().numpy().astype(np.float64) for w in self.best]

    def saved(self, identity: dict[str, str]) -> bytes:
        """The whole state as the bytes of a safetensors file."""
        from safetensors.torch import save  # pyright: ignore[reportMissingImports]

        tensors = {}
        for i, (weight, best) in enumerate(zip(self.weights, self.best, strict=True)):
            kept = self.optimiser.state[weight]
            tensors |= {f"{i}.weight": weight.detach(), f"{i}.best": best}
            tensors |= {f"{i}.{name}": kept[name] for name in _MOMENTS}
        progress = json.dumps({"epoch": self.epoch, "best_epoch": self.best_epoch, **self.losses})
        whole = _digest(progress, tensors)
        return save(tensors, {**identity, "progress": progress, "sha256": whole})

    def restore(self, path: Path, identity: dict[str, str]) -> None:
        """Sets the state to that of a checkpoint."""
        from safetensors import (  # pyright: ignore[reportMissingImports]
            SafetensorError,
            safe_open,
        )

        try:
            with safe_open(str(path), framework="pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: expected a checkpoint, got: {error}") from None
        other = [name for name, value in identity.items() if facts.get(name) != value]
        if other:
            raise InputError(
                f"{path}: expected a checkpoint of this training, got one with other "
                f"{', '.join(other)}; remove it, or name another file"
            )
        try:
            if facts["sha256"] != _digest(facts["progress"], tensors):
                raise ValueError("bits have changed")
            self._go_on(json.loads(facts["progress"]), tensors)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise InputError(
                f"{path}: expected a checkpoint, got a damaged one; remove it"
            ) from None

    def _go_on(self, progress: dict[str, Any], tensors: dict[str, Any]) -> None:
        self.epoch, self.best_epoch = progress["epoch"], progress["best_epoch"]
        self.losses = {name: progress[name] for name in self.losses}
        for i, weight in enumerate(self.weights):
            self.best[i] = tensors[f"{i}.best"].to(self.device)
            with self.torch.no_grad():
                weight.copy_(tensors[f"{i}.weight"])
            moments = {name: tensors[f"{i}.{name}"] for name in _MOMENTS}
            self.optimiser.state[weight] = {
                name: m if name == "step" else m.to(self.device) for name, m in moments.items()
            }


def _digest(progress: str, tensors: dict[str, Any]) -> str:
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return digest({**arrays, "progress": np.frombuffer(progress.encode(), np.uint8)})


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

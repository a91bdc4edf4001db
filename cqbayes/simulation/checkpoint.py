"""Simulations that can be killed: state and results so far in a folder, from which a run goes on.

A folder holds one run. Measurements are written once, a file for every few rounds; ``state`` is
replaced as a whole, and says what belongs to the run. So whenever the process dies, the folder
holds a moment of the run, and a run that went on from there ends with the same bits.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cqbayes._tools.digests import differences, fingerprint
from cqbayes._tools.files import remove_temporaries, writable_folder, write_bytes
from cqbayes._tools.provenance import provenance
from cqbayes.choice.data import ChoiceData
from cqbayes.environments.environment import Environment, Metrics
from cqbayes.errors import InputError
from cqbayes.policies.policy import Policy

Piece = tuple[Metrics, ChoiceData | None]

_STATE = "state"
_AGAIN = "use another folder, or delete this one to begin again"


class Checkpoint(NamedTuple):
    """Where a simulation keeps itself, and how often.

    Attributes:
        folder: of this run alone; made if needed. Only one process at a time may use it.
        every: rounds between two checkpoints. It may change from one call to the next.
    """

    folder: str | Path
    every: int = 10_000


class Moment(NamedTuple):
    """A run between two rounds.

    Attributes:
        done: rounds so far.
        room: places in the waiting room.
        leaves: arrays of the state of policy and environment.
        pieces: measurements of the rounds so far, in order.
    """

    done: int
    room: int
    leaves: list[np.ndarray]
    pieces: list[Piece]


def run_settings(
    key: jax.Array, policy: Policy, env: Environment, rounds: int, **settings: Any
) -> dict[str, Any]:
    """All that decides the bits of a run, by name, as it is compared when the run goes on."""
    return {
        "rounds": rounds,
        **settings,
        "key": str(jax.random.key_data(key).tolist()),
        **{f"version of {name}": version for name, version in provenance().items()},
        "device": jax.default_backend(),
        "numbers": str(jnp.result_type(float)),
        **fingerprint("policy", policy),
        **fingerprint("env", env),
    }


class Checkpoints:
    """The checkpoints of one run.

    Args:
        checkpoint: where, and how often.
        settings: of the run: :func:`run_settings`. The folder may hold a run of fewer rounds,
            which then goes on; nothing else may differ.

    Raises:
        InputError: for a folder that cannot be written to, is damaged or holds another run.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Mapping[str, Any]):
        if checkpoint.every < 1:
            raise InputError(
                f"checkpoint: expected at least one round between two, got {checkpoint.every}"
            )
        self._folder = writable_folder(checkpoint.folder)
        self._every = checkpoint.every
        self._settings = dict(settings)
        self._files: list[dict[str, Any]] = []
        self._written = 0  # pieces that are in files
        self.moment = self._read()
        self._tidy()

    def _read(self) -> Moment | None:
        path = self._folder / _STATE
        if not path.exists():
            _check_empty(self._folder)
            return None
        head, arrays = _unpack(path, _read_bytes(path))
        _check_same(self._folder, head["settings"], self._settings)
        self._files = head["files"]
        pieces = [self._read_piece(file) for file in self._files]
        self._written = len(pieces)
        return Moment(head["done"], head["room"], list(arrays.values()), pieces)

    def _read_piece(self, file: Mapping[str, Any]) -> Piece:
        path = self._folder / file["name"]
        content = _read_bytes(path)
        if hashlib.sha256(content).hexdigest() != file["sha256"]:
            raise _damaged(path)
        _, arrays = _unpack(path, content)
        return _piece(arrays)

    def _tidy(self) -> None:
        """Removes what a killed process wrote and ``state`` does not know of."""
        remove_temporaries(self._folder)
        known = {file["name"] for file in self._files}
        for path in self._folder.glob("rounds-*"):
            if path.name not in known:
                path.unlink()

    def next_stop(self, done: int) -> int:
        """The round after which the next checkpoint is due."""
        return (done // self._every + 1) * self._every

    def save(self, run: Any, pieces: Sequence[Piece], done: int, room: int) -> None:
        """Keeps a moment of the run; pieces that an earlier one had are not written again.

        Raises:
            InputError: if the disk is full. The moment before is kept.
        """
        new = pieces[self._written :]
        if new:
            joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *new)
            first = done - joined[0].served.shape[1] + 1
            name = f"rounds-{first:09}-{done:09}"
            content = _pack({}, _columns(joined))
            write_bytes(content, self._folder / name)
            digest = hashlib.sha256(content).hexdigest()
            self._files = [*self._files, {"name": name, "sha256": digest}]
            self._written = len(pieces)
        head = {"settings": self._settings, "done": done, "room": room, "files": self._files}
        leaves = {f"{place:06}": _plain(leaf) for place, leaf in enumerate(jax.tree.leaves(run))}
        write_bytes(_pack(head, leaves), self._folder / _STATE)

    def restored(self, template: Any) -> Any:
        """The run's state at :attr:`moment`.

        Args:
            template: the same state with other numbers, or only their shapes.
        """
        assert self.moment is not None
        expected, structure = jax.tree.flatten(template)
        kept = [(leaf.shape, leaf.dtype) for leaf in self.moment.leaves]
        if kept != [_kept_as(want) for want in expected]:
            raise InputError(f"{self._folder}: expected a state of other shapes; {_AGAIN}")
        found = [_like(want, leaf) for want, leaf in zip(expected, self.moment.leaves, strict=True)]
        return jax.tree.unflatten(structure, found)


def _check_empty(folder: Path) -> None:
    """Refuses a folder with files that no run has left that was killed at its beginning."""
    others = [path.name for path in folder.iterdir() if not path.name.startswith((".", "rounds-"))]
    if others:
        raise InputError(
            f"{folder}: expected an empty folder or one of a run, got one with {min(others)}"
        )


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses another run. A run of more rounds is another only if it refits differently."""
    rounds = before["rounds"]
    earlier = {**now, "refit_after": [after for after in now["refit_after"] if after < rounds]}
    if now["rounds"] > rounds:
        earlier["rounds"] = rounds
    changed = differences(before, earlier)
    if changed:
        raise InputError(f"{folder}: expected the run that is kept there: {changed}; {_AGAIN}")


def _columns(piece: Piece) -> dict[str, np.ndarray]:
    metrics, rows = piece
    named = {f"metrics.{name}": value for name, value in metrics._asdict().items()}
    named |= {f"rows.{name}": value for name, value in vars(rows).items()} if rows else {}
    return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}


def _piece(columns: Mapping[str, np.ndarray]) -> Piece:
    def of(kind: str) -> dict[str, Any]:
        return {name[len(kind) :]: x for name, x in columns.items() if name.startswith(kind)}

    rows = of("rows.")
    return Metrics(**of("metrics.")), ChoiceData(**rows) if rows else None


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _kept_as(want: Any) -> tuple[tuple[int, ...], np.dtype]:
    plain = jax.eval_shape(jax.random.key_data, want) if _is_key(want) else want
    return plain.shape, plain.dtype


def _like(want: Any, leaf: np.ndarray) -> jax.Array:
    if _is_key(want):
        return jax.random.wrap_key_data(jnp.asarray(leaf))
    return jnp.asarray(leaf)


def _pack(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A line with a digest of the rest, a line of JSON, and the arrays as NumPy writes them."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = json.dumps(head).encode() + b"\n" + buffer.getvalue()
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _unpack(path: Path, packed: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    digest, _, content = packed.partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise _damaged(path)
    head, _, arrays = content.partition(b"\n")
    with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
        return json.loads(head), {name: file[name] for name in file.files}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a part of a checkpoint, got: {error.strerror}; {_AGAIN}"
        ) from None


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a checkpoint as it was written, got a damaged file; {_AGAIN}"
    )

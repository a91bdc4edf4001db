"""Sharding: fits with rows spread over many devices.

Likelihoods are sums over rows, so devices exchange only sums of the size of the model's parameters.
No other module knows of devices: ``jit`` computes where the rows are.

On several hosts, every process calls ``jax.distributed.initialize()`` first, reads its own part of
the log, and passes that part to :func:`shard_rows`. Parts must have equally many rows (pad with
rows of weight zero). ``num_users`` and ``num_times`` must be those of the whole log. Then all
processes call ``cqbayes.infer`` with the same key and settings.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cqbayes.choice.data import ChoiceData
from cqbayes.choice.linear_likelihood import LANES
from cqbayes.errors import InputError


def row_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with one axis, ``rows``, over the given devices, or all devices of all processes."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("rows",))


def shard_rows(data: ChoiceData, mesh: Mesh | None = None) -> ChoiceData:
    """The same choices with their rows spread over the mesh, padded with rows of weight zero.

    Args:
        data: the choices; with several processes, this process's part of the choices.
        mesh: a mesh with an axis ``rows``; a mesh of all devices if absent.

    Raises:
        InputError: for a mesh without the axis ``rows``, or if the size of this axis does not
            divide 1024, the rows of a chunk.

    Example:
        >>> import cqbayes
        >>> data = cqbayes.choice_data([[1.0], [-1.0]], [[True], [True]], [1, 0])
        >>> shard_rows(data).num_obs
        1024
    """
    mesh = row_mesh() if mesh is None else mesh
    if "rows" not in mesh.shape or LANES % mesh.shape["rows"]:
        raise InputError(
            f"mesh: expected an axis called rows of a size that divides {LANES}, "
            f"got {dict(mesh.shape)}"
        )
    processes = jax.process_count()
    short = -data.num_obs % max(1, LANES // processes)

    def padded(column: Any) -> np.ndarray:
        return np.pad(np.asarray(column), [(0, short)] + [(0, 0)] * (column.ndim - 1))

    def place(column: Any) -> jax.Array:
        sharding = NamedSharding(mesh, PartitionSpec("rows"))
        return jax.make_array_from_process_local_data(sharding, padded(column))

    return jax.tree.map(place, data)

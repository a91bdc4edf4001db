"""Observations for tests of policies, made of NumPy arrays."""

import jax.numpy as jnp
import numpy as np

from cqbayes.environments.environment import Observation


def seen(
    context: np.ndarray,
    queue_length: int | None = None,
    *,
    wait: np.ndarray | None = None,
    attempts: np.ndarray | None = None,
    t: int = 40,
    servable: np.ndarray | None = None,
    priority: np.ndarray | None = None,
) -> Observation:
    """A room in which the first ``queue_length`` queries wait (all, where absent)."""
    room = len(context)
    return Observation(
        round=jnp.array(t, jnp.int32),
        queue_length=jnp.array(room if queue_length is None else queue_length, jnp.int32),
        context=jnp.asarray(context, jnp.float32),
        identity=jnp.zeros(room, jnp.int32),
        wait=jnp.asarray(np.arange(room) if wait is None else wait, jnp.int32),
        attempts=jnp.asarray(np.zeros(room) if attempts is None else attempts, jnp.int32),
        servable=None if servable is None else jnp.asarray(servable, bool),
        priority=None if priority is None else jnp.asarray(priority, jnp.float32),
    )

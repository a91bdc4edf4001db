"""Compiled code, which a long process must forget now and then."""

from pathlib import Path

import jax

MOST_MAPS = 30_000  # of the 65,530 memory maps that Linux lets a process have


def forget_when_many(most: int = MOST_MAPS) -> bool:
    """Lets JAX forget what it has compiled once that has taken many memory maps.

    A policy in a queue takes up to two thousand, and a process that runs out of them dies in the
    compiler, without an exception. What is needed again is compiled again. Call it between
    programs, never inside a traced function. Where the system does not say, nothing is forgotten.

    Args:
        most: memory maps that may stand.

    Returns:
        Whether anything was forgotten.
    """
    try:
        with Path("/proc/self/maps").open("rb") as maps:
            count = sum(1 for _ in maps)
    except OSError:  # not Linux
        return False
    if count <= most:
        return False
    jax.clear_caches()
    return True

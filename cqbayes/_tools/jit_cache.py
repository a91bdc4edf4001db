"""JAX's cache of compiled functions, which a long process must clear now and then."""

from pathlib import Path

import jax

MOST_MAPS = 30_000  # Linux lets a process have 65,530 memory maps


def forget_when_many(most: int = MOST_MAPS) -> bool:
    """Clears JAX's compiled functions if this process holds many memory maps.

    The compiled functions of one policy in a queue take up to two thousand maps. A process that
    runs out of memory maps dies in the compiler, without an exception. JAX compiles a cleared
    function again when it is called again. Call ``forget_when_many`` between programs, never inside
    a traced function. It does nothing on systems other than Linux.

    Args:
        most: number of memory maps up to which nothing is cleared.

    Returns:
        Whether the compiled functions were cleared.
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

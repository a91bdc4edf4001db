"""Who runs the cells: this process, processes on this machine, or a Ray cluster.

An engine takes cells as JSON and yields what became of each, as soon as it is known and in any
order. The bytes are the same with all of them, on machines of one kind. Only the process that
drives a sweep writes files: machines of a cluster need no common disk.
"""

import functools
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

from cqbayes.errors import InputError
from cqbayes.sweep import Cell
from cqbayes.sweep.cell import Attempt, attempt

Attempts = Generator[Attempt, None, None]
Engine = Callable[[Sequence[str], str, int | None], Attempts]


def serial(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """One cell after the other, in this process."""
    for cell in cells:
        yield attempt(cell, numbers)


def processes(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """``jobs`` processes on this machine, one for each core where None, that are used again.

    Several processes share an accelerator badly: there, set ``JAX_PLATFORMS=cpu``.

    Raises:
        InputError: if a process dies.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    settings: dict[str, Any] = {"batch_size": 1, "return_as": "generator_unordered"}
    parallel: Any = Parallel(n_jobs=jobs or -1, backend="loky", **settings)
    with warnings.catch_warnings():
        # Who stops a sweep knows that cells were under way.
        warnings.filterwarnings("ignore", r"\d+ tasks (have|which)", UserWarning)
        try:
            yield from parallel(delayed(_in_worker)(cell, numbers, os.getpid()) for cell in cells)
        except TerminatedWorkerError:
            raise InputError(
                "sweep: a process died, for want of memory perhaps; finished cells are kept: "
                "go on with the same command and fewer jobs"
            ) from None


def _in_worker(cell: str, numbers: str, parent: int) -> Attempt:
    _end_with(parent)
    return attempt(cell, numbers)


@functools.cache
def _end_with(parent: int) -> None:
    """Ends this process soon after the one that drives it, which may be killed at any time."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.getpid() != parent:  # a single job runs in the process that drives
        threading.Thread(target=watch, daemon=True).start()


def on_ray(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """A Ray cluster: the one that is connected to or ``RAY_ADDRESS`` names, or else a local one.

    Args:
        cells: as JSON.
        numbers: as for :func:`cqbayes.sweep.cell.attempt`.
        jobs: cores of a local one.

    Raises:
        InputError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "engine: expected Ray to be installed for ray: pip install 'cqbayes[cluster]'"
        ) from None

    ours = not ray.is_initialized()
    if ours:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if "RAY_ADDRESS" not in os.environ:
            settings |= {"num_cpus": jobs, "include_dashboard": False}
        ray.init(**settings)
    try:
        task = ray.remote(num_cpus=1)(attempt)
        waiting = {task.remote(cell, numbers): cell for cell in cells}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            yield _fetched(done, waiting.pop(done))
    finally:
        if ours:
            ray.shutdown()


def _fetched(done: Any, cell: str) -> Attempt:
    import ray
    from ray.exceptions import RayError

    try:
        return Attempt(*ray.get(done))
    except RayError as error:  # its process or machine died
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Attempt(Cell.model_validate_json(cell).identity(), None, reason)


ENGINES: dict[str, Engine] = {"processes": processes, "ray": on_ray, "serial": serial}

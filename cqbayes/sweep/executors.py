"""Who runs the cells: this process, processes on this machine, or a Ray cluster.

An executor takes cells as JSON and yields the result of each as soon as it is known, in any order.
On machines of one kind, all executors give the same bytes. Only the process that drives a sweep
writes files, so machines of a cluster need no common disk.
"""

import functools
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cqbayes.errors import InputError
from cqbayes.sweep.cell import Attempt, attempt
from cqbayes.sweep.settings import Cell

Attempts = Generator[Attempt, None, None]
Executor = Callable[[Sequence[str], str, int | None], Attempts]


def serial(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """Runs one cell after the other, in this process."""
    for cell in cells:
        yield attempt(cell, numbers)


def processes(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """Runs cells in ``jobs`` processes on this machine, one for each core where None.

    Each process runs many cells. A cell whose process dies is a failed cell. Which cell that was is
    not known: those that were under way are run again one at a time, and all others go on.

    Several processes share an accelerator badly: there, set ``JAX_PLATFORMS=cpu``.
    """
    from joblib import effective_n_jobs

    left = dict.fromkeys(cells)
    if effective_n_jobs(jobs or -1) == 1:
        yield from _one_at_a_time(cells, numbers)
        return
    while left:
        under_way: dict[str, str] = {}
        try:
            for done in _together([*left], numbers, jobs, under_way):
                del left[under_way.pop(done.identity)]
                yield done
        except BrokenProcessPool:
            for done in _one_at_a_time([*under_way.values()], numbers):
                del left[under_way[done.identity]]
                yield done


def _together(
    cells: Sequence[str], numbers: str, jobs: int | None, under_way: dict[str, str]
) -> Attempts:
    """Many at once; keeps in ``under_way`` which cells were begun, by identity.

    Raises:
        BrokenProcessPool: if a process dies.
    """
    from joblib import Parallel, delayed

    def begun() -> Iterator[Any]:
        for cell in cells:
            under_way[Cell.model_validate_json(cell).identity()] = cell
            yield delayed(_in_worker)(cell, numbers, os.getpid())

    settings: dict[str, Any] = {"batch_size": 1, "return_as": "generator_unordered"}
    parallel: Any = Parallel(n_jobs=jobs or -1, backend="loky", **settings)
    with warnings.catch_warnings():
        # Whoever stops a sweep knows that cells were under way: no warning is needed.
        warnings.filterwarnings("ignore", r"\d+ tasks (have|which)", UserWarning)
        yield from parallel(begun())


def _one_at_a_time(cells: Sequence[str], numbers: str) -> Attempts:
    """Runs cells in one other process, and in a new one after each that died."""
    from joblib.externals.loky import ProcessPoolExecutor

    executor = None
    try:
        for cell in cells:
            executor = executor or ProcessPoolExecutor(max_workers=1)
            try:
                yield executor.submit(_in_worker, cell, numbers, os.getpid()).result()
            except BrokenProcessPool as error:
                executor = _ended(executor)
                yield _died(cell, error)
    finally:
        _ended(executor)


def _ended(executor: Any) -> None:
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)


def _died(cell: str, error: BrokenProcessPool) -> Attempt:
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    ended = f" ({codes[1]})" if codes else ""
    reason = f"its process died{ended}, perhaps for lack of memory; make the cell smaller"
    return Attempt(Cell.model_validate_json(cell).identity(), None, reason)


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

    threading.Thread(target=watch, daemon=True).start()


def on_ray(cells: Sequence[str], numbers: str, jobs: int | None) -> Attempts:
    """Runs cells on a Ray cluster: the connected one, that of ``RAY_ADDRESS``, or a local one.

    Args:
        cells: as JSON.
        numbers: as for :func:`cqbayes.sweep.cell.attempt`.
        jobs: cores of a local cluster.

    Raises:
        InputError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor ray: expected Ray to be installed, found none; pip install 'cqbayes[cluster]'"
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


EXECUTORS: dict[str, Executor] = {"processes": processes, "ray": on_ray, "serial": serial}

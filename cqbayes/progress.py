"""A progress bar for anything that may take more than two seconds."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(
    description: str, total: float, show: bool = True, done: int = 0
) -> Iterator[Callable[[float], None]]:
    """Shows a bar on standard error, with the time to go; yields a function that advances it.

    Args:
        description: what the bar says.
        total: steps in all.
        show: whether there is a bar.
        done: steps of an earlier call, which say nothing about the speed of this one.

    Example:
        >>> with bar("rounds", total=2, show=False) as advance:
        ...     advance(2)
    """
    if not show:
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Over all that was done so far: steps may be longer than any shorter while.
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=math.inf) as progress:
        task = progress.add_task(description, total=total, completed=done)
        progress.advance(task, 0)  # the speed is measured from here, not from the first step's end
        yield lambda amount: progress.advance(task, amount)

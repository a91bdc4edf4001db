"""A progress bar for anything that may take more than two seconds."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    description: str, total: float, show: bool = True, done: int = 0
) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error with the time left; yields a function that advances it.

    Args:
        description: text beside the bar.
        total: number of steps.
        show: whether to show a bar.
        done: steps that an earlier call did: the bar starts there, and they do not count for speed.

    Example:
        >>> with progress_bar("rounds", total=2, show=False) as advance:
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
    # The speed is a mean over all steps so far: one step may take longer than any fixed window.
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=math.inf) as progress:
        task = progress.add_task(description, total=total, completed=done)
        progress.advance(task, 0)  # the speed is measured from here, not from the first step's end
        yield lambda amount: progress.advance(task, amount)

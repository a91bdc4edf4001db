"""Input from the shell to ``cqbayes fit``, and descriptions of a log and of predictions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from cqbayes.errors import InputError
from cqbayes.logs.read import Log


def parse_renames(pairs: Sequence[str]) -> dict[str, str]:
    """The ``rename`` of :func:`read_log`, from ``theirs=ours`` of the shell.

    Raises:
        InputError: for anything else, and for a column that is named twice.

    Example:
        >>> parse_renames(["a=b=query_id"])
        {'a=b': 'query_id'}
    """
    parts = [pair.rpartition("=") for pair in pairs]
    if not all(theirs and ours for theirs, _, ours in parts):
        raise InputError("rename: expected theirs=ours, such as id=query_id, got something else")
    found = {theirs: ours for theirs, _, ours in parts}
    if len(found) < len(pairs):
        raise InputError("rename: expected each column of the log once, got one twice")
    return found


def describe_log(log: Log) -> list[str]:
    """A description of a log, in lines; they hold nothing that a user wrote."""
    lines = [] if log.read is None else [str(log.read), ""]
    if log.made is not None:
        counts = ", ".join(f"{value:,} {name}" for name, value in log.made._asdict().items())
        lines += [f"turns: {counts}", ""]
    if log.inferred:
        rates = "their error rates are not known"
        if log.errors is not None:
            rates = (
                f"over all outcomes, specificity is about {_mean(log.errors.specificity):.2f}, and "
                f"retries are recognised beyond guessing about {_mean(log.errors.recognised):.2f}"
            )
        lines.append(f"note: {log.inferred:.0%} of the outcomes are inferred; {rates}")
    known = () if log.read is None else getattr(log.read, "notes", ())
    lines += [f"note: {note}" for note in log.notes if note not in known]
    lines += _counts(log)
    rows, dim = log.data.context.shape
    return [*lines, f"{rows:,} services of {len(log.llms)} LLMs, contexts of {dim} dimensions", ""]


def _counts(log: Log) -> list[str]:
    """How often each LLM was offered and taken."""
    offered = np.asarray(log.data.offered)
    taken = np.bincount(np.maximum(np.asarray(log.data.choice), 0), minlength=len(log.llms) + 1)
    table = pd.DataFrame({"offered": offered.sum(axis=0), "taken": taken[1:]}, list(log.llms))
    retried = int((np.asarray(log.data.choice) == 0).sum())
    return ["", *table.to_string().splitlines(), f"retried: {retried:,}", ""]


def _mean(beta: tuple[float, float]) -> float:
    return beta[0] / sum(beta)


def acceptance_table(found: xr.Dataset, each: bool = False) -> pd.DataFrame:
    """A prediction as a table: one row per LLM over all queries, or with ``each`` per query."""
    mean, interval = ("mean", "interval") if each else ("overall_mean", "overall_interval")
    bounds = {str(b): found[interval].sel(ci_bound=b, drop=True) for b in found["ci_bound"].values}
    return xr.Dataset({"mean": found[mean], **bounds}).to_dataframe()

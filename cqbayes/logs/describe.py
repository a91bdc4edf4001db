"""Input from the shell to ``cqbayes fit``, and descriptions of a log, a fit and predictions.

They hold nothing that a user wrote.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from cqbayes.choice.data import SILENCE
from cqbayes.errors import InputError
from cqbayes.logs.fit import Fitted
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
    """A description of a log, in lines, but for the verdict on it."""
    parts = [log.read, log.requests]
    lines = [line for part in parts if part is not None for line in (str(part), "")]
    if log.made is not None:
        made = log.made._asdict()
        if log.next_requests is not None:  # what a threshold would decide is left open
            made = {**made, "followed": made.pop("inferred")}
            made.pop("retried")
        counts = [f"{value:,} {name}" for name, value in made.items() if value]
        lines += [f"turns: {', '.join(counts)}", ""]
    lines += _counts(log)
    rows, dim = log.data.context.shape
    return [*lines, f"{rows:,} services of {len(log.llms)} LLMs, contexts of {dim} dimensions", ""]


def _counts(log: Log) -> list[str]:
    """How often each LLM was offered and taken."""
    offered = np.asarray(log.data.offered)
    taken = np.bincount(np.maximum(np.asarray(log.data.choice), 0), minlength=len(log.llms) + 1)
    table = pd.DataFrame({"offered": offered.sum(axis=0), "taken": taken[1:]}, list(log.llms))
    choice = np.asarray(log.data.choice)
    lines = [*table.to_string().splitlines(), f"retried: {int((choice == 0).sum()):,}"]
    others = {
        "no sign": int((choice == SILENCE).sum()),
        "followed by another request": int((choice < SILENCE).sum()),
    }
    return [*lines, *(f"{name}: {count:,}" for name, count in others.items() if count), ""]


def acceptance_table(found: xr.Dataset, each: bool = False) -> pd.DataFrame:
    """A prediction as a table: one row per LLM over all queries, or with ``each`` per query."""
    mean, interval = ("mean", "interval") if each else ("overall_mean", "overall_interval")
    bounds = {str(b): found[interval].sel(ci_bound=b, drop=True) for b in found["ci_bound"].values}
    return xr.Dataset({"mean": found[mean], **bounds}).to_dataframe()


class Acceptances(NamedTuple):
    """How probably users take each LLM's answer, as :meth:`Fitted.acceptance` gives it.

    Attributes:
        fresh: of a fresh query, at its first attempt, one row a query.
        services: over all services; None where no query has several.
        bounds: of a fresh query, if all outcomes that are not known were one thing, as
            :meth:`Fitted.bounds` gives them; None where all are known.
    """

    fresh: xr.Dataset
    services: xr.Dataset | None
    bounds: xr.Dataset | None


def acceptances_of(fitted: Fitted, seed: int = 0) -> Acceptances:
    """All that a fit says of the log's own queries."""
    log = fitted.log
    is_repeated = log.repeats or len(log.first_attempts) < log.data.num_obs
    return Acceptances(
        fitted.acceptance(seed=seed),
        fitted.acceptance(fresh=False, seed=seed) if is_repeated else None,
        fitted.bounds(seed=seed),
    )


def describe_fit(fitted: Fitted, found: Acceptances, most: int = 60) -> list[str]:
    """A description of a fit, in lines: acceptance, the engine's verdict and that on the data.

    Args:
        fitted: the fit.
        found: what it says of the log's queries.
        most: lines of a table.
    """
    tables = {
        "of a fresh query, at its first attempt, one row a query": acceptance_table(found.fresh)
    }
    if found.services is not None:
        tables["over all services"] = acceptance_table(found.services)
    if found.bounds is not None:
        means = found.bounds["overall_mean"].transpose("llm", "silence")
        tables["of a fresh query, if all that is not known were"] = pd.DataFrame(
            means.values, means["llm"].values, means["silence"].values
        )
    lines = ["probability that an LLM's answer is taken"]
    for title, table in tables.items():
        lines += ["", title, *table.head(most).round(3).to_string().splitlines()]
    return [*lines, "", str(fitted.info), "", str(fitted.data)]


def fit_as_dict(fitted: Fitted, found: Acceptances) -> dict[str, Any]:
    """The same, and the counts, in types that JSON has."""
    log, info = fitted.log, fitted.info
    choice, offered = np.asarray(log.data.choice), np.asarray(log.data.offered).sum(axis=0)
    bounds = found.bounds
    if bounds is not None:
        cases = bounds["silence"].values
        bounds = {str(case): _rows(bounds.sel(silence=case, drop=True)) for case in cases}
    return {
        "ok": fitted.ok,
        "model": repr(fitted.posterior.model),
        "sampler": {
            "ok": info.ok,
            "engine": info.engine,
            "status": info.verdict.name.lower(),
            "meaning": info.verdict.meaning,
            "reason": info.reason,
            "stats": {n: v if math.isfinite(v) else None for n, v in info.scalars.items()},
        },
        "data": fitted.data.to_dict(),
        "acceptance": {
            "fresh": _rows(found.fresh),
            "services": None if found.services is None else _rows(found.services),
            "bounds": bounds,
        },
        "counts": {
            "records": None if log.read is None else log.read.to_dict(),
            "requests": None if log.requests is None else _plain(log.requests._asdict()),
            "turns": None if log.made is None else log.made._asdict(),
            "services": log.data.num_obs,
            "queries": len(log.first_attempts),
            "retried": int((choice == 0).sum()),
            "not_known": int((choice < 0).sum()),
            "llms": [
                {"llm": llm, "offered": int(rows), "taken": int((choice == number).sum())}
                for number, (llm, rows) in enumerate(zip(log.llms, offered, strict=True), start=1)
            ],
        },
    }


def _rows(found: xr.Dataset) -> list[dict[str, Any]]:
    return acceptance_table(found).reset_index().to_dict("records")


def _plain(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {n: dict(v) if isinstance(v, Mapping) else v for n, v in counts.items()}

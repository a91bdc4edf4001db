"""Rules of a queue beyond the plain one, and arrivals from a trace."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from cqbayes.errors import InputError


class Rules(NamedTuple):
    """How a queue differs from the plain one.

    Attributes:
        services: services in one round, each for a different query. The rows of a run are then
            services: round ``t`` is rows ``services * (t - 1) + 1`` to ``services * t``.
        preemptive: whether the server may turn to another query before a query departs. If False, a
            query that was served once is served until it departs.
        retrial_delay: mean number of rounds that a query spends in orbit before it comes back;
            geometric, from 1 on. With 0 queries wait without an orbit.
        blocked: which queries go into orbit. False: only queries whose user retries (delayed
            feedback). True: also every query that is present in a round and not served, as in the
            classical retrial queue, which has no waiting room; ``retrial_delay`` is then the mean
            number of rounds from one try to the next.
        patience: mean number of rounds after which a query leaves unserved; geometric. With None
            queries never leave unserved. If not ``preemptive``, a query once served stays.
    """

    services: int = 1
    preemptive: bool = True
    retrial_delay: float = 0.0
    blocked: bool = False
    patience: float | None = None

    @property
    def absent(self) -> bool:
        """Whether some waiting queries may be unavailable for service in a round."""
        return self.retrial_delay > 0 or self.services > 1


def rules_of(settings: Mapping[str, Any]) -> Rules:
    """The rules in a table of settings, such as a sweep's file has.

    Raises:
        InputError: for an unknown name, or a value of another type.

    Example:
        >>> rules_of({"services": 2}).services
        2
    """
    for name, value in settings.items():
        if name not in Rules._fields:
            raise InputError(f"rules: expected one of {', '.join(Rules._fields)}, got {name!r}")
        kind = type(getattr(Rules(), name) or 0.0)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"rules: expected {name} to be a {kind.__name__}, got {value!r}")
    rules = Rules(**settings)
    check_rules(rules)
    return rules


class Arrivals(NamedTuple):
    """How many queries arrive at the end of each round.

    Attributes:
        counts: ``[round]``, or ``[seed, round]`` for :func:`equinox.filter_vmap`.
        most: largest count; arrays of a round have room for so many arrivals.
    """

    counts: Int[Array, "*seed round"]
    most: int

    @property
    def rate(self) -> Float[np.ndarray, "*seed"]:
        """Mean number of arrivals in a round."""
        return np.asarray(np.asarray(self.counts).mean(axis=-1))


def check_arrivals(arrivals: Arrivals) -> None:
    """Refuses counts that are out of range. Counts under ``vmap`` or ``jit`` are not checked.

    Raises:
        InputError: for counts that are negative or above ``most``, or of another shape than one
            count for each round.
    """
    counts, most = arrivals
    if isinstance(counts, Tracer):
        return
    if counts.ndim != 1 or counts.size == 0:
        raise InputError(
            f"arrivals: expected a count for each round, got shape {counts.shape}; "
            "traces of several seeds go through equinox.filter_vmap"
        )
    least, largest = int(np.min(counts)), int(np.max(counts))
    if least < 0 or largest > most:
        raise InputError(
            f"arrivals: expected counts from 0 to most ({most}), got {least} to {largest}"
        )


def check_rules(rules: Rules) -> None:
    """Refuses rules that are out of range or contradict each other."""
    if rules.services < 1:
        raise InputError(f"services: expected at least one in a round, got {rules.services}")
    if not (rules.retrial_delay == 0 or 1 <= rules.retrial_delay < np.inf):
        raise InputError(
            f"retrial_delay: expected a mean of 1 round or more, or 0, got {rules.retrial_delay}"
        )
    if rules.patience is not None and not 1 <= rules.patience < np.inf:
        raise InputError(f"patience: expected a mean of 1 round or more, got {rules.patience}")
    if rules.blocked and not rules.retrial_delay:
        raise InputError("blocked: expected a retrial_delay (mean time in orbit), got none; set it")
    if rules.retrial_delay and not rules.blocked and not rules.preemptive:
        raise InputError(
            "preemptive: expected True with a retrial_delay, got False; a query in orbit cannot "
            "keep its server, so set preemptive=True or blocked=True"
        )

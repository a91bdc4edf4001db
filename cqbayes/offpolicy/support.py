"""The value of a policy on a log, and whether the log supports it."""

from enum import IntEnum
from typing import NamedTuple


class Support(IntEnum):
    """Whether a log supports an estimate for a target policy."""

    OK = 0
    LOW_OVERLAP = 1
    WEIGHTS_OFF = 2
    UNEQUAL_LOGGING = 3
    NOTHING_SHARED = 4
    NO_SUPPORT = 5

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Support.OK: "nothing found wrong",
    Support.LOW_OVERLAP: (
        "a few rows carry most of the weight: trust neither the estimate nor its standard error"
    ),
    Support.WEIGHTS_OFF: (
        "weights do not average to 1: the target acts in ways that the log lacks, or the "
        "propensities are wrong"
    ),
    Support.UNEQUAL_LOGGING: (
        "propensities differ, so the rows that match are not a fair sample: use IPS"
    ),
    Support.NOTHING_SHARED: "the target would have taken none of the logged actions",
    Support.NO_SUPPORT: "the target takes actions that the logging policy never takes",
}
IN_A_QUEUE = (
    "a queue was involved: its backlog makes rows depend on each other, and the target would have "
    "met another backlog; use simulate_policies with posterior draws"
)


class Evaluation(NamedTuple):
    """A policy's value by one estimator, and whether it can be trusted.

    Attributes:
        estimate: mean reward of the target in the logged situations; NaN only with a status that
            says why.
        standard_error: of the estimate.
        effective_size: ``(sum w)^2 / sum w^2``: how many rows of equal weight the weights are
            worth. In replay with a deterministic target, how many matched.
        max_weight: the largest ``w``.
        status: an :class:`Support`.
        note: remarks, in words.
    """

    estimate: float
    standard_error: float
    effective_size: float
    max_weight: float
    status: Support
    note: str

    @property
    def ok(self) -> bool:
        return self.status == Support.OK

    def __str__(self) -> str:
        return (
            f"{self.estimate:.4g} ± {self.standard_error:.2g} ({self.status.name.lower()}; "
            f"{self.effective_size:.4g} effective rows, largest weight {self.max_weight:.4g}; "
            f"{self.note})"
        )

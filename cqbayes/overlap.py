"""Whether a log can tell anything of a policy, and what it tells: see :mod:`cqbayes.offpolicy`."""

from enum import IntEnum
from typing import NamedTuple


class Overlap(IntEnum):
    """Whether a log can tell anything of a target policy."""

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
    Overlap.OK: "nothing found wrong",
    Overlap.LOW_OVERLAP: (
        "a few rows carry the weight: neither the estimate nor its standard error is to be trusted"
    ),
    Overlap.WEIGHTS_OFF: (
        "weights do not average to 1: the target acts in ways that the log lacks, or the "
        "propensities are wrong"
    ),
    Overlap.UNEQUAL_LOGGING: (
        "propensities differ, so that rows which match are no fair sample: use IPS"
    ),
    Overlap.NOTHING_SHARED: "the target would have done nothing that was logged",
    Overlap.NO_SUPPORT: "the target does what the logging policy never does",
}
IN_A_QUEUE = (
    "a queue was involved: backlog makes rows depend on each other, and the target would have met "
    "another one; simulate_policies with posterior draws is the remedy"
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
        status: an :class:`Overlap`.
        note: what is to be said of it, in words.
    """

    estimate: float
    standard_error: float
    effective_size: float
    max_weight: float
    status: Overlap
    note: str

    @property
    def ok(self) -> bool:
        return self.status == Overlap.OK

    def __str__(self) -> str:
        return (
            f"{self.estimate:.4g} ± {self.standard_error:.2g} ({self.status.name.lower()}; "
            f"{self.effective_size:.4g} effective rows, largest weight {self.max_weight:.4g}; "
            f"{self.note})"
        )

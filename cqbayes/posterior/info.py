"""Status and statistics that an engine returns with a posterior."""

from enum import IntEnum

import equinox as eqx
import numpy as np
from jaxtyping import Array, Int


class Status(IntEnum):
    """Whether an engine found a problem with its own result, and which."""

    OK = 0
    NOT_CONVERGED = 1
    NOT_POSITIVE_DEFINITE = 2
    POOR_APPROXIMATION = 3
    POOR_MIXING = 4
    NOT_FINITE = 5

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Status.OK: "nothing found wrong",
    Status.NOT_CONVERGED: "the optimiser stopped before it converged",
    Status.NOT_POSITIVE_DEFINITE: "the curvature at the mode is not that of a peak: use nuts",
    Status.POOR_APPROXIMATION: "the Gaussian is far from the posterior (k-hat or ESS): use nuts",
    Status.POOR_MIXING: "the chains disagree or diverged: more draws, or another form of the model",
    Status.NOT_FINITE: (
        "the density is not finite: check the data's scale, and that the model allows such choices"
    ),
}


class InferenceInfo(eqx.Module):
    """An engine's report on its own result: a status, and the numbers behind it.

    Code uses the report as well as people. The engine ``auto`` decides by ``status`` and k-hat
    whether to run another engine. A policy keeps its earlier posterior if the ``status`` of a refit
    is not OK.

    Attributes:
        engine: name of the engine.
        status: a :class:`Status` (an array inside ``jit``).
        stats: numbers by name; the names depend on the engine.
        reason: why ``auto`` chose this engine; empty otherwise.
    """

    engine: str = eqx.field(static=True)
    status: Int[Array, ""]
    stats: dict[str, Array]
    reason: str = eqx.field(static=True, default="")

    @property
    def verdict(self) -> Status:
        return Status(int(self.status))

    @property
    def ok(self) -> bool:
        return self.verdict == Status.OK

    def because(self, reason: str) -> "InferenceInfo":
        """The same report with the reason why this engine was chosen."""
        return InferenceInfo(self.engine, self.status, self.stats, reason)

    @property
    def scalars(self) -> dict[str, float]:
        """The stats that are single numbers."""
        return {name: float(v) for name, v in self.stats.items() if np.ndim(v) == 0}

    def __str__(self) -> str:
        chosen = f", chosen because {self.reason}" if self.reason else ""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.scalars.items())
        found = f"{self.verdict.name.lower()} ({self.verdict.meaning}{chosen})"
        return f"{self.engine}: {found}; {numbers}"

"""What the scores of next requests mean in one log: :func:`next_requests`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Float, Int

from cqbayes.choice.data import SILENCE, ChoiceData
from cqbayes.logs.retrials.detector import CLASSES, Detector, classes_of
from cqbayes.logs.retrials.pairs import consecutive, flags, opening

pc: Any = pyarrow.compute  # whose functions are made when it is imported

SETTINGS = ("shares", "levels", "doubts", "strength", "tilt")
ENGLISH = r"(?i)^en(g|[-_]|$)"  # names and codes of it
LEAST_KNOWN = 0.47  # share of the words that are known, in domains that were left out
MOST_LOOKED_AT = 200_000  # requests; of more, a part


class NextRequests(NamedTuple):
    """Classes of scores, and what they mean: for :mod:`cqbayes.models.next_request`.

    Attributes:
        detector: made the scores.
        opening: how many requests that open a session, of those that were looked at, are in each
            class.
        known: share of the words of next requests that the detector knows; see ``Detector.known``.
        foreign: share of next requests whose language is stated and is not English.
        after: how many next requests of each class follow answers that users showed to be taken,
            and ones that they showed not to be.
        labels: two numbers of a Beta, of how often a label is wrong; None without labels.
    """

    detector: Detector
    opening: Int[np.ndarray, " class"]
    known: float = np.nan
    foreign: float = 0.0
    after: Int[np.ndarray, "2 class"] = np.zeros((2, CLASSES), int)
    labels: tuple[float, float] | None = None

    def signs(
        self, probability: Float[np.ndarray, " row"], labelled: Int[np.ndarray, " row"]
    ) -> Int[np.ndarray, " row"]:
        """The sign, as in ``ChoiceData.choice``, of a next request of such a probability.

        Args:
            probability: of a retrial, by the detector.
            labelled: -1 without a label, 0 labelled as taken, 1 as a retrial.
        """
        kind = np.choose(labelled + 1, [0, 2, 1])
        return SILENCE - 1 - self.detector.classes(probability) - kind * CLASSES

    def settings(self) -> dict[str, Any]:
        """Those of the model. Few are of this log: what was compiled for one serves for others."""
        found = {name: getattr(self.detector, name) for name in SETTINGS}
        median, spread = found["strength"]
        found["strength"] = (median, spread * self.strangeness)
        found["tilt"] *= self.strangeness
        found["doubts"] = tuple(one * self.strangeness for one in found["doubts"])
        if self.labels is not None:
            found["labels"] = self.labels
        return {**found, "known": True} if self.knows else found

    @property
    def strangeness(self) -> int:
        """By what the doubts of the detector are multiplied: 1, 2 or 4.

        They are of domains that were left out of its training. Where it knows fewer words than in
        any of these, the log is further away than they are from one another.
        """
        return 1 if not self.known < LEAST_KNOWN else 2 if self.known >= LEAST_KNOWN / 2 else 4

    @property
    def knows(self) -> bool:
        """Whether outcomes of some next requests are known."""
        return self.labels is not None or bool(self.after.any())

    def with_opening(self, data: ChoiceData) -> ChoiceData:
        """The same data, and rows without LLMs for requests of which no outcome hangs.

        They open a session, or follow an answer of which the user showed what became of it.
        """
        counts = [self.opening, *(self.after[::-1] if self.knows else ())]
        weight = np.concatenate(counts)
        some = jax.tree.map(lambda column: column[np.zeros(len(weight), int)], data)
        added: ChoiceData = dataclasses.replace(
            some,
            offered=jnp.zeros_like(some.offered),
            choice=jnp.asarray(SILENCE - 1 - np.arange(len(weight)), some.choice.dtype),
            weight=jnp.asarray(weight, some.weight.dtype),
        )
        return jax.tree.map(lambda *columns: jnp.concatenate(columns), data, added)


def next_requests(detector: Detector, turns: pa.Table) -> NextRequests:
    """Looks at the requests that open sessions, which follow no answer, and at those that do.

    Args:
        detector: makes the scores.
        turns: of ``TURNS``, with the turns of a session together and in order.
    """
    first, later = (_some(turns, rows) for rows in (opening(turns), consecutive(turns).second))
    text = first["text"].combine_chunks().drop_null()
    score = detector.score(pa.nulls(len(text), pa.string()), text)
    foreign = flags(pc.invert(pc.match_substring_regex(later["language"], ENGLISH)))
    return NextRequests(
        detector,
        np.bincount(classes_of(score), minlength=CLASSES),
        detector.known(later["text"].combine_chunks()),
        float(foreign.sum()) / max(len(foreign), 1),
    )


def _some(turns: pa.Table, rows: np.ndarray) -> pa.Table:
    return turns.take(pa.array(rows[:: -(-max(len(rows), 1) // MOST_LOOKED_AT)]))

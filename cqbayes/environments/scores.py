"""Truth from scores of real answers: the user's satisfaction follows the score.

::

    u_ij = logit(e + (1 - 2 e) s_ij)

``s_ij`` in [0, 1] says how good LLM j's real answer to query i was, ``e`` how often a user
contradicts it. Outcomes are real, users are simulated, and the truth is not linear in the context.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.tree_util import Partial
from jaxtyping import Array, Float, PRNGKeyArray

from cqbayes.environments import Population, Query
from cqbayes.errors import InputError


class ScoreTable(NamedTuple):
    """Scores of real answers: one row a query, one column an LLM.

    Attributes:
        name: of the data set.
        llms: names of the LLMs.
        query_id, task, split: strings ``[query]``; ``split`` is "train" or "test".
        context: unit-norm embeddings ``[query, dim]``.
        score: ``[query, llm]`` in [0, 1].
        cost: ``[query, llm]`` in dollars, or None where nothing is known.
        samples: how many answers of an LLM to a query a score is the mean of.
    """

    name: str
    llms: tuple[str, ...]
    query_id: np.ndarray
    task: np.ndarray
    split: np.ndarray
    context: np.ndarray
    score: np.ndarray
    cost: np.ndarray | None = None
    samples: int = 1

    def part(self, split: str) -> "ScoreTable":
        """Only the rows of one split."""
        rows = self.split == split
        if not rows.any():
            raise InputError(
                f"{self.name}: expected a split among {', '.join(np.unique(self.split))}, "
                f"got {split!r}"
            )
        return self.rows(rows)

    def rows(self, keep: np.ndarray) -> "ScoreTable":
        """Only some of the queries, by a mask or by places."""
        columns = ("query_id", "task", "split", "context", "score")
        cost = None if self.cost is None else self.cost[keep]
        return self._replace(**{name: getattr(self, name)[keep] for name in columns}, cost=cost)


def from_scores(table: ScoreTable, contradiction: float | None = None) -> Population:
    """Users whose satisfaction follows the scores; arrivals are rows drawn with replacement.

    Args:
        table: rows to draw from: held-out ones, if anything was fitted to the others.
        contradiction: ``e`` above, in (0, 0.5). Absent: 0.1 for scores of one answer; for the share
            of n answers that were right ``1 / (2 (n + 1))``, which is half an answer more on either
            side, so that a retry has the probability that was measured.

    Raises:
        InputError: for a contradiction rate outside (0, 0.5).
    """
    if contradiction is None:
        contradiction = 0.1 if table.samples == 1 else 0.5 / (table.samples + 1)
    if not 0 < contradiction < 0.5:
        raise InputError(f"contradiction: expected a rate in (0, 0.5), got {contradiction}")
    satisfied = contradiction + (1 - 2 * contradiction) * jnp.asarray(table.score, float)
    utility = jnp.log(satisfied) - jnp.log1p(-satisfied)
    return Population(
        draw=Partial(_draw, jnp.asarray(table.context, float)),
        utility=Partial(_look_up, utility),
        cost=None if table.cost is None else Partial(_look_up, jnp.asarray(table.cost, float)),
    )


def _draw(context: Float[Array, "query dim"], key: PRNGKeyArray) -> Query:
    identity = jax.random.randint(key, (), 0, context.shape[0])
    return Query(context[identity], identity)


def _look_up(table: Float[Array, "query llm"], query: Query) -> Float[Array, " llm"]:
    return table[query.identity]


def read_scores(path: Path, *, sha256: str | None, dim: int) -> ScoreTable:
    """Reads a score table from Parquet.

    Columns: ``query_id``, ``task``, ``split``, a ``score|LLM`` and a ``cost_usd|LLM`` for each LLM,
    and ``context``, a list of numbers of which the first ``dim`` are taken and scaled to unit norm.

    Raises:
        InputError: for a wrong checksum, a missing column, a score outside [0, 1], a query that
            occurs twice, or more dimensions than the file has.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file, got: {error.strerror}") from None
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise InputError(f"{path}: expected SHA-256 {sha256[:12]}..., got {digest[:12]}...")
    try:
        table = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid:
        raise InputError(f"{path}: expected a Parquet file, got something else") from None
    llms = tuple(c.split("|", 1)[1] for c in table.column_names if c.startswith("score|"))
    needed = ["query_id", "task", "split", "context", *(f"cost_usd|{llm}" for llm in llms)]
    missing = [name for name in needed if name not in table.column_names]
    if missing or not llms:
        raise InputError(
            f"{path}: expected columns {', '.join(missing or ['score|<llm>'])}; absent"
        )
    width = getattr(table.schema.field("context").type, "list_size", None)
    if width is None:
        raise InputError(f"{path}: expected lists of one length in column context (a fixed size)")
    if not 1 <= dim <= width:
        raise InputError(f"{path}: expected 1 to {width} context dimensions, got {dim}")
    context = table["context"].combine_chunks().flatten().to_numpy().reshape(-1, width)[:, :dim]
    score = np.stack([table[f"score|{llm}"].to_numpy() for llm in llms], axis=1)
    query_id, split = table["query_id"].to_numpy(), table["split"].to_numpy()
    cost = np.stack([table[f"cost_usd|{llm}"].to_numpy() for llm in llms], axis=1)
    check_scores(str(path), query_id, split, score, cost)
    return ScoreTable(
        name=path.parent.name,
        llms=llms,
        query_id=query_id,
        task=table["task"].to_numpy(),
        split=split,
        context=unit_rows(str(path), context),
        score=score,
        cost=cost,
    )


def check_scores(
    where: str,
    query_id: np.ndarray,
    split: np.ndarray,
    score: Float[np.ndarray, "query llm"],
    cost: Float[np.ndarray, "query llm"] | None,
) -> None:
    """Refuses scores that cannot be meant.

    Args:
        where: the file or data set, for the message.
        query_id, split, score, cost: as in :class:`ScoreTable`.

    Raises:
        InputError: names the first row, from 0, whose score is outside [0, 1], whose cost is not
            a number of dollars, whose split is neither "train" nor "test", or whose query was
            there already.
    """
    if len(query_id) == 0:
        raise InputError(f"{where}: expected at least one query, got none")
    _refuse(where, ~((score >= 0) & (score <= 1)).all(axis=1), "scores in [0, 1], one an LLM")
    if cost is not None:
        good = (np.isfinite(cost) & (cost >= 0)).all(axis=1)
        _refuse(where, ~good, "costs in dollars, not negative")
    _refuse(where, ~np.isin(split, ("train", "test")), 'a split "train" or "test"')
    _, first = np.unique(query_id, return_index=True)
    again = np.ones(len(query_id), bool)
    again[first] = False
    _refuse(where, again, "each query_id once")


def _refuse(where: str, wrong: Any, expected: str) -> None:
    if wrong.any():
        raise InputError(f"{where}: expected {expected}, not so in row {int(np.argmax(wrong))}")


def unit_rows(where: str, context: Float[np.ndarray, "query dim"]) -> np.ndarray:
    """Rows at unit norm.

    Raises:
        InputError: names the first row that is not finite, or 0.
    """
    norm = np.linalg.norm(context, axis=1, keepdims=True)
    flat = ~(np.isfinite(norm[:, 0]) & (norm[:, 0] > 0))
    _refuse(where, flat, "finite contexts other than 0")
    return context / norm

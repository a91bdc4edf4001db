"""Scores of real answers with contexts: one row a query, one column an LLM."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cqbayes._tools.tables import unit_rows
from cqbayes.datasets.scores import Scores, check_scores
from cqbayes.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable(Scores):
    """Scores of real answers to queries as contexts.

    Attributes:
        context: unit-norm embeddings ``[query, dim]``.
    """

    context: np.ndarray


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
        columns = pq.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid:
        raise InputError(f"{path}: expected a Parquet file, got something else") from None
    llms = tuple(c.split("|", 1)[1] for c in columns.column_names if c.startswith("score|"))
    needed = ["query_id", "task", "split", "context", *(f"cost_usd|{llm}" for llm in llms)]
    missing = [name for name in needed if name not in columns.column_names]
    if missing or not llms:
        raise InputError(
            f"{path}: expected columns {', '.join(missing or ['score|<llm>'])}; absent"
        )
    width = getattr(columns.schema.field("context").type, "list_size", None)
    if width is None:
        raise InputError(f"{path}: expected lists of one length in column context (a fixed size)")
    if not 1 <= dim <= width:
        raise InputError(f"{path}: expected 1 to {width} context dimensions, got {dim}")
    context = columns["context"].combine_chunks().flatten().to_numpy().reshape(-1, width)[:, :dim]
    score = np.stack([columns[f"score|{llm}"].to_numpy() for llm in llms], axis=1)
    table = ScoreTable(
        name=path.parent.name,
        llms=llms,
        query_id=columns["query_id"].to_numpy(),
        task=columns["task"].to_numpy(),
        split=columns["split"].to_numpy(),
        context=unit_rows(str(path), context),
        score=score,
        cost=np.stack([columns[f"cost_usd|{llm}"].to_numpy() for llm in llms], axis=1),
    )
    check_scores(table, where=str(path))
    return table

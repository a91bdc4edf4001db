"""Sorting a log that is larger than memory, by DuckDB, which spills to a temporary folder."""

import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from cqbayes.errors import InputError

# Rows of a query together, queries of a session together; sessions, and queries in them, by the
# time of their first row. A query belongs to the session of its first attempt.
_ATTEMPTS = "attempt, timestamp, chosen NULLS FIRST, coalesce(silent, false), offered, file, line"
_QUERY = f"""
    SELECT * EXCLUDE (session, began) FROM (
        SELECT *,
            first_value(coalesce(session_id, query_id)) OVER (
                PARTITION BY query_id ORDER BY {_ATTEMPTS}
            ) AS session,
            min(timestamp) OVER (PARTITION BY query_id) AS began,
            coalesce(query_id IS NOT NULL AND attempt >= 1 AND attempt < max(attempt) OVER (
                PARTITION BY query_id ORDER BY file, line
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ), false) AS late
        FROM log
    ) ORDER BY
        min(began) OVER (PARTITION BY session), session, began, query_id, {_ATTEMPTS}
"""


def by_query(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, memory: str, rows: int
) -> Iterator[pa.RecordBatch]:
    """The same rows with those of a query together, those of a session together, and by time.

    A column ``late`` is added: whether a row stood after a later attempt of its query.

    Args:
        batches: of ``schema``, which has the columns ``session_id``, ``query_id``, ``attempt``,
            ``timestamp`` (whole numbers), ``chosen``, ``silent``, ``offered``, ``file`` and
            ``line``.
        schema: the schema of ``batches``.
        memory: how much DuckDB may take, such as ``"1GB"``; what is more goes to a temporary
            folder (``$TMPDIR``), which is removed.
        rows: maximum number of rows in a batch.

    Raises:
        InputError: without DuckDB, for another ``memory``, or where memory or disk do not suffice;
            and what ``batches`` raises.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise InputError(
            "sort: expected the package duckdb, found none; pip install 'cqbayes[logs]'"
        ) from None
    raised: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="cqbayes-") as folder:
        config: dict[str, Any] = {
            "memory_limit": memory,
            "temp_directory": folder,
            "autoinstall_known_extensions": "false",
        }
        try:
            connection = duckdb.connect(config=config)
        except duckdb.Error:
            raise InputError(
                f"memory: expected a size such as '1GB', got {memory[:20]!r}"
            ) from None
        try:
            source = pa.RecordBatchReader.from_batches(schema, _keeping_errors(batches, raised))
            connection.register("log", source)
            yield from connection.sql(_QUERY).to_arrow_reader(rows)
        except (duckdb.Error, pa.ArrowException, OSError):
            if raised:
                raise raised[0] from None
            raise InputError(
                f"sort: expected enough memory and disk, got too little with {memory} and the "
                "space for temporary files; give more memory"
            ) from None
        finally:
            connection.close()


def _keeping_errors(
    batches: Iterator[pa.RecordBatch], raised: list[BaseException]
) -> Iterator[pa.RecordBatch]:
    """Keeps the errors that ``batches`` raises, since DuckDB replaces them by its own."""
    try:
        yield from batches
    except BaseException as error:
        raised.append(error)
        raise

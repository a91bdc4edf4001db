"""Fits on disk, and their predictions for queries in a file: what ``cqbayes predict`` does."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from cqbayes._tools.tables import parquet, unit_rows
from cqbayes.embeddings.projection import load_projection, save_projection
from cqbayes.errors import InputError
from cqbayes.logs.codes import (
    COLUMNS,
    Attributes,
    Users,
    check_users,
    columns_of,
    save_codes,
)
from cqbayes.logs.describe import acceptance_table
from cqbayes.logs.fit import Fitted
from cqbayes.logs.read import Log
from cqbayes.logs.schema import SERVICES
from cqbayes.logs.table.cells import from_arrow, from_json
from cqbayes.posterior.posteriors import Posterior
from cqbayes.posterior.storage import load_posterior, save_posterior
from cqbayes.predict.new_llm import with_new_llm
from cqbayes.predict.predictions import Interval, acceptance, new_queries, what_if


class SavedFit(NamedTuple):
    """Where :func:`save_fit` wrote: the posterior, and beside it what predictions need, if any.

    Attributes:
        posterior: with the verdict on the data, and a few columns of them.
        contexts: how text becomes contexts.
        codes: what the numbers of users, times and attributes mean.
    """

    posterior: Path
    contexts: Path | None
    codes: Path | None


def save_fit(
    path: str | Path,
    fitted: Fitted,
    *,
    users: Users = "hash",
    attributes: Attributes | None = None,
    seed: int | None = None,
    **options: Any,
) -> SavedFit:
    """Writes a fit, for :func:`cqbayes.load_posterior` and :func:`predict_file`.

    ``docs/stored.md`` says what stands where, and what it reveals.

    Args:
        path: of the posterior, which ends in ``.nc`` or ``.zarr``.
        fitted: what is written.
        users: how identifiers of users are written, as in :func:`cqbayes.logs.codes.save_codes`.
        attributes: of the LLMs, with which it was fitted.
        seed: of the fit.
        options: others of :func:`cqbayes.save_posterior`.

    Raises:
        InputError: as :func:`cqbayes.save_posterior`, and for an unknown way to write users.
    """
    check_users(users)
    path, log = Path(path), fitted.log
    kept = {"verdict": fitted.data.to_dict(), "columns": kept_columns(log), "seed": seed}
    options = {"data": log.data, "llms": list(log.llms), **kept, **options}
    save_posterior(path, fitted.posterior, fitted.info, **options)
    needs = fitted.posterior.model.needs
    return SavedFit(path, save_contexts(path, log), save_codes(path, log, needs, attributes, users))


def kept_columns(log: Log) -> dict[str, np.ndarray]:
    """The columns of a log that are kept with its posterior; see :mod:`cqbayes.posterior.storage`.

    All rows were fitted, so all are of split 0. A column of which nothing is known is left out.
    """
    data = log.data
    found = {
        "offered": np.asarray(data.offered),
        "chosen": np.asarray(data.choice),
        "split": np.zeros(data.num_obs, np.int8),
    }
    if log.query is not None:
        found["query"] = log.query
    if data.attempt is not None:
        found["attempt"] = np.asarray(data.attempt)
    if data.user is not None:
        user = np.asarray(data.user)
        found["user"] = np.where(user < data.num_users, user, -1)
    if log.propensity is not None and not np.isnan(log.propensity).all():
        found["propensity"] = log.propensity
    if log.seconds is not None and not np.isnan(log.seconds).all():
        found["time"] = np.where(np.isnan(log.seconds), -1, np.floor(log.seconds))
    return found


def save_contexts(posterior: Path, log: Log) -> Path | None:
    """Writes the projection from text to contexts beside a posterior; None without a projection."""
    path = contexts_path(posterior)
    if log.projection is None:
        path.unlink(missing_ok=True)  # of an earlier log
        return None
    save_projection(path, log.projection)
    return path


def contexts_path(posterior: Path) -> Path:
    """The path of the file that holds a posterior's projection from text to contexts."""
    return posterior.with_name(posterior.name + ".contexts.safetensors")


def predict_file(
    posterior: str | Path,
    queries: str | Path,
    *,
    without: str | None = None,
    new_llm: bool = False,
    encoder: str | None = None,
    attributes: Attributes | None = None,
    probability: float = 0.9,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of a posterior on disk for a file of queries: over all queries, and of each.

    Args:
        posterior: as ``cqbayes fit`` wrote it.
        queries: ``.txt`` with one query a line, or ``.jsonl`` or ``.parquet`` with ``text`` or
            ``embedding``, and with ``user_id`` or ``timestamp`` where the model needs them. Without
            ``attempt``, queries are at their first one.
        without: an LLM to leave out, by name or number. The predictions are then shares in the
            assortment of all LLMs, before and after.
        new_llm: whether to add one more LLM, of which nothing is known.
        encoder: name of the encoder that the log was fitted with; the default encoder where absent.
        attributes: of the LLMs, where the model needs them; also those of the new LLM, which has
            the name ``new-llm``.
        probability: that the intervals hold.
        seed: decides the draws.

    Raises:
        InputError: for files that are not there or of another form, for what a model needs and
            does not get, and what :mod:`cqbayes.predict` refuses.
    """
    stored = load_posterior(posterior)
    llms = list(json.loads(stored.tree.attrs["llms"]))
    beliefs: Posterior = stored.posterior
    first, second = jax.random.split(jax.random.key(seed))
    if new_llm:
        beliefs, llms = with_new_llm(first, beliefs), [*llms, _new_name(llms)]
    queries, posterior = Path(queries), Path(posterior)
    kind, values, cells = _read_queries(queries)
    columns = columns_of(queries, len(values), cells, posterior, beliefs.model, llms, attributes)
    at = new_queries(beliefs, _contexts(queries, kind, values, posterior, encoder), **columns)
    if without is None:
        found = acceptance(second, beliefs, at, llms=llms, interval=Interval(probability))
    else:
        everybody = np.ones(len(llms), bool)
        found = what_if(
            second,
            beliefs,
            at,
            everybody,
            without=_llm(without, llms),
            llms=llms,
            interval=Interval(probability),
        )
    return acceptance_table(found), acceptance_table(found, each=True).reset_index()


def _new_name(llms: Sequence[str]) -> str:
    """A name for a new LLM that no other LLM has."""
    names = ("new-llm", *(f"new-llm-{number}" for number in range(2, len(llms) + 2)))
    return next(name for name in names if name not in llms)


def _llm(said: str, llms: Sequence[str]) -> str | int:
    """An LLM by its name, or else, as the shell has only strings, by its number."""
    return int(said) if said not in llms and re.fullmatch("[0-9]{1,9}", said) else said


def _contexts(
    queries: Path, kind: str, values: list[Any], posterior: Path, encoder: str | None
) -> Float[np.ndarray, "query dim"]:
    if not values:
        raise InputError(f"{queries}: expected at least one query, got none")
    if kind == "embedding":
        try:
            return unit_rows(str(queries), np.array(values, np.float64).reshape(len(values), -1))
        except (TypeError, ValueError):
            raise InputError(
                f"{queries}: expected lists of numbers of one length in embedding, got others"
            ) from None
    if not all(isinstance(value, str) for value in values):
        raise InputError(f"{queries}: expected text in every row, got something else")
    from cqbayes.embeddings.encoder import embed, load_encoder

    place = contexts_path(posterior)
    if not place.is_file():
        raise InputError(
            f"{place}: expected the contexts that cqbayes fit writes beside a posterior of a log "
            "with text, found none; give embeddings in Parquet or JSON Lines"
        )
    chosen = load_encoder(*([] if encoder is None else [encoder]))
    projection = load_projection(place, encoder=chosen.name)
    return projection(embed(values, chosen, progress=True))


def _read_queries(path: Path) -> tuple[str, list[Any], dict[str, pa.Array]]:
    """The queries of a file: text or embedding, their values, and further columns.

    Further columns are as in ``SERVICES``.
    """
    if path.suffix == ".parquet":
        with parquet(str(path), path) as file:
            names = file.schema_arrow.names
            column = _column(path, names)
            further = [name for name in COLUMNS.values() if name in names]
            table = file.read([column, *further]).combine_chunks()
        read = {n: from_arrow(_one(table[n]), SERVICES.field(n)) for n in further}
        return column, table[column].to_pylist(), _sound(path, read)
    if path.suffix not in (".txt", ".jsonl"):
        raise InputError(
            f"{path}: expected .txt with one query a line, or .jsonl or .parquet with text or "
            f"embedding, got {path.suffix!r}"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: expected a file in UTF-8 that can be read") from None
    lines = [line for line in lines if line.strip()]
    if path.suffix == ".txt":
        return "text", lines, {}
    try:
        rows = [json.loads(line) for line in lines]
        column = _column(path, rows[0] if rows else ["text"])
        values = [row[column] for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: expected an object with text, or with embedding, in every line, got others"
        ) from None
    further = [name for name in COLUMNS.values() if any(name in row for row in rows)]
    read = {n: from_json([row.get(n) for row in rows], SERVICES.field(n)) for n in further}
    return column, values, _sound(path, read)


def _one(column: pa.ChunkedArray) -> pa.Array:
    found: Any = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)


def _sound(path: Path, read: dict[str, tuple[pa.Array, np.ndarray]]) -> dict[str, pa.Array]:
    """Columns in which every cell is valid."""
    for name, (_, wrong) in read.items():
        if wrong.any():
            raise InputError(
                f"{path}: expected {SERVICES.field(name).type} in {name}, got something else in "
                f"row {int(np.argmax(wrong > 0)) + 1}"
            )
    return {name: column for name, (column, _) in read.items()}


def _column(path: Path, names: Any) -> str:
    for column in ("embedding", "text"):
        if column in names:
            return column
    raise InputError(f"{path}: expected a column text or embedding, got neither")

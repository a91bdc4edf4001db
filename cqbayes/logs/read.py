"""A log of any known format as choice data, in memory: :func:`read_log`.

Text becomes contexts by a sentence encoder and principal components of the log's own queries. What
became of every record, and what a log cannot tell, is said.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Float, Int

from cqbayes._tools.tables import parquet
from cqbayes.choice.data import ChoiceData
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Projection
from cqbayes.errors import InputError
from cqbayes.logs import records
from cqbayes.logs.choice_files import read_choices
from cqbayes.logs.choices import Coded, choice_data_of
from cqbayes.logs.formats.importer import importer_names, load_importer
from cqbayes.logs.retrials import chains
from cqbayes.logs.retrials.detector import Detector
from cqbayes.logs.retrials.detector_files import load_detector
from cqbayes.logs.retrials.error_rates import Errors, rates_over_all_rows
from cqbayes.logs.schema import TURNS
from cqbayes.logs.table.services import ServicesReport, read_services
from cqbayes.predict.predictions import check_llm_names

pc: Any = pyarrow.compute  # whose functions are made when it is imported

FORMATS = ("auto", "services", "choices")  # besides those of importers
MOST_ROWS = 5_000_000  # of a log that is fitted in memory
CONSTANT = "constant"


class Log(NamedTuple):
    """A log as choice data, and all that is known of how it became that.

    Attributes:
        data: the choices.
        llms: names of the LLMs.
        users: names of the users, or None where there are none.
        projection: from embeddings to contexts; None where the log brought its own contexts.
        encoder: the sentence encoder; None where no text was embedded.
        query: which query each service is of, ``[obs]`` integers: clusters for
            :mod:`cqbayes.offpolicy`. None for choice data.
        propensity: with which each was picked ``[obs]``, NaN where unknown; None likewise.
        errors: how often labels are wrong over all services, where some were inferred and the
            detector's error rates are known.
        inferred: share of the services whose outcome was inferred.
        read: what became of the records or rows of the file; None for choice data.
        made: what became of the turns; None where there were none.
        notes: what to know of the log as a whole.
        unit, times: of blocks of time, and when each began, as in ``cqbayes.logs.choices.Codes``.
    """

    data: ChoiceData
    llms: tuple[str, ...]
    users: tuple[str, ...] | None = None
    projection: Projection | None = None
    encoder: Any = None
    query: Int[np.ndarray, " obs"] | None = None
    propensity: Float[np.ndarray, " obs"] | None = None
    errors: Errors | None = None
    inferred: float = 0.0
    read: Any = None
    made: chains.TurnCounts | None = None
    notes: tuple[str, ...] = ()
    unit: str | None = None
    times: tuple[datetime, ...] = ()

    def contexts(self, text: Sequence[str]) -> Float[np.ndarray, "query dim"]:
        """Of new queries in words, as those of the log were made.

        Raises:
            InputError: for a log that brought its own contexts.
        """
        if self.projection is None:
            raise InputError("contexts: expected a log with text; this one brought its own")
        from cqbayes.embeddings.encoder import embed

        return self.projection(embed(list(text), self.encoder), self.projection.encoder)


class TextOptions(NamedTuple):
    """How text becomes contexts.

    Attributes:
        dim: of contexts: principal components, or fewer where the log has fewer queries.
            Embeddings and contexts that a log brings keep their own.
        encoder: makes embeddings of text: an :class:`cqbayes.Encoder`, the name of one, or the
            default one where absent; ``"constant"`` leaves text alone, and all contexts are the
            same.
        projection: one that was fitted before, in place of principal components.
    """

    dim: int = 16
    encoder: Any = None
    projection: Projection | None = None


class TurnOptions(NamedTuple):
    """How turns of users become services; see :func:`chains.services_of_turns`."""

    last: chains.Last = "drop"
    threshold: float = 0.5
    detector: Detector | None = None


class TableOptions(NamedTuple):
    """How a long table of services is read; see :func:`cqbayes.read_services`.

    Attributes:
        rename: names of columns, ``{theirs: ours}``.
        sort: whether rows are put in order first.
    """

    rename: Mapping[str, str] | None = None
    sort: bool = False


def read_log(
    log: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    text: TextOptions = TextOptions(),
    turns: TurnOptions = TurnOptions(),
    table: TableOptions = TableOptions(),
    time: str | None = None,
    attributes: Mapping[str, Sequence[float]] | None = None,
    quarantine: str | Path | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Log:
    """Reads a log of any known format as choice data.

    Args:
        log: a file, a folder of files, or several files.
        format: ``services``, the long table (:mod:`cqbayes.logs.schema`); ``choices``, as
            :func:`cqbayes.logs.choice_files.write_choices` writes them; an importer, such as
            ``litellm`` (:func:`cqbayes.logs.formats.importer.importer_names`); ``auto`` tells the
            first two apart.
        text: how text becomes contexts.
        turns: how turns of users become services.
        table: how a long table of services is read.
        time: length of blocks of time, ``"h"``, ``"D"`` or ``"W"``, for models that drift.
        attributes: numbers for each LLM, for models that use them.
        quarantine: where what is set aside is written, as JSON Lines. It holds what users wrote.
        strict: whether the first record or row that would be set aside is refused.
        progress: whether to show a bar while text is embedded.

    Raises:
        InputError: for what cannot be read, for an unknown format, for text without an encoder, and
            for a log that has no service, or more than fit into memory, or an LLM that is called
            ``retry`` or ``silence``.
    """
    known = (*FORMATS, *importer_names())
    if format not in known:
        raise InputError(f"format: expected one of {', '.join(known)}, got {format!r}")
    if not isinstance(log, str | Path | list | tuple):
        raise InputError(
            f"log: expected the path of a file, or several, got {type(log).__name__}; choice_data "
            "and infer take arrays"
        )
    is_choices = format == "choices" or (format == "auto" and _is_choices(log))
    if (table.rename or table.sort) and (is_choices or format not in ("auto", "services")):
        raise InputError(
            f"{'rename' if table.rename else 'sort'}: expected a long table of services, got "
            f"{'choice data' if is_choices else f'format {format}'}, with its own names and order"
        )
    if attributes and is_choices:
        raise InputError("attributes: expected none for choice data, which bring their own")
    if is_choices:
        if not isinstance(log, str | Path):
            raise InputError("choices: expected one file of choice data, got several")
        data, names = read_choices(log)
        llms = tuple(names or (f"llm{j}" for j in range(data.num_llms)))
        check_llm_names(llms)
        return Log(data, llms, notes=notes(data))
    made = detector = None
    if format in ("auto", "services"):
        stream: Any = read_services(
            log, rename=table.rename, sort=table.sort, quarantine=quarantine, strict=strict
        )
        batches = _gathered(stream)
        read = stream.report
    else:
        source = records.read_turns(
            load_importer(format), log, quarantine=quarantine, strict=strict
        )
        in_order = chains.in_order(pa.Table.from_batches(_gathered(source), TURNS))
        read = source.report
        detector = load_detector() if turns.detector is None else turns.detector
        stream = chains.services_of_turns(
            in_order, detector, threshold=turns.threshold, last=turns.last
        )
        batches, made = list(stream), stream.report
    if not batches:
        raise InputError(_nothing(log, format, read, made))
    rows = pa.Table.from_batches(batches)
    check_llm_names(pc.list_flatten(rows["offered"]).unique().to_pylist())
    coded, text = _with_contexts(batches, text, progress, time=time, attributes=attributes)
    inferred = ~np.asarray(rows["retry_probability"].is_null(), bool)
    errors = None if detector is None or detector.errors is None else detector.errors
    if errors is not None and errors.threshold == turns.threshold:
        errors = _over_all(errors, coded.data, inferred)
    else:
        errors = None
    own = read.notes if isinstance(read, ServicesReport) else notes(coded.data)
    propensity = rows["propensity"]
    return Log(
        coded.data,
        coded.llms,
        coded.users,
        text.projection,
        text.encoder,
        query=np.asarray(pc.dictionary_encode(rows["query_id"].combine_chunks()).indices),
        propensity=np.asarray(pc.fill_null(propensity, np.nan), np.float64),
        errors=errors,
        inferred=float(inferred.mean()),
        read=read,
        made=made,
        notes=(*own, *_doubts(read, made, errors, inferred.mean())),
        unit=coded.unit,
        times=coded.times,
    )


def _over_all(errors: Errors, data: ChoiceData, inferred: np.ndarray) -> Errors:
    choice = np.asarray(data.choice)
    retried, taken = choice == 0, choice > 0

    def count(which: np.ndarray) -> tuple[int, int]:
        return int((retried & which).sum()), int((taken & which).sum())

    return rates_over_all_rows(errors, count(~inferred), count(inferred))


def _nothing(log: Any, format: str, read: Any, made: chains.TurnCounts | None) -> str:
    """Why a log has no service, in one line."""
    where = log if isinstance(log, str | Path) else "log"
    if made is not None and made.dropped:
        return (
            f"{where}: expected a session in which something follows or the user gave a sign, got "
            f"{made.turns:,} turns without; last='taken' takes their answers for taken"
        )
    aside = ", ".join(f"{count:,} by {reason!r}" for reason, count in read.set_aside.items())
    first = next((f", first at {place[0]}" for place in read.places.values() if place), "")
    hint = f"; other formats are {', '.join(importer_names())}" if format == "auto" else ""
    return (
        f"{where}: expected at least one sound row, got none of {read.read:,}"
        f"{f': set aside {aside}' if aside else ''}{first}{hint}"
    )


def _doubts(
    read: Any, made: chains.TurnCounts | None, errors: Errors | None, inferred: float
) -> list[str]:
    """What may be wrong with a log as a whole."""
    found = []
    aside = sum(read.set_aside.values())
    if aside > 0.01 * read.read:
        found.append(
            f"{aside:,} of {read.read:,} records are set aside: if they differ from the rest, "
            "what is learnt is not true of all"
        )
    if made is not None and made.assumed:
        found.append(
            f"{made.assumed:,} answers are taken by assumption, since nothing follows them: users "
            "who left in silence among them are counted as satisfied"
        )
    if inferred and errors is None:
        found.append(
            "how often inferred outcomes are wrong is not known at this threshold, or of this "
            "detector: the model's default priors are used"
        )
    return found


def notes(data: ChoiceData) -> tuple[str, ...]:
    """What a log cannot tell, in words.

    Example:
        >>> import cqbayes
        >>> notes(cqbayes.choice_data([[1.0]], [[True]], [1]))[0]
        'no service was retried: how users differ from ones who take anything cannot be learnt'
    """
    choice, offered = np.asarray(data.choice), np.asarray(data.offered)
    found = []
    if not (choice == 0).any():
        found.append(
            "no service was retried: how users differ from ones who take anything cannot be learnt"
        )
    if not (choice > 0).any():
        found.append("no answer was taken: how LLMs differ can hardly be learnt")
    if offered.any(axis=0).sum() == 1:
        found.append("one LLM only: what is learnt does not help to choose among several")
    nobody = 0 if data.user is None else int((np.asarray(data.user) >= data.num_users).sum())
    if nobody:
        found.append(
            f"{nobody:,} of {data.num_obs:,} services have no user: none of them are linked, and a "
            "model of users takes each for the median user"
        )
    if data.num_obs < 10 * data.num_llms:
        found.append(f"{data.num_obs:,} services of {data.num_llms} LLMs: the prior decides much")
    return tuple(found)


def _is_choices(log: str | Path | Sequence[str | Path]) -> bool:
    if not isinstance(log, str | Path) or Path(log).suffix != ".parquet" or not Path(log).is_file():
        return False
    with parquet(str(log), log) as file:
        return {"context", "choice"} <= set(file.schema_arrow.names)


def _gathered(stream: Any) -> list[pa.RecordBatch]:
    """All batches, which have to fit into memory."""
    found, rows = [], 0
    for batch in stream:
        rows += batch.num_rows
        if rows > MOST_ROWS:
            raise InputError(
                f"log: expected at most {MOST_ROWS:,} rows to be fitted in memory, got more; "
                "cqbayes.logs.choices.minibatches reads a larger one part by part"
            )
        found.append(batch)
    return found


def _with_contexts(
    batches: list[pa.RecordBatch], how: TextOptions, progress: bool, **options: Any
) -> tuple[Coded, TextOptions]:
    """Choice data by the log's own embeddings, its text, or neither; and what made contexts."""
    unused = how._replace(encoder=None, projection=None)
    rows = pa.Table.from_batches(batches)
    if rows["embedding"].null_count < rows.num_rows:
        return choice_data_of(batches, **options), unused
    if how.encoder == CONSTANT:
        return choice_data_of(_with_text(batches), context=_ones, **options), unused
    if rows["text"].null_count == rows.num_rows:
        raise InputError(
            "log: expected text or embeddings, got neither; encoder='constant' fits without"
        )
    from cqbayes.embeddings.encoder import embed, load_encoder

    encoder, projection = how.encoder, how.projection
    if encoder is None or isinstance(encoder, str):
        encoder = load_encoder(*([] if encoder is None else [encoder]))
    texts = pc.unique(rows["text"].drop_null()).to_pylist()
    embedding = embed(texts, encoder, progress=progress)
    if projection is None:
        if np.ptp(embedding, axis=0).max() < 1e-6:
            raise InputError(
                "log: expected queries that differ, to make contexts of their text, got the same "
                "in all rows; encoder='constant' fits without"
            )
        projection = pca(embedding, min(how.dim, *embedding.shape), encoder=encoder.name)
    contexts = dict(zip(texts, projection(embedding, encoder.name), strict=True))
    coded = choice_data_of(
        batches, context=lambda asked: np.array([contexts[text] for text in asked]), **options
    )
    return coded, how._replace(encoder=encoder, projection=projection)


def _ones(text: list[str]) -> Float[np.ndarray, "query 1"]:
    return np.ones((len(text), 1))


def _with_text(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """With a text in every row, since contexts are made of texts."""
    place = batches[0].schema.get_field_index("text")
    return [
        batch.set_column(place, batch.schema.field(place), pc.fill_null(batch["text"], ""))
        for batch in batches
    ]

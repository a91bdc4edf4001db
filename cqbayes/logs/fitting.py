"""From a log to a fitted preference model in one call: :func:`fit`.

::

    log -> turns -> services -> choice data -> posterior

A log that already is a long table of services, or choice data, enters further on. Text becomes
contexts by a sentence encoder and principal components of the log's own queries. Where outcomes
were inferred, the model is put into ``misclassified``, with the detector's estimated error rates as
priors, so that the posterior knows that labels err.

The last turn of a session, to which nothing can be compared, is left out unless it shows what came
of it: taking it for an answer that was taken would hide the users who leave in silence, and its
error rates are not the detector's.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import xarray as xr
from jaxtyping import Float, Int

from cqbayes.answers import parquet
from cqbayes.catalogue import importer_names, load_importer, load_model, model_factory
from cqbayes.choice import ChoiceData
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Projection, load_projection, save_projection
from cqbayes.environments.scores import unit_rows
from cqbayes.errors import InputError
from cqbayes.inference import InferenceInfo, infer
from cqbayes.logs import chains, records, table
from cqbayes.logs.choices import Coded, choice_data_of, read_choices
from cqbayes.logs.retrials import Detector, Errors, load_detector, of_all_rows
from cqbayes.logs.schema import TURNS
from cqbayes.posterior import Posterior
from cqbayes.predict import acceptance, check_llm_names, queries, what_if, with_newcomer
from cqbayes.preference import PreferenceModel
from cqbayes.storage import load_posterior

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
    made: chains.Report | None = None
    notes: tuple[str, ...] = ()

    def contexts(self, text: Sequence[str]) -> Float[np.ndarray, "query dim"]:
        """Of new queries in words, as those of the log were made.

        Raises:
            InputError: for a log that brought its own contexts.
        """
        if self.projection is None:
            raise InputError("contexts: expected a log with text; this one brought its own")
        from cqbayes.embeddings.encoder import embed

        return self.projection(embed(list(text), self.encoder), self.projection.encoder)


class Fitted(NamedTuple):
    """A preference model fitted to a log, and what its engine says of the posterior."""

    log: Log
    posterior: Posterior
    info: InferenceInfo

    def acceptance(self, context: Any = None, *, seed: int = 0, **options: Any) -> xr.Dataset:
        """How probably users take each LLM's answer, were it the only one.

        Args:
            context: of new queries ``[query, dim]``; those of the log where absent.
            seed: decides the draws.
            options: others of :func:`cqbayes.predict.queries` (columns that the model needs) and
                :func:`cqbayes.predict.acceptance`.
        """
        columns = ("attributes", "user", "attempt", "time")
        given = {name: options.pop(name) for name in columns if name in options}
        if context is None:
            at = self.log.data.only(self.posterior.model.needs).situation
        else:
            at = queries(self.posterior, context, **given)
        options.setdefault("llms", list(self.log.llms))
        return acceptance(jax.random.key(seed), self.posterior, at, **options)


def fit(
    log: str | Path | Sequence[str | Path],
    *,
    model: str | PreferenceModel = "disjoint_mnl",
    engine: str = "auto",
    seed: int = 0,
    trust_labels: bool = False,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Fits a preference model to a log.

    Args:
        log: as in :func:`read_log`.
        model: a file of ``models/``, or a model.
        engine: as in :func:`cqbayes.infer`.
        seed: decides all randomness.
        trust_labels: whether inferred outcomes are taken for what users did. Otherwise, where there
            are any, the model is put into :mod:`cqbayes.models.misclassified`.
        settings: the engine's own.
        options: others of :func:`read_log`.

    Returns:
        What was fitted: look at ``fitted.info.ok`` and ``fitted.log.notes``.

    Raises:
        InputError: as :func:`read_log` and :func:`cqbayes.infer` do.

    Example:
        >>> import pathlib, tempfile
        >>> rows = ['{"query_id": "%d", "attempt": 1, "offered": ["a", "b"], "chosen": %s}' % pair
        ...         for pair in enumerate(['"a"', '"b"', "null", '"a"'])]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "log.jsonl"
        ...     _ = path.write_text("\\n".join(rows))
        ...     fitted = fit(path, engine="laplace", encoder="constant")
        >>> fitted.log.llms, fitted.log.data.choice.tolist()
        (('a', 'b'), [1, 2, 0, 1])
    """
    chosen = load_model(model) if isinstance(model, str) else model
    found = read_log(log, **options)
    if not trust_labels:
        chosen = aware(chosen, found)
    return fit_to(found, chosen, engine=engine, seed=seed, **(settings or {}))


def fit_to(
    log: Log, model: PreferenceModel, *, engine: str = "auto", seed: int = 0, **settings: Any
) -> Fitted:
    """Fits a model to a log that was read, as it is."""
    key = jax.random.key(seed)
    return Fitted(log, *infer(key, model, log.data, engine=engine, **settings))


def aware(model: PreferenceModel, log: Log) -> PreferenceModel:
    """The model put into ``misclassified`` where outcomes of the log were inferred.

    Its priors are ``log.errors``, where those are known, and its own defaults where they are not.
    """
    if not log.inferred or model.name == "misclassified":
        return model
    priors = {}
    if log.errors is not None:
        priors = {"recognised": log.errors.recognised, "specificity": log.errors.specificity}
    return model_factory("misclassified")(base=model, **priors)


def read_log(
    log: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    dim: int = 16,
    encoder: Any = None,
    projection: Projection | None = None,
    last: chains.Last = "drop",
    threshold: float = 0.5,
    detector: Detector | None = None,
    time: str | None = None,
    attributes: Mapping[str, Sequence[float]] | None = None,
    rename: Mapping[str, str] | None = None,
    sort: bool = False,
    quarantine: str | Path | None = None,
    strict: bool = False,
    progress: bool = False,
) -> Log:
    """Reads a log of any known format as choice data.

    Args:
        log: a file, a folder of files, or several files.
        format: ``services``, the long table (:mod:`cqbayes.logs.schema`); ``choices``, as
            :func:`cqbayes.logs.write_choices` writes them; an importer, such as ``litellm``
            (:func:`cqbayes.catalogue.importer_names`); ``auto`` tells the first two apart.
        dim: of contexts that are made of text: principal components, or fewer where the log has
            fewer queries. Embeddings and contexts that the log brings keep theirs.
        encoder: makes embeddings of text: an :class:`cqbayes.embeddings.encoder.Encoder`, the name
            of one, or the default one where absent; ``"constant"`` leaves text alone, and all
            contexts are the same.
        projection: made before, in place of principal components.
        last, threshold, detector: as in :func:`cqbayes.logs.chains.services`.
        time: length of blocks of time, ``"h"``, ``"D"`` or ``"W"``, for models that drift.
        attributes: numbers for each LLM, for models that use them.
        rename: names of columns of a long table, ``{theirs: ours}``.
        sort: whether rows of a long table are put in order first, see
            :func:`cqbayes.logs.table.services`. Turns always are.
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
    if (rename or sort) and (is_choices or format not in ("auto", "services")):
        raise InputError(
            f"{'rename' if rename else 'sort'}: expected a long table of services, got "
            f"{'choice data' if is_choices else f'format {format}'}, with its own names and order"
        )
    if is_choices:
        if not isinstance(log, str | Path):
            raise InputError("choices: expected one file of choice data, got several")
        data, names = read_choices(log)
        llms = tuple(names or (f"llm{j}" for j in range(data.num_llms)))
        check_llm_names(llms)
        return Log(data, llms, notes=notes(data))
    made = None
    if format in ("auto", "services"):
        stream: Any = table.services(
            log, rename=rename, sort=sort, quarantine=quarantine, strict=strict
        )
        batches = _gathered(stream)
        read = stream.report
        detector = None
    else:
        source = records.turns(load_importer(format), log, quarantine=quarantine, strict=strict)
        turns = chains.in_order(pa.Table.from_batches(_gathered(source), TURNS))
        read = source.report
        detector = load_detector() if detector is None else detector
        stream = chains.services(turns, detector, threshold=threshold, last=last)
        batches, made = list(stream), stream.report
    if not batches:
        raise InputError(_nothing(log, format, read, made))
    rows = pa.Table.from_batches(batches)
    check_llm_names(pc.list_flatten(rows["offered"]).unique().to_pylist())
    coded, projection, encoder = _with_contexts(
        batches, dim, encoder, projection, progress, time=time, attributes=attributes
    )
    inferred = ~np.asarray(rows["retry_probability"].is_null(), bool)
    errors = None if detector is None else detector.errors
    if errors is not None:
        errors = _over_all(errors, coded.data, inferred) if errors.threshold == threshold else None
    own = read.notes if isinstance(read, table.ServicesReport) else notes(coded.data)
    propensity = rows["propensity"]
    return Log(
        coded.data,
        coded.llms,
        coded.users,
        projection,
        encoder,
        query=np.asarray(pc.dictionary_encode(rows["query_id"].combine_chunks()).indices),
        propensity=np.asarray(pc.fill_null(propensity, np.nan), np.float64),
        errors=errors,
        inferred=float(inferred.mean()),
        read=read,
        made=made,
        notes=(*own, *_doubts(read, made, errors, inferred.mean())),
    )


def _over_all(errors: Errors, data: ChoiceData, inferred: np.ndarray) -> Errors:
    choice = np.asarray(data.choice)
    retried, taken = choice == 0, choice > 0

    def count(which: np.ndarray) -> tuple[int, int]:
        return int((retried & which).sum()), int((taken & which).sum())

    return of_all_rows(errors, count(~inferred), count(inferred))


def _nothing(log: Any, format: str, read: Any, made: chains.Report | None) -> str:
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
    read: Any, made: chains.Report | None, errors: Errors | None, inferred: float
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
                "cqbayes.logs.minibatches reads a larger one part by part"
            )
        found.append(batch)
    return found


def _with_contexts(
    batches: list[pa.RecordBatch],
    dim: int,
    encoder: Any,
    projection: Projection | None,
    progress: bool,
    **options: Any,
) -> tuple[Coded, Projection | None, Any]:
    """Choice data by the log's own embeddings, its text, or neither."""
    rows = pa.Table.from_batches(batches) if batches else None
    own = rows is not None and rows["embedding"].null_count < rows.num_rows
    if rows is None or own:
        return choice_data_of(batches, **options), None, None
    if encoder == CONSTANT:
        coded = choice_data_of(_with_text(batches), context=_ones, **options)
        return coded, None, None
    if rows["text"].null_count == rows.num_rows:
        raise InputError(
            "log: expected text or embeddings, got neither; encoder='constant' fits without"
        )
    from cqbayes.embeddings.encoder import embed, load_encoder

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
        projection = pca(embedding, min(dim, *embedding.shape), encoder=encoder.name)
    contexts = dict(zip(texts, projection(embedding, encoder.name), strict=True))
    coded = choice_data_of(
        batches, context=lambda asked: np.array([contexts[text] for text in asked]), **options
    )
    return coded, projection, encoder


def _ones(text: list[str]) -> Float[np.ndarray, "query 1"]:
    return np.ones((len(text), 1))


def _with_text(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """With a text in every row, since contexts are made of texts."""
    place = batches[0].schema.get_field_index("text")
    return [
        batch.set_column(place, batch.schema.field(place), pc.fill_null(batch["text"], ""))
        for batch in batches
    ]


# What people say and see


def renaming(said: Sequence[str]) -> dict[str, str]:
    """``theirs=ours`` of the shell as the ``rename`` of :func:`read_log`.

    Raises:
        InputError: for anything else, and for a column that is named twice.

    Example:
        >>> renaming(["a=b=query_id"])
        {'a=b': 'query_id'}
    """
    pairs = [one.rpartition("=") for one in said]
    if not all(theirs and ours for theirs, _, ours in pairs):
        raise InputError("rename: expected theirs=ours, such as id=query_id, got something else")
    found = {theirs: ours for theirs, _, ours in pairs}
    if len(found) < len(pairs):
        raise InputError("rename: expected each column of the log once, got one twice")
    return found


def told(log: Log) -> list[str]:
    """What became of a log, in lines; nothing that a user wrote."""
    lines = [] if log.read is None else [str(log.read), ""]
    if log.made is not None:
        counts = ", ".join(f"{value:,} {name}" for name, value in log.made._asdict().items())
        lines += [f"turns: {counts}", ""]
    if log.inferred:
        rates = "their error rates are not known"
        if log.errors is not None:
            rates = (
                f"over all outcomes, specificity is about {_mean(log.errors.specificity):.2f}, and "
                f"retries are recognised beyond guessing about {_mean(log.errors.recognised):.2f}"
            )
        lines.append(f"note: {log.inferred:.0%} of the outcomes are inferred; {rates}")
    known = () if log.read is None else getattr(log.read, "notes", ())
    lines += [f"note: {note}" for note in log.notes if note not in known]
    lines += _counts(log)
    rows, dim = log.data.context.shape
    return [*lines, f"{rows:,} services of {len(log.llms)} LLMs, contexts of {dim} dimensions", ""]


def _counts(log: Log) -> list[str]:
    """How often each LLM was offered and taken."""
    offered = np.asarray(log.data.offered)
    taken = np.bincount(np.maximum(np.asarray(log.data.choice), 0), minlength=len(log.llms) + 1)
    table = pd.DataFrame({"offered": offered.sum(axis=0), "taken": taken[1:]}, list(log.llms))
    retried = int((np.asarray(log.data.choice) == 0).sum())
    return ["", *table.to_string().splitlines(), f"retried: {retried:,}", ""]


def _mean(beta: tuple[float, float]) -> float:
    return beta[0] / sum(beta)


def shown(found: xr.Dataset, each: bool = False) -> pd.DataFrame:
    """A prediction as a table: over all queries, or of each."""
    mean, interval = ("mean", "interval") if each else ("overall_mean", "overall_interval")
    bounds = {str(b): found[interval].sel(ci_bound=b, drop=True) for b in found["ci_bound"].values}
    return xr.Dataset({"mean": found[mean], **bounds}).to_dataframe()


def save_contexts(posterior: Path, log: Log) -> Path | None:
    """Writes beside a posterior how contexts are made of text; None where they are not."""
    path = contexts_of(posterior)
    if log.projection is None:
        path.unlink(missing_ok=True)  # of an earlier log
        return None
    save_projection(path, log.projection)
    return path


def contexts_of(posterior: Path) -> Path:
    """Where it is written how contexts of a posterior are made of text."""
    return posterior.with_name(posterior.name + ".contexts.safetensors")


def predicted(
    posterior: str | Path,
    asked: str | Path,
    *,
    without: str | None = None,
    newcomer: bool = False,
    encoder: str | None = None,
    probability: float = 0.9,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of a posterior on disk for queries in a file: over all of them, and of each.

    Args:
        posterior: as ``cqbayes fit`` wrote it.
        asked: ``.txt`` with one query a line, or ``.jsonl`` or ``.parquet`` with ``text`` or
            ``embedding``.
        without: an LLM that answers no more, by name or else by number: shares of an assortment of
            all, before and after.
        newcomer: whether one more LLM is added that nothing is known of.
        encoder: name of the one that the log was fitted with; the default one where absent.
        probability: that the intervals hold.
        seed: decides the draws.

    Raises:
        InputError: for files that are not there or of another form, models that need more than
            contexts, and what :mod:`cqbayes.predict` refuses.
    """
    stored = load_posterior(posterior)
    llms = list(json.loads(stored.tree.attrs["llms"]))
    beliefs: Posterior = stored.posterior
    first, second = jax.random.split(jax.random.key(seed))
    if newcomer:
        beliefs, llms = with_newcomer(first, beliefs), [*llms, _new_name(llms)]
    at = queries(beliefs, _contexts_of(Path(asked), Path(posterior), encoder))
    if without is None:
        found = acceptance(second, beliefs, at, llms=llms, probability=probability)
    else:
        everybody = np.ones(len(llms), bool)
        found = what_if(
            second,
            beliefs,
            at,
            everybody,
            without=_llm(without, llms),
            llms=llms,
            probability=probability,
        )
    return shown(found), shown(found, each=True).reset_index()


def _new_name(llms: Sequence[str]) -> str:
    """A name for a newcomer that nobody has."""
    names = ("newcomer", *(f"newcomer{number}" for number in range(2, len(llms) + 2)))
    return next(name for name in names if name not in llms)


def _llm(said: str, llms: Sequence[str]) -> str | int:
    """An LLM by its name, or else, as the shell has only strings, by its number."""
    return int(said) if said not in llms and re.fullmatch("[0-9]{1,9}", said) else said


def _contexts_of(
    asked: Path, posterior: Path, encoder: str | None
) -> Float[np.ndarray, "query dim"]:
    kind, values = _asked(asked)
    if not values:
        raise InputError(f"{asked}: expected at least one query, got none")
    if kind == "embedding":
        try:
            return unit_rows(str(asked), np.array(values, np.float64).reshape(len(values), -1))
        except (TypeError, ValueError):
            raise InputError(
                f"{asked}: expected lists of numbers of one length in embedding, got others"
            ) from None
    if not all(isinstance(value, str) for value in values):
        raise InputError(f"{asked}: expected text in every row, got something else")
    from cqbayes.embeddings.encoder import embed, load_encoder

    place = contexts_of(posterior)
    if not place.is_file():
        raise InputError(
            f"{place}: expected the contexts that cqbayes fit writes beside a posterior of a log "
            "with text, found none; give embeddings in Parquet or JSON Lines"
        )
    chosen = load_encoder(*([] if encoder is None else [encoder]))
    projection = load_projection(place, encoder=chosen.name)
    return projection(embed(values, chosen, progress=True))


def _asked(path: Path) -> tuple[str, list[Any]]:
    """Queries of a file: whether they are text or embeddings, and which."""
    if path.suffix == ".parquet":
        with parquet(str(path), path) as file:
            column = _column(path, file.schema_arrow.names)
            return column, file.read([column])[column].to_pylist()
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
        return "text", lines
    try:
        rows = [json.loads(line) for line in lines]
        column = _column(path, rows[0] if rows else ["text"])
        return column, [row[column] for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: expected an object with text, or with embedding, in every line"
        ) from None


def _column(path: Path, names: Any) -> str:
    for column in ("embedding", "text"):
        if column in names:
            return column
    raise InputError(f"{path}: expected a column text or embedding, got neither")

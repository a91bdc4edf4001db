"""A log of any known format as choice data, in memory: :func:`read_log`.

Text becomes contexts by a sentence encoder and principal components of the log's own queries. What
became of every record, and what a log cannot tell, is said.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Float, Int

from cqbayes._tools.tables import parquet
from cqbayes.choice.data import SILENCE, ChoiceData
from cqbayes.diagnostics.data_verdict import MOST_SET_ASIDE, Checked, DataFacts
from cqbayes.diagnostics.stratified import Stratum
from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Projection
from cqbayes.errors import InputError
from cqbayes.logs.choice_files import read_choices
from cqbayes.logs.choices import Coded, choice_data_of, with_failures
from cqbayes.logs.formats.importer import importer_names, load_importer
from cqbayes.logs.retrials import chains
from cqbayes.logs.retrials.detector import CLASSES, ENDS, Detector, load_detector
from cqbayes.logs.retrials.labels import Labels, error_of_labels, read_labels
from cqbayes.logs.retrials.next_requests import NextRequests, next_requests
from cqbayes.logs.table.services import ServicesReport, read_services
from cqbayes.logs.turns import DAY, UNDATED, UNORDERED, RequestCounts, read_turns
from cqbayes.predict.predictions import check_llm_names

pc: Any = pyarrow.compute  # whose functions are made when it is imported

FORMATS = ("auto", "services", "choices")  # besides those of importers
MOST_ROWS = 5_000_000  # of a log that is fitted in memory
CONSTANT = "constant"
Signs = Literal["scored", "threshold", "explicit"]
LIST_LIKE = re.compile(r"^[\[({].*[\])}]$|[|]")


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
        seconds: since 1970, when each was asked ``[obs]``, NaN where unknown; None likewise.
        next_requests: what their scores mean, where next requests in other words are scored:
            their outcomes are signs, below -1 in ``data.choice``; None elsewhere.
        checked: what people said of the outcomes that are inferred; None without labels.
        spoken: how many next requests of each class follow each LLM's answers, of outcomes that
            are known: labelled as taken and as retrials, and shown to be taken and not to be.
        inferred: share of the services whose outcome was inferred by a detector, at a threshold.
        read: what became of the records or rows of the file; None for choice data.
        requests: what became of the requests in the records; None where there were none.
        made: what became of the turns; None likewise.
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
    seconds: Float[np.ndarray, " obs"] | None = None
    next_requests: NextRequests | None = None
    checked: Checked | None = None
    spoken: Int[np.ndarray, "4 llm class"] | None = None
    inferred: float = 0.0
    read: Any = None
    requests: RequestCounts | None = None
    made: chains.TurnCounts | None = None
    notes: tuple[str, ...] = ()
    unit: str | None = None
    times: tuple[datetime, ...] = ()

    @property
    def first_attempts(self) -> Int[np.ndarray, " query"]:
        """A row of each query: that of its first attempt, or the earliest that is there."""
        if self.query is None:
            return np.arange(self.data.num_obs)
        attempt = np.ones(self.data.num_obs, int)
        if self.data.attempt is not None:
            attempt = np.asarray(self.data.attempt)
        order = np.lexsort((attempt, self.query))
        first = np.unique(self.query[order], return_index=True)[1]
        return np.sort(order[first])

    @property
    def is_scored(self) -> bool:
        """Whether any outcome is left open to the score of a next request."""
        return self.next_requests is not None and bool(
            (np.asarray(self.data.choice) < SILENCE).any()
        )

    @property
    def repeats(self) -> bool:
        """Whether any query has more than one service."""
        return self.data.attempt is not None and bool((np.asarray(self.data.attempt) > 1).any())

    @property
    def facts(self) -> DataFacts:
        """The counts by which the data are judged."""
        choice = np.asarray(self.data.choice)
        offered = np.asarray(self.data.offered).sum(axis=0)
        first = self.first_attempts
        attempt = self.data.attempt
        begun = len(first) if attempt is None else int((np.asarray(attempt)[first] == 1).sum())
        missing = 0
        if self.data.user is not None:
            missing = int((np.asarray(self.data.user) >= self.data.num_users).sum())
        inferred = round(self.inferred * self.data.num_obs)
        found = DataFacts(
            services=self.data.num_obs,
            queries=len(first),
            first_attempts=begun,
            explicit=self.data.num_obs - inferred - int((choice < 0).sum()),
            inferred=inferred,
            retried=int((choice == 0).sum()),
            taken=int((choice > 0).sum()),
            silent=int((choice == SILENCE).sum()),
            followed=int((choice < SILENCE).sum()),
            offered=tuple(zip(self.llms, offered.tolist(), strict=True)),
            list_like_names=sum(bool(LIST_LIKE.search(name)) for name in self.llms),
            users_missing=missing,
        )
        if self.read is not None:
            aside = sum(self.read.set_aside.values())
            moved = getattr(self.read, "out_of_order", 0)
            found = found._replace(read=self.read.read, set_aside=aside, out_of_order=moved)
        if self.requests is not None:
            found = found._replace(
                requests=self.requests.requests,
                not_turns=tuple(self.requests.not_turns.items()),
                undated=sum(self.requests.not_turns.get(why, 0) for why in (UNDATED, UNORDERED)),
                sessions=self.requests.sessions,
                guessed_sessions=self.requests.guessed_sessions,
            )
        if self.made is not None:
            same = ("turns", "unattributed", "guessed", "explicit", "inferred", "went_on", "unseen",
                    "last", "guessed_retrials", "asked_again", "said_bad")  # fmt: skip
            found = found._replace(**{name: getattr(self.made, name) for name in same})
            if self.next_requests is not None:
                # Their outcomes are left open.
                found = found._replace(
                    inferred=0,
                    known_words=self.next_requests.known,
                    foreign=self.next_requests.foreign,
                )
            if self.spoken is not None:
                found = found._replace(spoken=self.spoken)
            if self.checked is not None:
                found = found._replace(checked=self.checked)
            taken = self.made.last if found.silent < self.made.last else 0
            found = found._replace(decreed_taken=taken, decreed_dropped=self.made.dropped)
        return found

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
    """How turns of users become services; see :func:`chains.services_of_turns`.

    Attributes:
        last: outcome of the last turn of a session where the user gave no sign: ``silent``, not
            known, for a model with abandonment; ``taken``; or ``drop``, which leaves it out.
        signs: what a next request in other words says of the answer before: ``scored``, as much as
            the detector's score says, and the outcome is left open; ``threshold``, that it was not
            taken if the detector finds that probable enough, and taken otherwise; ``explicit``,
            that it was taken, since users show retrials by the same request again.
        threshold: of the detector: from this probability on, a request is one more attempt.
        detector: the detector of the package where absent.
        idle: seconds after an answer until which a request can be a reaction to it.
        labels: what people said of pairs of requests of this log, as ``cqbayes label`` writes it.
    """

    last: chains.Last = "silent"
    signs: Signs = "scored"
    threshold: float = 0.5
    detector: Detector | None = None
    idle: float = DAY
    labels: Labels | str | Path | None = None


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
    most_set_aside: float = MOST_SET_ASIDE,
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
        most_set_aside: share of the records that may be set aside; a log with more is refused,
            since what is left would not speak for it.
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
    labels = turns.labels
    if isinstance(labels, str | Path):
        labels = read_labels(labels)
    if labels is not None and (is_choices or format in ("auto", "services")):
        raise InputError(
            "labels: expected a log of turns, in the format of an importer, since they are of its "
            "next requests; got one of services"
        )
    made = requests = scored = known = checked = spoken = None
    if format in ("auto", "services"):
        stream: Any = read_services(
            log,
            rename=table.rename,
            sort=table.sort or "memory",
            quarantine=quarantine,
            strict=strict,
        )
        batches = _gathered(stream)
        read = stream.report
    else:
        found = read_turns(
            load_importer(format), log, idle=turns.idle, quarantine=quarantine, strict=strict
        )
        read, requests = found.report, found.counts
        if turns.signs not in get_args(Signs):
            known = ", ".join(get_args(Signs))
            raise InputError(f"signs: expected one of {known}, got {turns.signs!r}")
        detector = load_detector() if turns.detector is None else turns.detector
        if labels is not None and turns.signs != "scored":
            raise InputError(
                f"labels: expected signs='scored', which they check, and no trust in what is "
                f"inferred; got {turns.signs!r}"
            )
        if turns.signs == "scored":
            scored = next_requests(detector, found.turns)
        stream = chains.services_of_turns(
            found.turns,
            detector,
            threshold=turns.threshold,
            next_turn="taken" if turns.signs == "explicit" else "infer",
            last=turns.last,
            idle=turns.idle,
            labels={} if labels is None else labels.said,
        )
        batches, made, known = list(stream), stream.report, stream.known
    if not batches:
        raise InputError(_nothing(log, format, read, requests, made))
    _check_set_aside(log, read, most_set_aside)
    rows = pa.Table.from_batches(batches)
    check_llm_names(pc.list_flatten(rows["offered"]).unique().to_pylist())
    coded, text = _with_contexts(batches, text, progress, time=time, attributes=attributes)
    probability = np.asarray(pc.fill_null(rows["retry_probability"], np.nan), float)
    inferred, data = ~np.isnan(probability), coded.data
    if scored is not None:
        assert known is not None
        labelled = known.labelled[inferred]
        scored = scored._replace(after=known.after)
        spoken = _spoken(data, known, inferred, scored.detector.classes(probability))
        if labels is not None:
            scored = scored._replace(labels=error_of_labels(labels))
            place = scored.detector.classes(probability[inferred])
            checked = _checked(labels, labelled, known.drawn_class[inferred], place)
        sign = scored.signs(probability[inferred], labelled)
        choice = data.choice.at[np.flatnonzero(inferred)].set(sign)
        data, inferred = dataclasses.replace(data, choice=choice), np.zeros(1)
    own = read.notes if isinstance(read, ServicesReport) else notes(data)
    query = np.asarray(pc.dictionary_encode(rows["query_id"].combine_chunks()).indices)
    data, broken = with_failures(data, query)
    if broken:
        own = (
            *own,
            f"{broken:,} services have a history that is not whole: a model that remembers "
            "failures cannot be fitted",
        )
    seconds = rows["timestamp"].cast(pa.int64()).to_numpy() / 1e6
    return Log(
        data,
        coded.llms,
        coded.users,
        text.projection,
        text.encoder,
        query=query,
        propensity=np.asarray(pc.fill_null(rows["propensity"], np.nan), np.float64),
        seconds=seconds,
        next_requests=scored,
        checked=checked,
        spoken=spoken,
        inferred=float(inferred.mean()),
        read=read,
        requests=requests,
        made=made,
        notes=own,
        unit=coded.unit,
        times=coded.times,
    )


def _checked(labels: Labels, labelled: np.ndarray, drawn: np.ndarray, place: np.ndarray) -> Checked:
    """Counts of the labels of a log.

    Args:
        labels: all that there are.
        labelled, drawn: of each pair of the log, as in ``chains.Known``.
        place: class of each pair's score.
    """
    matched = int((labelled >= 0).sum())
    if not matched:
        raise InputError(
            f"labels: expected labels of this log, got {len(labels.retrial):,} that are clear, "
            "none of a pair of requests that is in it as it is read now"
        )
    counts = (
        np.bincount(place[some], minlength=CLASSES)
        for some in (labelled >= -1, labelled >= 0, labelled == 1)
    )
    strata = tuple(Stratum(*map(int, one)) for one in zip(*counts, strict=True))
    elsewhere = len(labels.retrial) - matched
    moved = int(((drawn >= 0) & (drawn != place)).sum())
    return Checked(strata, ENDS, labels.counts, labels.agreement, elsewhere, moved)


def _spoken(
    data: ChoiceData, known: chains.Known, inferred: np.ndarray, place: np.ndarray
) -> Int[np.ndarray, "4 llm class"]:
    """Counts of next requests after answers whose outcome is known; see ``Log.spoken``.

    Args:
        data: rows of the log, each of one LLM.
        known: of these rows.
        inferred: which outcomes are inferred.
        place: class of the score where they are.
    """
    llm, choice = (np.asarray(column) for column in (data.offered, data.choice))
    outcome = np.where(inferred, known.labelled, np.where(choice > 0, 2, 3))
    place = np.where(inferred, place, known.shown_class)
    some = (outcome >= 0) & (place >= 0)
    counts = np.zeros((4, data.num_llms, CLASSES), int)
    np.add.at(counts, (outcome[some], llm.argmax(axis=1)[some], place[some]), 1)
    return counts


def _check_set_aside(log: Any, read: Any, most: float) -> None:
    aside = sum(read.set_aside.values())
    if aside > most * read.read:
        where = log if isinstance(log, str | Path) else "log"
        raise InputError(
            f"{where}: expected at most {most:.0%} of the records to be set aside, got "
            f"{aside:,} of {read.read:,}: {_reasons(read)}; mend them, or allow more "
            "(most_set_aside)"
        )


def _reasons(read: Any) -> str:
    """What was set aside, why, and where the first of each stands."""
    return ", ".join(
        f"{count:,} by {reason!r}"
        + (f" (first at {read.places[reason][0]})" if read.places.get(reason) else "")
        for reason, count in read.set_aside.items()
    )


def _nothing(
    log: Any,
    format: str,
    read: Any,
    requests: RequestCounts | None,
    made: chains.TurnCounts | None,
) -> str:
    """Why a log has no service, in one line."""
    where = log if isinstance(log, str | Path) else "log"
    if made is not None and made.dropped:
        return (
            f"{where}: expected a session in which something follows or the user gave a sign, got "
            f"{made.turns:,} turns without; last='silent' keeps them"
        )
    if made is not None and made.turns:
        return (
            f"{where}: expected at least one answer of a known LLM, got {made.turns:,} turns: "
            f"{made.failed:,} failed, {made.unattributed:,} of which it is not known whose answer "
            "was shown, or what came of it"
        )
    if requests is not None and requests.not_turns:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in requests.not_turns.items())
        calls = f" ({', '.join(requests.calls)})" if requests.calls else ""
        aside = f"; set aside: {_reasons(read)}" if read.set_aside else ""
        return f"{where}: expected at least one turn of a user, got {reasons}{calls}{aside}"
    aside = _reasons(read)
    hint = f"; other formats are {', '.join(importer_names())}" if format == "auto" else ""
    return (
        f"{where}: expected at least one sound row, got none of {read.read:,}"
        f"{f': set aside {aside}' if aside else ''}{hint}"
    )


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

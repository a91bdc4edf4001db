"""Pairs of consecutive turns, and their features: the input of a detector of retrials."""

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Float, Int

from cqbayes._tools.tables import check_columns
from cqbayes.errors import InputError

pc: Any = pyarrow.compute  # whose functions are made when it is imported

MOST_CHARS = 2_000  # of a text that are compared
MOST_CHARS_OF_PHRASES = 300  # of a text in which phrases are looked for: people complain first
CLOSE = 0.7  # from this similarity on, two texts may be one request; below, they share a subject
SHORTEST_GAP, LONGEST_GAP = 1.0, 1_800.0  # seconds; what is beyond says no more

# What the beginning of a turn says of the turn before, in English. Other languages have no phrases.
COMPLAINT = (
    r"\b(wrong|incorrect|not (right|correct|working|what)|(does ?n.?t|do ?n.?t|did ?n.?t|is ?n.?t"
    r"|does not|do not|did not|is not|not) (work|run|return|seem|match|take)\w*|fail(s|ed|ing)?"
    r"|still|mistakes?|you (forgot|missed)|try again|again|fix)\b"
)
AMENDMENT = (
    r"\b(instead|without|rather|i mean(t)?|i (want|need|wanted|said|asked)|should(n.?t)?|must"
    r"|not (allowed|using)|do ?n.?t (use|import)|change|modify|rewrite|make (it|this)|same|but)\b"
)
ONWARD = r"^(thanks?|thank you|ok(ay)?|great|perfect|now|next|then|also|hi|hello)\b"
# What interpreters and compilers print is the same in all languages.
FAULT = r"(traceback \(most recent|\b\w*(error|exception)s?: ?|segmentation fault|stack ?trace)"
_PHRASES = {"complaint": COMPLAINT, "amendment": AMENDMENT, "onward": ONWARD, "fault": FAULT}
_ENGLISH = ("complaint", "amendment", "onward")

FEATURES = ("edit", "tokens", "close", "gap", "length", *_PHRASES)
MEANING = "meaning"
_NEEDED = ("session_id", "turn", "timestamp", "text", "language", "failed", "repeated")


def features(
    first: pa.RecordBatch, second: pa.RecordBatch, meaning: Float[np.ndarray, " pair"] | None = None
) -> Float[np.ndarray, "pair feature"]:
    """Features of pairs of turns: a column for each of ``FEATURES``, and ``meaning`` where given.

    =============  =================================================================================
    ``edit``       1 less the edit distance (insertions and deletions) over both lengths, in [0, 1]
    ``tokens``     the same with the words of both in alphabetical order
    ``close``      how far the larger of these is on the way from ``CLOSE`` to 1, in [0, 1]
    ``gap``        log of the seconds between the two, from 1 second to half an hour
    ``length``     log of 1 + the second's characters
    ``complaint``  1 where the second begins with a complaint (in English), else 0
    ``amendment``  likewise where it says how the answer should have been
    ``onward``     likewise where it thanks or goes on to the next thing
    ``fault``      likewise where it quotes an error of a program
    ``meaning``    cosine of the embeddings of both, in [-1, 1]
    =============  =================================================================================

    Texts are compared without case, with white space folded, up to ``MOST_CHARS`` characters. NaN
    where nothing is known: a time or text is absent, or the language is known and not English.

    Args:
        first, second: turns (columns of ``TURNS``); the same row of both is a pair.
        meaning: the cosines, where texts were embedded.

    Raises:
        InputError: where the extra ``logs`` is absent, or the two are not of one length.

    Example:
        >>> said = {"text": ["sort a list", "wrong"], "timestamp": [0, 10_000_000]}
        >>> turns = pa.RecordBatch.from_pydict({**said, "language": ["English", "English"]})
        >>> found = features(turns[:1], turns[1:])[0]
        >>> {name: round(float(found[i]), 2) for i, name in enumerate(FEATURES)}
        {'edit': 0.12, 'tokens': 0.12, 'close': 0.0, 'gap': 2.3, 'length': 1.79, 'complaint': 1.0, \
'amendment': 0.0, 'onward': 0.0, 'fault': 0.0}
    """
    if first.num_rows != second.num_rows:
        raise InputError(
            f"pairs: expected as many first turns as second ones, got {first.num_rows} and "
            f"{second.num_rows}"
        )
    one, two = _plain(first.column("text")), _plain(second.column("text"))
    known = pc.and_(pc.is_valid(one), pc.is_valid(two)).to_numpy(zero_copy_only=False)
    edit, tokens = _similarities(one.fill_null("").to_pylist(), two.fill_null("").to_pylist())
    length = np.log1p(_numbers(pc.utf8_length(second.column("text"))))
    beginning = pc.utf8_slice_codeunits(two, 0, MOST_CHARS_OF_PHRASES)
    english = _english(second.column("language"))
    columns = [
        np.where(known, edit, np.nan),
        np.where(known, tokens, np.nan),
        np.where(known, np.clip((np.maximum(edit, tokens) - CLOSE) / (1 - CLOSE), 0, 1), np.nan),
        np.log(np.clip(seconds_between(first, second), SHORTEST_GAP, LONGEST_GAP)),
        length,
    ]
    for name, pattern in _PHRASES.items():
        said = _numbers(pc.match_substring_regex(beginning, pattern))
        columns.append(np.where(english, said, np.nan) if name in _ENGLISH else said)
    if meaning is not None:
        columns.append(np.asarray(meaning, np.float64))
    return np.stack(columns, axis=1)


def _plain(text: pa.Array) -> pa.Array:
    """Lower case, white space folded."""
    short = pc.utf8_lower(pc.utf8_slice_codeunits(text, 0, MOST_CHARS))
    # The search for white space to fold takes a tenth of the time that folding takes.
    ragged = pc.match_substring_regex(short, r"\s\s|[^\S ]").fill_null(False)
    folded = pc.replace_substring_regex(short.filter(ragged), r"\s+", " ")
    return pc.utf8_trim_whitespace(pc.replace_with_mask(short, ragged, folded))


def _similarities(one: list[str], two: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if find_spec("rapidfuzz") is None:
        raise InputError("retrials: expected the extra logs; pip install 'cqbayes[logs]'")
    from rapidfuzz import fuzz, process

    if not one:
        return np.zeros(0), np.zeros(0)
    edit, tokens = (
        process.cpdist(one, two, scorer=scorer, dtype=np.float32, workers=1).astype(float) / 100
        for scorer in (fuzz.ratio, fuzz.token_sort_ratio)
    )
    return edit, tokens


def seconds_between(first: pa.RecordBatch, second: pa.RecordBatch) -> Float[np.ndarray, " pair"]:
    """Seconds from the first of two turns to the second; NaN where a time is absent."""
    times = [batch.column("timestamp").cast(pa.int64()) for batch in (first, second)]
    return _numbers(pc.subtract(times[1], times[0])) / 1e6


def _english(language: pa.Array) -> Bool[np.ndarray, " pair"]:
    """Whether phrases in English may be looked for: also where no language is known."""
    said = pc.match_substring_regex(language.cast(pa.string()), r"(?i)^en(g|[-_]|$)")
    return said.fill_null(True).to_numpy(zero_copy_only=False)


def _numbers(values: pa.Array) -> np.ndarray:
    """As floats, NaN for null."""
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


class Pairs(NamedTuple):
    """Consecutive turns of a table: what a detector is trained on.

    Attributes:
        first: row of the table in which the first of each pair stands.
        second: row in which the second of each pair stands.
        features: as of :func:`features`.
    """

    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    features: Float[np.ndarray, "pair feature"]


def pairs(turns: pa.Table, encoder: Any = None) -> Pairs:
    """All turns of a sorted table that were answered, each with the next one of its session.

    Turns that failed are skipped: the turns around them make a pair.

    Args:
        turns: columns of ``TURNS``, with the turns of a session together and in order.
        encoder: a sentence encoder, for the feature ``meaning``.

    Raises:
        InputError: for a missing column, or a missing extra.
    """
    check_columns("turns", turns.column_names, _NEEDED)
    rows = turns.select(list(_NEEDED)).combine_chunks()
    answered = np.flatnonzero(~flags(rows["failed"]))
    session = rows["session_id"].take(pa.array(answered)).combine_chunks()
    same = pc.equal(session[:-1], session[1:]).to_numpy(zero_copy_only=False)
    first, second = answered[:-1][same], answered[1:][same]
    one, two = (_batch(rows.take(pa.array(which))) for which in (first, second))
    meaning = None if encoder is None else cosines(one, two, encoder)
    return Pairs(first, second, features(one, two, meaning))


def _batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def flags(column: pa.Array | pa.ChunkedArray) -> Bool[np.ndarray, " row"]:
    """Whether each value is true; null counts as false."""
    return np.asarray(column.cast(pa.bool_()).fill_null(False))


def cosines(
    first: pa.RecordBatch, second: pa.RecordBatch, encoder: Any
) -> Float[np.ndarray, " pair"]:
    """Cosines of the embeddings of two turns' texts; NaN where a text is absent."""
    from cqbayes.embeddings.encoder import embed

    found = np.full(first.num_rows, np.nan)
    columns = [pc.utf8_slice_codeunits(b.column("text"), 0, MOST_CHARS) for b in (first, second)]
    known = np.flatnonzero(np.asarray(pc.and_(*map(pc.is_valid, columns))))
    if len(known):
        one, two = (embed(c.take(pa.array(known)).to_pylist(), encoder) for c in columns)
        found[known] = np.sum(one.astype(float) * two, axis=1)
    return found

"""Pairs of consecutive requests: what a detector of retrials is trained on, and what it reads."""

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
CLOSE = 0.7  # from this similarity on, two texts may be one request; below, they share a subject
_NEEDED = ("session_id", "text", "failed")


def closeness(first: pa.Array, second: pa.Array) -> Float[np.ndarray, " pair"]:
    """How nearly the second text of each pair is the first, from 0 (not at all) to 1 (the same).

    The larger of two similarities, 1 less the edit distance (insertions and deletions) over both
    lengths, of the texts and of their words in alphabetical order: how far it is on the way from
    ``CLOSE`` to 1. Case and white space make no difference. 0 where a text is absent.

    Args:
        first, second: strings.

    Raises:
        InputError: where the extra ``logs`` is absent.

    Example:
        >>> one = pa.array(["sort a list", "sort a list", None])
        >>> closeness(one, pa.array(["Sort a  list", "wrong", "sort"])).tolist()
        [1.0, 0.0, 0.0]
    """
    if find_spec("rapidfuzz") is None:
        raise InputError("retrials: expected the extra logs; pip install 'cqbayes[logs]'")
    from rapidfuzz import fuzz, process

    if not len(first):
        return np.zeros(0)
    one, two = (_plain(texts).fill_null("").to_pylist() for texts in (first, second))
    scored = [
        process.cpdist(
            one, two, scorer=scorer, score_cutoff=100 * CLOSE, dtype=np.float32, workers=1
        )
        for scorer in (fuzz.ratio, fuzz.token_sort_ratio)
    ]
    known = np.asarray(pc.and_(pc.is_valid(first), pc.is_valid(second)), bool)
    similarity = np.maximum(*scored).astype(float) / 100
    return np.where(known, np.clip((similarity - CLOSE) / (1 - CLOSE), 0, 1), 0.0)


def _plain(text: pa.Array) -> pa.Array:
    """Lower case, white space folded."""
    short = pc.utf8_lower(pc.utf8_slice_codeunits(text, 0, MOST_CHARS))
    # The search for white space to fold takes a tenth of the time that folding takes.
    ragged = pc.match_substring_regex(short, r"\s\s|[^\S ]").fill_null(False)
    folded = pc.replace_substring_regex(short.filter(ragged), r"\s+", " ")
    return pc.utf8_trim_whitespace(pc.replace_with_mask(short, ragged, folded))


class Pairs(NamedTuple):
    """Rows of a table of turns in which the requests of each pair stand.

    Attributes:
        first, second: rows.
    """

    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]


def consecutive(turns: pa.Table) -> Pairs:
    """All turns of a sorted table that were answered, each with the next one of its session.

    Turns that failed are skipped: the turns around them make a pair.

    Args:
        turns: columns of ``TURNS``, with the turns of a session together and in order.

    Raises:
        InputError: for a missing column.
    """
    answered, same = _answered(turns)
    return Pairs(answered[:-1][same], answered[1:][same])


def opening(turns: pa.Table) -> Int[np.ndarray, " session"]:
    """The row of the first turn of each session that was answered; it says nothing of an answer.

    Args:
        turns: as in :func:`consecutive`.
    """
    answered, same = _answered(turns)
    return answered[np.append(True, ~same)[: len(answered)]]


def _answered(turns: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Rows that were answered, and whether the next of them is of the same session."""
    check_columns("turns", turns.column_names, _NEEDED)
    answered = np.flatnonzero(~flags(turns["failed"]))
    session = turns["session_id"].take(pa.array(answered))
    return answered, np.asarray(pc.equal(session[:-1], session[1:]), bool)


def flags(column: pa.Array | pa.ChunkedArray) -> Bool[np.ndarray, " row"]:
    """Whether each value is true; null counts as false."""
    return np.asarray(column.cast(pa.bool_()).fill_null(False))

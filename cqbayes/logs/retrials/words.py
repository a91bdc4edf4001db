"""Hashed words and pairs of words of texts: a vocabulary that nobody has to keep.

A word is a run of letters, digits, underscores and bytes beyond ASCII, in lower case. Its hash is
of its first eight bytes, its last eight and its length, which are read where they stand: no word is
copied or looked at by itself.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Float, Int

pc: Any = pyarrow.compute  # whose functions are made when it is imported

BITS = 16  # of a bucket
MOST_CHARS = 300  # of a text whose words count: people say first what was wrong

_ODD, _FIRST, _SECOND = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64
)
_KEPT = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # the first n bytes of eight
_IS_WORD = np.array([b >= 128 or chr(b).isalnum() or chr(b) == "_" for b in range(256)])


class Words(NamedTuple):
    """Buckets of the words and pairs of words of several texts, in no order within a text.

    Attributes:
        bucket: of each word or pair, texts one after another.
        text: which text it is of.
        count: how many each text has.
    """

    bucket: Int[np.ndarray, " word"]
    text: Int[np.ndarray, " word"]
    count: Int[np.ndarray, " text"]

    def weighed(self, weights: Float[np.ndarray, " bucket"]) -> Float[np.ndarray, " text"]:
        """The sum of the weights of each text's words, over the root of their number."""
        total = np.bincount(self.text, weights[self.bucket], len(self.count))
        return total / np.sqrt(np.maximum(self.count, 1))


def hashed_words(texts: pa.Array) -> Words:
    """Words and pairs of words of texts, up to ``MOST_CHARS`` characters of each.

    Args:
        texts: strings; null has no words.

    Example:
        >>> found = hashed_words(pa.array(["Why not?", "why  NOT", None, "not why"]))
        >>> found.count.tolist(), found.text.tolist()
        ([3, 3, 0, 3], [0, 0, 1, 1, 3, 3, 0, 1, 3])
        >>> sorted(found.bucket[found.text == 0]) == sorted(found.bucket[found.text == 1])
        True
    """
    short = pc.utf8_slice_codeunits(pc.fill_null(texts.cast(pa.string()), ""), 0, MOST_CHARS)
    short = pc.utf8_lower(pc.replace_substring(short, "\u2019", "'"))
    _, offsets, data = short.buffers()
    ends = np.frombuffer(offsets, np.int32)[short.offset :][: len(short) + 1]
    said = np.zeros(ends[-1] - ends[0] + 8, np.uint8)  # eight bytes can be read at each place
    said[:-8] = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    ends = ends - ends[0]
    inside = _IS_WORD[said]
    inside[-8:] = False
    # A word ends where its text does, too.
    goes_on = np.append(False, inside[:-1])
    goes_on[ends[:-1]] = False
    start = np.flatnonzero(inside & ~goes_on)
    stop = np.flatnonzero(inside & ~np.append(goes_on[1:] & inside[1:], False)) + 1
    eight = np.ndarray(len(said) - 7, "<u8", said, strides=(1,))
    kept = _KEPT[np.minimum(stop - start, 8)]
    first, last = eight[start] & kept, eight[np.maximum(stop - 8, start)] & kept
    word = _mixed(_mixed(first) + last * _FIRST + (stop - start).astype(np.uint64))
    number = np.diff(np.searchsorted(start, ends))  # of words of each text
    text = np.repeat(np.arange(len(short)), number)
    together = np.flatnonzero(text[1:] == text[:-1])
    pair = _mixed(word[together] + word[together + 1] * _SECOND)
    bucket = np.concatenate([word, pair]) >> np.uint64(64 - BITS)
    text = np.concatenate([text, text[together]])
    return Words(bucket.astype(np.int64), text, number + np.maximum(number - 1, 0))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Another number for each, whose upper bits depend on all bits."""
    x = (x ^ (x >> np.uint64(32))) * _ODD
    return (x ^ (x >> np.uint64(29))) * _ODD

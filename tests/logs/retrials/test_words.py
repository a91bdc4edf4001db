"""Hashed words: by a slow reference, one word at a time, that hashes by the same rule."""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.logs.retrials.words import BITS, MOST_CHARS, Words, hashed_words

pc: Any = pyarrow.compute  # whose functions are made when it is imported
CUT = (1 << 64) - 1


def _mixed(x: int) -> int:
    x = ((x ^ (x >> 32)) * 0x9E3779B97F4A7C15) & CUT
    return ((x ^ (x >> 29)) * 0x9E3779B97F4A7C15) & CUT


def _hash(word: bytes) -> int:
    first, last = (int.from_bytes(part, "little") for part in (word[:8], word[-8:]))
    return _mixed((_mixed(first) + last * 0xC2B2AE3D27D4EB4F + len(word)) & CUT)


def _by_hand(text: str | None) -> list[int]:
    """Buckets of the words and pairs of words of one text, sorted."""
    lower = pc.utf8_lower(pa.scalar((text or "")[:MOST_CHARS])).as_py()
    words = [_hash(word) for word in re.findall(rb"[0-9A-Za-z_\x80-\xff]+", lower.encode())]
    pairs = [_mixed((one + two * 0x165667B19E3779F9) & CUT) for one, two in pairwise(words)]
    return sorted(number >> (64 - BITS) for number in words + pairs)


def _of(found: Words, text: int) -> list[int]:
    return sorted(found.bucket[found.text == text].tolist())


def _is_right(texts: list[str | None], found: Words) -> None:
    assert len(found.count) == len(texts)
    assert len(found.bucket) == len(found.text) == found.count.sum()
    for place, text in enumerate(texts):
        assert _of(found, place) == _by_hand(text), text
        assert found.count[place] == len(_by_hand(text))


TEXTS = [
    "Why not?",
    "",
    None,
    "   ",
    "...",
    "word",
    "word",  # a word ends where its text does
    "a_b-c 12.5",
    "x" * 7,
    "x" * 8,
    "x" * 9,
    "x" * 16,
    "x" * 17,
    "abcdefghijklmnopqrstuvwxyz of supercalifragilisticexpialidocious",
    "Größe ändern, naïve café",
    "日本語 の 文 日本語",
    "it's 🙂 fine🙂",
    "tab\tand\nline\r\nbreaks\0here",
    "long " * 200,
    "é" * 400,
    "last",
]


def test_words_are_those_of_the_reference():
    _is_right(TEXTS, hashed_words(pa.array(TEXTS)))


@pytest.mark.parametrize(("start", "length"), [(3, 10), (5, 0), (13, 99), (0, 1), (2, 1)])
def test_slices_are_read_where_they_stand(start, length):
    _is_right(TEXTS[start:][:length], hashed_words(pa.array(TEXTS).slice(start, length)))


@pytest.mark.parametrize("texts", [[], [None], [None, None], [""], ["a"]])
def test_few_texts(texts):
    _is_right(texts, hashed_words(pa.array(texts, pa.string())))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.none() | st.text("aB _é日🙂.\n1", max_size=40), max_size=6), st.integers(0, 3))
def test_any_texts(texts, start):
    found = hashed_words(pa.array(texts, pa.string()).slice(min(start, len(texts))))
    _is_right(texts[start:], found)


def test_no_pair_reaches_over_the_end_of_a_text():
    together, apart = hashed_words(pa.array(["a b"])), hashed_words(pa.array(["a", "b"]))
    assert together.count.tolist() == [3]
    assert apart.count.tolist() == [1, 1]
    assert set(apart.bucket) < set(together.bucket)
    # No mark stands between these texts: the word goes on in the next one's bytes.
    assert hashed_words(pa.array(["so", "me"])).count.tolist() == [1, 1]


def test_what_counts_is_the_first_characters():
    start = "é" * (MOST_CHARS - 2) + " "
    cut, kept, more = (_of(hashed_words(pa.array([start + end])), 0) for end in ("xy", "x", "x z"))
    assert cut == kept == more


def test_the_same_words_have_the_same_buckets_and_others_have_others():
    alike = hashed_words(pa.array(["Not  WORKING!", "not working", "(not) working?"]))
    assert _of(alike, 0) == _of(alike, 1) == _of(alike, 2)
    order = hashed_words(pa.array(["not working", "working not"]))
    assert len(set(_of(order, 0)) & set(_of(order, 1))) == 2  # the words, not the pair
    # Words that differ in one byte, in length alone, or by what is past their first eight.
    words = ["a", "b", "aa", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaab", "baaaaaaaa", "a" * 16, "a" * 17]
    assert len({int(hashed_words(pa.array([word])).bucket[0]) for word in words}) == len(words)
    # The middle of a word of more than sixteen bytes is not looked at.
    long = hashed_words(pa.array(["a" * 8 + "x" + "b" * 8, "a" * 8 + "y" + "b" * 8]))
    assert _of(long, 0) == _of(long, 1)


def test_buckets_are_used_evenly():
    """Of n words in m buckets, n (n - 1) / 2m pairs collide by chance."""
    num = 20_000
    bucket = hashed_words(pa.array([f"word{i}" for i in range(num)])).bucket
    assert bucket.min() >= 0
    assert bucket.max() < 1 << BITS
    same = np.bincount(bucket, minlength=1 << BITS)
    collisions = (same * (same - 1) / 2).sum()
    expected = num * (num - 1) / 2 / (1 << BITS)
    assert abs(collisions - expected) < 5 * np.sqrt(expected)


def test_sums_of_weights():
    texts = ["not working", None, "no", ""]
    weights = np.random.default_rng(0).normal(size=1 << BITS)
    exact = [weights[found].sum() / np.sqrt(max(len(found), 1)) for found in map(_by_hand, texts)]
    assert hashed_words(pa.array(texts)).weighed(weights) == pytest.approx(exact)

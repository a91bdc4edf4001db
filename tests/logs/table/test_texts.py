"""Values in cells of text: a list is read as it was meant, and nothing else is taken for one."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqbayes.logs.table.texts import names, number, numbers, truth, whole

WORDS = st.lists(st.text(max_size=8), min_size=1, max_size=5)
CHEAP = settings(max_examples=50, deadline=None)


def _is_refused(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gpt-4o", ["gpt-4o"]),
        ("llama (8B)", ["llama (8B)"]),
        (" a | b ", ["a", "b"]),
        ("a||b", ["a", "", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a","b"]', ["a", "b"]),
        ("[\n  'a',\n  'b',\n]", ["a", "b"]),
        ("('a',)", ["a"]),
        ("{'a', 'b'}", ["a", "b"]),
        ("frozenset({'a', 'b'})", ["a", "b"]),
        ("set(['a'])", ["a"]),
        ("['a' \"b's\"\n 'c']", ["a", "b's", "c"]),
        ("array(['a', 'b'], dtype='<U1')", ["a", "b"]),
        ("array(['a'], dtype=object)", ["a"]),
        ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
        ("[a, meta/llama-3.1:free]", ["a", "meta/llama-3.1:free"]),
        ("{a,b}", ["a", "b"]),
        ("[1, 2]", ["1", "2"]),
        ("['a', None, nan, null]", ["a", None, None, None]),
        (r"['\x41\u0042\U00000043', 'a\\b\n']", ["ABC", "a\\b\n"]),
        (r'["\ud83d\ude00"]', ["\N{GRINNING FACE}"]),
        ("[]", []),
        ("set()", []),
        ("frozenset()", []),
    ],
)
def test_names_of_a_cell(text, wanted):
    assert names(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "[", "['a', 'b'", "['a', 'b')", "['a']x", "(free) a", "array()", "array('a')",
        "['a'b]", "['a' b]", "[a b]", "['a' 'b', 'c']", "[,]", "['a',,'b']", "['a',", "[a|b]",
        "[['a'], 'b']", "{'a': 1}", "['a' ... 'b']", "[True, False]", "[1.0, 2.0]", "[1 2]",
        "[inf]", r"['\q']", r"['\ud83d']", r"['\xg0']", "[__import__('os')]", "[f('a')]",
        "['a'.upper()]", "[a + b]", "[*a]", "[np.str_('a')", "[np.str_('a'), np.str_()]",
    ],
)  # fmt: skip
def test_what_begins_as_a_list_and_is_none_is_refused(text):
    assert _is_refused(names, text)


@CHEAP
@given(WORDS)
def test_names_as_python_json_and_numpy_write_them(words):
    for text in (repr(words), repr(tuple(words)), json.dumps(words), str(words)):
        assert names(text) == words
    assert names(json.dumps(words, ensure_ascii=False)) == words
    assert names(str(np.array(words, object))) == words
    assert set(names(repr(set(words)))) == set(words)
    assert set(names(repr(frozenset(words)))) == set(words)


@CHEAP
@given(st.text(alphabet="['\",]} \\anp.str_(|{x", max_size=12))
def test_whatever_stands_there_is_read_or_refused(text):
    """A list that Python itself reads as strings is read as the same, or refused."""
    try:
        found = names(text)
    except ValueError:
        return
    try:
        literal = json.loads(text)
    except ValueError:
        return
    if isinstance(literal, list) and all(isinstance(one, str) for one in literal):
        assert found == literal


def test_long_texts_take_no_time():
    """Quadratic or worse would not end."""
    for text in (
        "['" + "x" * 1_000_000,
        "['" + "\\x" * 500_000,
        "[" + "'a' " * 250_000 + "x]",
        "[" + "a," * 500_000 + "']",
        "array(" + "[" * 1_000_000,
        "array(" + ", dtype=a" * 100_000,
    ):
        assert _is_refused(names, text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[0.5, 1]", [0.5, 1]),
        ("(0.5, 1.0,)", [0.5, 1]),
        ("[5.e-01 1.e+00\n 2.]", [0.5, 1, 2]),
        ("[np.float64(0.5), np.float32(1.0)]", [0.5, 1]),
        ("array([0.5, 1.], dtype=float32)", [0.5, 1]),
        ("[]", []),
    ],
)
def test_numbers_of_a_cell(text, wanted):
    assert numbers(text) == wanted


@pytest.mark.parametrize(
    "text", ["0.5", "0.5 1", "[0.5 ... 1]", "[0.5,, 1]", "['a']", "[1_0 2]", "[[0.5 1]", "", "{}"]
)
def test_what_is_no_list_of_numbers_is_refused(text):
    assert _is_refused(numbers, text)


@CHEAP
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5))
def test_numbers_as_python_and_numpy_write_them(values):
    assert numbers(repr(values)) == numbers(repr(tuple(values))) == values
    short = numbers(repr([np.float32(value) for value in values]))
    assert np.array(short, np.float32).tolist() == values
    np.testing.assert_allclose(numbers(str(np.array(values))), values, rtol=1e-6, atol=1e-8)


def test_single_values():
    assert [number(text) for text in ("0.5", " 1e-3 ", "np.float64(2.0)")] == [0.5, 0.001, 2]
    assert [whole(text) for text in ("1", "+2", "3.0", "4.", "np.int64(5)")] == [1, 2, 3, 4, 5]
    texts = ("True", "1", "1.0", "np.True_", "false", "0", "0.0", "np.False_")
    assert [truth(text) for text in texts] == [True] * 4 + [False] * 4
    for text in ("1_0", "one", "np.float64(x)", ""):
        assert _is_refused(number, text)
    for text in ("1.5", "1e3", ""):
        assert _is_refused(whole, text)
    for text in ("2", "no", ""):
        assert _is_refused(truth, text)

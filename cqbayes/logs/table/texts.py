"""Values that stand in a cell as text: as JSON, Python, NumPy or pandas write them.

What a table of pandas becomes in a CSV is the text that Python shows of each value: a list of names
is ``['a', 'b']``, an array ``['a' 'b']``, a whole number beside missing ones ``1.0``. Nothing is
evaluated here: a text has one of the forms below, or is refused with ``ValueError``.
"""

import json
import re
from typing import Any

SEPARATOR = "|"  # of names in a cell, where a format has no lists

# What programs write where nothing is known. In a text of a user only those that nobody writes.
NOTHING = ("", "NaN", "nan", "None", "null", "NULL", "NA", "N/A", "n/a", "<NA>", "NaT")
NOTHING_IN_TEXT = ("NaN", "nan", "<NA>")

_CLOSES = {"[": "]", "(": ")", "{": "}"}
_CALL = r"(?:frozenset|set|array)\("
_IS_LIST = re.compile(rf"(?:{_CALL}|[\[({{])")
_CALLED = re.compile(rf"{_CALL}\s*(.*?)\s*(?:,\s*dtype=(?:\w+|'[^']*'))?\)", re.DOTALL)
# Possessive, so that a quote that does not close costs no more time than its length.
_STRING = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_QUOTED = rf"(?:np\.str_\((?:{_STRING})\)|{_STRING})"
_BARE = r"\w[\w./:@+#-]*+"
_NAMED = rf"(?:{_QUOTED}|{_BARE})"
_COMMAS = re.compile(rf"{_NAMED}(?:\s*,\s*{_NAMED})*+\s*,?", re.DOTALL)
_SPACES = re.compile(rf"{_QUOTED}(?:\s+{_QUOTED})*+", re.DOTALL)
_NAME = re.compile(rf"(?:np\.str_\()?(?P<string>{_STRING})|(?P<bare>{_BARE})", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = dict(zip("nrtbfv0/\\'\"", "\n\r\t\b\f\v\0/\\'\"", strict=True))
_OF_NUMPY = re.compile(r"np\.\w+\(([^()]*)\)")
_WHOLE = re.compile(r"([+-]?\d{1,20})(?:\.0*)?", re.ASCII)
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def names(text: str) -> list[str | None]:
    """The names in a cell: one, several split by ``|``, or a list as JSON, Python or NumPy have it.

    Args:
        text: of the cell. Names in a list may stand without quotes if commas split them.

    Raises:
        ValueError: for what begins as a list and is none.

    Example:
        >>> names("a | b"), names("['a', \\"b\\"]"), names("['a' 'b']"), names("frozenset({'a'})")
        (['a', 'b'], ['a', 'b'], ['a', 'b'], ['a'])
    """
    text = text.strip()
    if not _IS_LIST.match(text):
        return [name.strip() for name in text.split(SEPARATOR)]
    inside = _inside(text)
    if not (inside == "" or _COMMAS.fullmatch(inside) or _SPACES.fullmatch(inside)):
        raise ValueError
    found = _NAME.finditer(inside)
    return [_bare(name["bare"]) if name["bare"] else _unquoted(name["string"]) for name in found]


def _inside(text: str) -> str:
    """What stands between the brackets of a list, tuple, set or array."""
    called = _CALLED.fullmatch(text)
    if called:
        text = called[1]
        if not text and not called[0].startswith("array"):
            return ""
    if len(text) < 2 or text[-1] != _CLOSES.get(text[0]):
        raise ValueError
    return text[1:-1].strip()


def _bare(word: str) -> str | None:
    """A name without quotes, which may be a whole number; other numbers and truths are no names."""
    if word in NOTHING:
        return None
    if word.lower() in ("true", "false"):
        raise ValueError
    try:
        float(word)
    except ValueError:
        return word
    if not word.isdecimal():
        raise ValueError
    return word


def _unquoted(string: str) -> str:
    body = string[1:-1]
    if "\\" not in body:
        return body
    # JSON writes one character as two surrogates; one alone is refused.
    return _ESCAPE.sub(_escaped, body).encode("utf-16", "surrogatepass").decode("utf-16")


def _escaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code:
        return chr(int(code, 16))
    if escape[4] not in _ESCAPED:
        raise ValueError
    return _ESCAPED[escape[4]]


def numbers(text: str) -> list[Any]:
    """The numbers in a cell that holds a list as JSON, Python or NumPy write it.

    Raises:
        ValueError: for what is no list of numbers, and for an array that NumPy cut short.

    Example:
        >>> numbers("[0.5, 1]"), numbers("[5.e-01 1.e+00]"), numbers("(np.float32(0.5), 1)")
        ([0.5, 1], [0.5, 1.0], [0.5, 1.0])
    """
    try:
        found = json.loads(text)
    except ValueError:
        inside = _OF_NUMPY.sub(r"\1", _inside(text.strip()))
        parts = inside.removesuffix(",").split(",") if "," in inside else inside.split()
        return [number(part) for part in parts]
    if not isinstance(found, list):
        raise ValueError
    return found


def number(text: str) -> float:
    """A number, also as NumPy shows it; raises ``ValueError``.

    Example:
        >>> number("0.5"), number("np.float64(0.5)")
        (0.5, 0.5)
    """
    if "_" in (text := _plain(text)):  # which Python takes for a separator of digits
        raise ValueError
    return float(text)


def whole(text: str) -> int:
    """A whole number, also as ``1.0``; raises ``ValueError``."""
    found = _WHOLE.fullmatch(_plain(text))
    if found is None:
        raise ValueError
    return int(found[1])


def truth(text: str) -> bool:
    """True or false, also as 1 or 0; raises ``ValueError``."""
    found = _TRUTHS.get(text.strip().lower().removeprefix("np.").removesuffix("_"))
    if found is None:
        raise ValueError
    return found


def _plain(text: str) -> str:
    text = text.strip()
    shown = _OF_NUMPY.fullmatch(text)
    return shown[1] if shown else text

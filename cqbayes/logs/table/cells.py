"""From the cells of files to the columns of ``SERVICES``.

A cell that does not fit becomes null and is marked as wrong: one wrong cell costs one row.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import TICKS, SetAside, moment
from cqbayes.logs.schema import SERVICES, TIME
from cqbayes.logs.table.validation import CELL, CODE, ENCODING, TIMESTAMP

SEPARATOR = "|"  # of the LLMs in a cell of offered, where a format has no lists

# Errors of libraries for cells that do not fit. Their messages hold the cell, so they are not
# shown.
_MISFIT = (pa.ArrowException, ValueError, OverflowError, RecursionError)
_WHOLE = re.compile(r"[+-]?\d{9,}", re.ASCII)
_ZONE = r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"

Column = tuple[pa.Array, np.ndarray]  # and codes of the rules that cells break, 0 for none


def from_arrow(column: pa.Array, field: pa.Field) -> Column:
    """A column of Parquet, or strings of a CSV, converted to a column of ``SERVICES``.

    Strings are read as in a CSV: names in ``offered`` are split at ``|``, an ``embedding`` is a
    list in JSON.

    Raises:
        InputError: if values of this type cannot be in that column.
    """
    check_type(column.type, field)
    code = np.zeros(len(column), np.int8)
    column, wrong = _sound(_plain(column))
    code[wrong] = CODE[ENCODING]
    is_text = pa.types.is_string(column.type)
    if field.type == TIME:
        found, wrong = _times_of_text(column) if is_text else _times(column)
        code[wrong & (code == 0)] = CODE[TIMESTAMP]
        return found, code
    if is_text and field.name == "embedding":
        read = partial(_lists_of_numbers, kind=field.type)
        found, wrong = _bisected(column.to_pylist(), read, field.type)
    elif is_text and pa.types.is_list(field.type):
        found, wrong = pc.call_function("split_pattern", [column], _SPLIT), code > 0
    else:
        found, wrong = _bisected(column, lambda part: part.cast(field.type), field.type)
    code[wrong & (code == 0)] = CODE[CELL]
    return found, code


_SPLIT = pc.SplitPatternOptions(SEPARATOR)


def check_type(kind: pa.DataType, field: pa.Field) -> None:
    """Refuses a type that cannot be converted to that of a column of ``SERVICES``."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if isinstance(kind, pa.DictionaryType):
        return check_type(kind.value_type, field)
    whole_or_time = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer, pa.types.is_null)
    if field.type == TIME:
        good = is_text or any(is_one(kind) for is_one in whole_or_time)
    elif is_text:
        good = True
    else:
        try:
            pa.nulls(0, kind).cast(field.type)
            good = pa.types.is_list(field.type) or not pa.types.is_nested(kind)
        except pa.ArrowException:
            good = False
    if not good:
        raise InputError(f"column {field.name}: expected {field.type}, got {kind}")


def _plain(column: pa.Array) -> pa.Array:
    """The column without dictionaries and large types, which are other ways to write the same."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _sound(column: pa.Array) -> Column:
    """Strings, with null for those that are not UTF-8: neither Arrow nor Parquet checks this."""
    wrong = np.zeros(len(column), bool)
    try:
        column.validate(full=True)
        return column, wrong
    except (pa.ArrowException, UnicodeError):
        pass

    def checked(part: pa.Array) -> pa.Array:
        part.validate(full=True)
        return part

    return _bisected(column, checked, column.type)


def _bisected(
    values: Any, convert: Callable[[Any], pa.Array], kind: pa.DataType
) -> tuple[pa.Array, np.ndarray]:
    """Converts all values at once, or else in halves, until a value that does not fit is alone."""
    wrong = np.zeros(len(values), bool)
    parts: list[pa.Array] = []
    waiting = [(0, len(values))]
    while waiting:
        start, end = waiting.pop()
        try:
            parts.append(convert(values[start:end]))
        except _MISFIT:
            if end - start == 1:
                parts.append(pa.nulls(1, kind))
                wrong[start] = True
            else:
                middle = (start + end) // 2
                waiting += [(middle, end), (start, middle)]
    return pa.concat_arrays(parts) if parts else pa.nulls(0, kind), wrong


def _times(column: pa.Array) -> Column:
    """Times of any unit and zone (UTC if without a zone), or whole milliseconds."""
    kind = column.type
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("ms")), pa.timestamp("ms")
    ticks = TICKS[kind.unit if isinstance(kind, pa.TimestampType) else "ms"]
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    try:
        values = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    except pa.ArrowException:  # of 64 bits without a sign
        values = column.cast(pa.float64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        values = np.where(values < 2.0**62, values, 2.0**62).astype(np.int64)
    if ticks > 1_000_000:
        values, wrong = values // (ticks // 1_000_000), np.zeros(len(values), bool)
    else:
        factor = 1_000_000 // ticks
        wrong = np.abs(values) > 2**62 // factor
        values = np.where(wrong, 0, values) * factor
    found = pa.array(values, mask=is_null | wrong).cast(TIME)
    return found, wrong & ~is_null


def _times_of_text(column: pa.Array) -> Column:
    zoned = pc.call_function(
        "match_substring_regex", [column], pc.MatchSubstringOptions(r"\d\d:\d\d.*" + _ZONE)
    ).fill_null(False)  # fmt: skip
    kind = TIME if zoned.false_count == 0 else pa.timestamp("us")
    try:
        return column.cast(kind).cast(TIME), np.zeros(len(column), bool)
    except pa.ArrowException:
        return _times_of_values(column.to_pylist())


def _times_of_values(values: Sequence[Any]) -> Column:
    found: list[datetime | None] = []
    wrong = np.zeros(len(values), bool)
    for place, value in enumerate(values):
        is_whole = isinstance(value, str) and _WHOLE.fullmatch(value.strip())
        try:
            found.append(moment(int(value[:30]) if is_whole else value, TICKS["ms"]))
        except SetAside:
            found.append(None)
            wrong[place] = True
    return pa.array(found, TIME), wrong


def from_json(values: Sequence[Any], field: pa.Field) -> Column:
    """Values of JSON, converted to a column of ``SERVICES``; names may be whole numbers."""
    code = np.zeros(len(values), np.int8)
    if field.type == TIME:
        kinds = set(map(type, values))
        is_text = kinds <= {str, type(None)} and _encodes(values)
        column = pa.array(values, pa.string()) if is_text else None
        found, wrong = _times_of_values(values) if column is None else _times_of_text(column)
        code[wrong] = CODE[TIMESTAMP]
        return found, code
    converts = _CONVERTS[field.type]
    found, wrong = _bisected(values, lambda part: converts(part, field.type), field.type)
    for place in np.flatnonzero(wrong).tolist():
        code[place] = CODE[CELL if _encodes([values[place]]) else ENCODING]
    return found, code


def _encodes(values: Sequence[Any]) -> bool:
    """Whether there are no unpaired surrogates, which JSON can hold and UTF-8 cannot."""
    try:
        for value in values:
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str):
                    one.encode()
    except UnicodeEncodeError:
        return False
    return True


def _only(values: Sequence[Any], *kinds: type) -> Sequence[Any]:
    """Refuses other types: Arrow would take booleans for numbers and strings for lists."""
    if not set(map(type, values)) <= {*kinds, type(None)}:
        raise ValueError
    return values


def _names(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if int in set(map(type, values)):
        values = [str(value) if type(value) is int else value for value in values]
    return pa.array(_only(values, str), kind)


def _lists_of_names(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    _only(list(chain.from_iterable(filter(None, _only(values, list)))), str)
    return pa.array(values, kind)


def _lists_of_plain_numbers(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    _only(list(chain.from_iterable(filter(None, _only(values, list)))), int, float)
    # By way of doubles, since whole numbers that single precision cannot hold are refused there.
    return pa.array(values, pa.list_(pa.float64())).cast(kind)


def _lists_of_numbers(values: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    return _lists_of_plain_numbers([None if v is None else json.loads(v) for v in values], kind)


_CONVERTS: dict[pa.DataType, Callable[[Sequence[Any], pa.DataType], pa.Array]] = {
    pa.string(): _names,
    pa.list_(pa.string()): _lists_of_names,
    pa.list_(pa.float32()): _lists_of_plain_numbers,
    pa.int32(): lambda values, kind: pa.array(_only(values, int), kind),
    pa.bool_(): lambda values, kind: pa.array(_only(values, bool), kind),
    pa.float64(): lambda values, kind: pa.array(
        [None if v is None else float(v) for v in _only(values, int, float)], kind
    ),
}


def nothing(count: int, name: str) -> pa.Array:
    """Nulls, for a column of ``SERVICES`` that a file does not have."""
    return pa.nulls(count, SERVICES.field(name).type)

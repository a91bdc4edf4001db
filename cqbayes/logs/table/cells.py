"""From the cells of files to the columns of ``SERVICES``.

A cell that does not fit becomes null and is marked as wrong: one wrong cell costs one row.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cqbayes.errors import InputError
from cqbayes.logs.formats.importer import TICKS, SetAside, moment
from cqbayes.logs.schema import SERVICES, TIME
from cqbayes.logs.table import texts
from cqbayes.logs.table.validation import (
    CELL,
    CODE,
    ENCODING,
    LIST,
    TIMESTAMP,
    column_numbers,
    is_null,
    lengths,
)

# Errors of libraries for cells that do not fit. Their messages hold the cell, so they are not
# shown.
_MISFIT = (pa.ArrowException, ValueError, OverflowError, RecursionError)
_TICKS = re.compile(r"([+-]?\d{9,30})(?:\.0*)?", re.ASCII)  # pandas writes them with .0 at times
_ZONE = r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"

Column = tuple[pa.Array, np.ndarray]  # and codes of the rules that cells break, 0 for none


def from_arrow(column: pa.Array, field: pa.Field) -> Column:
    """A column of Parquet, or strings of a CSV, converted to a column of ``SERVICES``.

    Strings are read as in a CSV, by :mod:`cqbayes.logs.table.texts`. What is no number, and a word
    such as ``None``, is null.

    Raises:
        InputError: if values of this type cannot be in that column.
    """
    check_type(column.type, field)
    code = np.zeros(len(column), np.int8)
    column, wrong = _sound(_plain(column))
    code[wrong] = CODE[ENCODING]
    is_text = pa.types.is_string(column.type)
    column = _known(column, field) if is_text else column
    if field.type == TIME:
        found, wrong = _times_of_text(column) if is_text else _times(column)
        code[wrong & (code == 0)] = CODE[TIMESTAMP]
        return found, code
    if is_text and field.type in _READS:
        found, wrong = _read(column, field)
    else:
        found, wrong = _bisected(column, lambda part: _cast(part, field.type), field.type)
    code[wrong & (code == 0)] = CODE[LIST if is_text and field.name == "offered" else CELL]
    return _trimmed(found, field), code


def _known(column: pa.Array, field: pa.Field) -> pa.Array:
    """Strings without spaces around values, with null for the words that stand for nothing."""
    nothing = texts.NOTHING_IN_TEXT if field.name == "text" else texts.NOTHING
    if field.type != pa.string():
        column = pc.call_function("utf8_trim_whitespace", [column])
    words = pc.SetLookupOptions(value_set=pa.array(nothing))
    is_nothing = pc.call_function("is_in", [column], words)
    if not is_nothing.true_count:
        return column
    return pc.call_function("if_else", [is_nothing, pa.scalar(None, pa.string()), column])


def _read(column: pa.Array, field: pa.Field) -> Column:
    """Strings as values that are no strings: at once where Arrow can, or else one by one."""
    if not pa.types.is_list(field.type):
        try:
            return column.cast(field.type), np.zeros(len(column), bool)
        except pa.ArrowException:
            pass
    # Cells often repeat, and to read one takes its time.
    each = column.dictionary_encode()
    found, wrong = _bisected(
        each.dictionary.to_pylist(), lambda part: _of_json(part, field.type), field.type
    )
    place = each.indices
    return found.take(place), np.append(wrong, False)[_places(place, len(wrong))]


def _places(indices: pa.Array, otherwise: int) -> np.ndarray:
    return column_numbers(indices, otherwise).astype(np.int64)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(column.type):
        column = _without_nan(column)
    if pa.types.is_boolean(kind) and not pa.types.is_boolean(column.type):
        values = column_numbers(column.cast(pa.float64()), 0)
        if not np.isin(values, (0, 1)).all():  # Arrow takes all others for true
            raise ValueError
    return column.cast(kind)


def _without_nan(column: pa.Array) -> pa.Array:
    unknown = pc.call_function("is_nan", [column])
    return pc.call_function("if_else", [unknown, pa.scalar(None, column.type), column])


def _trimmed(column: pa.Array, field: pa.Field) -> pa.Array:
    """Names of LLMs without spaces around them, since lists are often split at commas alone."""
    if field.name == "chosen":
        return pc.call_function("utf8_trim_whitespace", [column])
    if field.name != "offered":
        return column
    names = column.flatten()
    around = pc.MatchSubstringOptions(r"^\s|\s$")
    if not pc.call_function("match_substring_regex", [names], around).true_count:
        return column
    starts = pa.array(np.append(0, np.cumsum(lengths(column))), pa.int32())
    names = pc.call_function("utf8_trim_whitespace", [names])
    return pa.ListArray.from_arrays(starts, names, mask=pa.array(is_null(column)))


def check_type(kind: pa.DataType, field: pa.Field) -> None:
    """Refuses a type that cannot be converted to that of a column of ``SERVICES``."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if isinstance(kind, pa.DictionaryType):
        return check_type(kind.value_type, field)
    types = pa.types
    of_times = (
        types.is_timestamp,
        types.is_date,
        types.is_integer,
        types.is_float64,
        types.is_null,
    )
    if field.type == TIME:
        good = is_text or any(is_one(kind) for is_one in of_times)
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
    if pa.types.is_floating(kind):
        return _times_of_values(_without_nan(column).to_pylist())
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
    ).fill_null(True)  # fmt: skip
    kind = TIME if zoned.false_count == 0 else pa.timestamp("us")
    try:
        return column.cast(kind).cast(TIME), np.zeros(len(column), bool)
    except pa.ArrowException:
        return _times_of_values(column.to_pylist())


def _times_of_values(values: Sequence[Any]) -> Column:
    found: list[datetime | None] = []
    wrong = np.zeros(len(values), bool)
    for place, value in enumerate(values):
        try:
            found.append(moment(_ticks(value), TICKS["ms"]))
        except SetAside:
            found.append(None)
            wrong[place] = True
    return pa.array(found, TIME), wrong


def _ticks(value: Any) -> Any:
    """Whole numbers as such, which may be text or end in ``.0``."""
    if isinstance(value, str):
        ticks = _TICKS.fullmatch(value.strip())
        return int(ticks[1]) if ticks else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def from_json(values: Sequence[Any], field: pa.Field) -> Column:
    """Values of JSON, converted to a column of ``SERVICES``.

    Strings are read as in a CSV; names may be whole numbers; NaN, which JSON does not have and
    Python writes, is null.
    """
    code = np.zeros(len(values), np.int8)
    nothing = frozenset(texts.NOTHING_IN_TEXT if field.name == "text" else texts.NOTHING)
    values = [
        None if (type(v) is float and v != v) or (type(v) is str and v in nothing) else v
        for v in values
    ]
    if field.type == TIME:
        kinds = set(map(type, values))
        is_text = kinds <= {str, type(None)} and _encodes(values)
        column = pa.array(values, pa.string()) if is_text else None
        found, wrong = _times_of_values(values) if column is None else _times_of_text(column)
        code[wrong] = CODE[TIMESTAMP]
        return found, code
    found, wrong = _bisected(values, lambda part: _of_json(part, field.type), field.type)
    for place in np.flatnonzero(wrong).tolist():
        is_list = field.name == "offered" and isinstance(values[place], str)
        misfit = CODE[LIST if is_list else CELL]
        code[place] = misfit if _encodes([values[place]]) else CODE[ENCODING]
    return _trimmed(found, field), code


def _of_json(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values of JSON as one of the types of ``SERVICES``; those that do not fit are refused."""
    read = _READS.get(kind)
    if read is not None and str in set(map(type, values)):
        values = [read(value) if isinstance(value, str) else value for value in values]
    return _CONVERTS[kind](values, kind)


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
    return pa.array(_only(_without_points(values, str), str), kind)


def _without_points(values: Sequence[Any], to: type) -> Sequence[Any]:
    """Whole numbers as another type; beside missing ones pandas writes 1 as 1.0."""
    if {int, float}.isdisjoint(map(type, values)):
        return values
    return [
        to(int(value))
        if type(value) is int or (type(value) is float and value.is_integer())
        else value
        for value in values
    ]


def _lists_of_names(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    each = list(chain.from_iterable(filter(None, _only(values, list))))
    if not set(map(type, each)) <= {str, type(None)}:
        values = [v and _only(_without_points(_without_nans(v), str), str) for v in values]
    return pa.array(values, kind)


def _without_nans(values: Sequence[Any]) -> Sequence[Any]:
    return [None if value != value else value for value in values]


def _lists_of_numbers(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    _only(list(chain.from_iterable(filter(None, _only(values, list)))), int, float)
    # By way of doubles, since whole numbers that single precision cannot hold are refused there.
    return pa.array(values, pa.list_(pa.float64())).cast(kind)


def _truths(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if not all(value is None or value in (0, 1) for value in _only(values, bool, int, float)):
        raise ValueError
    return pa.array([None if value is None else bool(value) for value in values], kind)


_READS: dict[pa.DataType, Callable[[str], Any]] = {
    pa.list_(pa.string()): texts.names,
    pa.list_(pa.float32()): texts.numbers,
    pa.int32(): texts.whole,
    pa.bool_(): texts.truth,
    pa.float64(): texts.number,
}
_CONVERTS: dict[pa.DataType, Callable[[Sequence[Any], pa.DataType], pa.Array]] = {
    pa.string(): _names,
    pa.list_(pa.string()): _lists_of_names,
    pa.list_(pa.float32()): _lists_of_numbers,
    pa.int32(): lambda values, kind: pa.array(_only(_without_points(values, int), int), kind),
    pa.bool_(): _truths,
    pa.float64(): lambda values, kind: pa.array(
        [None if v is None else float(v) for v in _only(values, int, float)], kind
    ),
}


def nothing(count: int, name: str) -> pa.Array:
    """Nulls, for a column of ``SERVICES`` that a file does not have."""
    return pa.nulls(count, SERVICES.field(name).type)

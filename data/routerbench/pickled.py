"""Reads a pickled DataFrame of strings and numbers, and runs nothing that stands in the file.

A pickle names functions, which an ordinary reader imports and calls. Here each name that a
DataFrame of pandas 1.3 to 3 needs stands for a record of this file, and any other name is refused.
The records are made into columns when all is read; pandas' own internals are never called, so that
it does not matter which version wrote the file.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cqbayes.errors import InputError

LARGEST = 2**31  # bytes; the official file has a twentieth of that


def read_frame(where: str, path: Path) -> pd.DataFrame:
    """The DataFrame of a pickle, with a row index from 0.

    Args:
        where: the data set, for messages.
        path: of the file.

    Raises:
        InputError: for a file that is too large, cannot be read, or holds anything else than a
            DataFrame of strings and numbers.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{where}: expected a pickle of at most {LARGEST} bytes, got {size}")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: expected a readable file, got: {error.strerror}") from None
    try:
        return _columns(_Reader(io.BytesIO(content)).load(), most=len(content))
    except _Refused:
        found = "a file that names other things"
    except Exception:  # what a damaged or hostile file raises has no end
        found = "something else"
    raise InputError(
        f"{where}: expected a pickled DataFrame of strings and numbers, got {found}; if you trust "
        "the file, convert it where its pandas is installed: "
        "pandas.read_pickle(FILE).to_parquet('routerbench_0shot.parquet')"
    )


class _Refused(Exception):
    """A name that no DataFrame of strings and numbers needs."""


class _Fixed(type):
    """Classes whose attributes a pickle cannot set."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError(name)


class _Record(metaclass=_Fixed):
    """What a pickle builds: what it was called with, and the state it was then given."""

    __slots__ = ("arguments", "state")

    def __new__(cls, *arguments: Any) -> "_Record":
        made = object.__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_Record):
    __slots__ = ()


class _Manager(_Record):
    __slots__ = ()


class _Block(_Record):
    __slots__ = ()


class _NewIndex(_Record):
    __slots__ = ()


class _Index(_Record):
    __slots__ = ()


class _RangeIndex(_Record):
    __slots__ = ()


class _Array(_Record):
    __slots__ = ()


class _NewArray(_Record):
    __slots__ = ()


class _Buffer(_Record):
    __slots__ = ()


class _DType(_Record):
    __slots__ = ()


class _Scalar(_Record):
    __slots__ = ()


class _Slice(_Record):
    __slots__ = ()


class _Bytes(_Record):
    __slots__ = ()


class _Strings(_Record):
    __slots__ = ()


class _StringType(_Record):
    __slots__ = ()


class _NewStrings(_Record):
    __slots__ = ()


class _Missing(_Record):
    __slots__ = ()


class _ArrowArray(_Record):
    __slots__ = ()


class _ArrowChunks(_Record):
    __slots__ = ()


class _ArrowType(_Record):
    __slots__ = ()


# The names of pandas 1.3 to 3, NumPy 1 and 2 and PyArrow, by what they stand for.
_NAMES: dict[type[_Record], str] = {
    _Frame: "pandas.DataFrame pandas.core.frame.DataFrame",
    _Manager: "pandas.core.internals.managers.BlockManager",
    _Block: "pandas._libs.internals._unpickle_block",
    _NewIndex: "pandas.core.indexes.base._new_Index",
    _Index: "pandas.Index pandas.core.indexes.base.Index pandas.core.indexes.numeric.Int64Index",
    _RangeIndex: "pandas.RangeIndex pandas.core.indexes.range.RangeIndex",
    _Array: "numpy.ndarray",
    _NewArray: "numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
    _Buffer: "numpy.core.numeric._frombuffer numpy._core.numeric._frombuffer",
    _DType: "numpy.dtype",
    _Scalar: "numpy.core.multiarray.scalar numpy._core.multiarray.scalar",
    _Slice: "builtins.slice __builtin__.slice",
    _Bytes: "builtins.bytearray __builtin__.bytearray _codecs.encode pyarrow.lib.py_buffer",
    _Strings: (
        "pandas.arrays.ArrowStringArray pandas.core.arrays.string_arrow.ArrowStringArray "
        "pandas.core.arrays.string_arrow.ArrowStringArrayNumpySemantics "
        "pandas.arrays.StringArray pandas.core.arrays.string_.StringArray "
        "pandas.core.arrays.string_.StringArrayNumpySemantics"
    ),
    _StringType: "pandas.StringDtype pandas.core.arrays.string_.StringDtype",
    _NewStrings: "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked",
    _Missing: "pandas.NA pandas._libs.missing.NA",
    _ArrowArray: "pyarrow.lib._restore_array",
    _ArrowChunks: "pyarrow.lib.chunked_array",
    _ArrowType: "pyarrow.lib.type_for_alias",
}
_ALLOWED = {name: record for record, names in _NAMES.items() for name in names.split()}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise _Refused
        return _ALLOWED[f"{module}.{name}"]


def _is(value: Any, kind: type[_Record]) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _columns(frame: Any, most: int) -> pd.DataFrame:
    """The columns of a frame's blocks, in their order.

    Args:
        frame: what was read.
        most: cells that there can be: each takes a byte of the file, unless one array stands for
            many, which is how a small file fills the memory.
    """
    manager = _is(_is(frame, _Frame).state["_mgr"], _Manager)
    blocks, (names, rows) = manager.arguments
    names, length = _index(names), _length(rows)
    columns: dict[int, Any] = {}
    for block in blocks:
        values, places, _ = _is(block, _Block).arguments
        values = _values(values)
        most -= values.size
        if most < 0:
            raise ValueError
        for number, place in enumerate(_places(places)):
            columns[place] = values[number] if values.ndim == 2 else values
    if sorted(columns) != list(range(len(names))) or len(set(names)) != len(names):
        raise ValueError
    if any(column.shape != (length,) for column in columns.values()):
        raise ValueError
    return pd.DataFrame({str(names[place]): columns[place] for place in sorted(columns)})


def _index(index: Any) -> list[Any]:
    kind, state = _is(index, _NewIndex).arguments
    if kind is not _Index:
        raise TypeError
    return list(_values(state["data"]))


def _length(index: Any) -> int:
    kind, state = _is(index, _NewIndex).arguments
    if kind is _RangeIndex:
        return len(range(state["start"], state["stop"], state["step"]))
    return len(_index(index))


def _places(places: Any) -> list[int]:
    if type(places) is _Slice:
        start, stop, step = places.arguments
        # A slice of any length fits in a few bytes of a file.
        return list(range(start, stop, step)[: LARGEST >> 12])
    return [int(place) for place in _values(places)]


def _values(array: Any) -> np.ndarray:
    """An array of numbers, or of objects that are strings or numbers."""
    if type(array) is _NewArray:
        _, shape, dtype, fortran, data = array.state
        kind, order = _dtype(dtype), "F" if fortran else "C"
        flat = _objects(data) if kind.hasobject else np.frombuffer(_bytes(data), kind)
    elif type(array) is _Buffer:
        data, dtype, shape, order = array.arguments
        flat = np.frombuffer(_bytes(data), _dtype(dtype))
    elif type(array) is _Strings:
        return _arrow(array.state["_pa_array"])
    elif type(array) is _NewStrings:
        # What subclasses of pandas' arrays on NumPy keep: their type, and the array.
        return _values(next(part for part in array.state if type(part) is _NewArray))
    else:
        raise TypeError
    return flat.reshape(shape, order=order)


def _dtype(dtype: Any) -> np.dtype:
    code, *_ = _is(dtype, _DType).arguments
    if code not in ("O", "O8", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise TypeError
    order = "=" if dtype.state is None else dtype.state[1]
    return np.dtype(code).newbyteorder(order)


def _bytes(data: Any) -> bytes:
    if type(data) is _Bytes:
        content, *encoding = data.arguments or (b"",)
        # Before protocol 3 a pickle held bytes as text.
        return content.encode("latin1") if encoding == ["latin1"] else bytes(_bytes(content))
    if not isinstance(data, bytes | bytearray):
        raise TypeError
    return bytes(data)


def _objects(data: Any) -> np.ndarray:
    found = np.empty(len(data), object)
    found[:] = [_plain(one) for one in data]
    return found


def _plain(one: Any) -> Any:
    """A string, a number, or nothing."""
    if one is None or isinstance(one, str | bool | int | float):
        return one
    if one is _Missing:  # it is pickled by its name alone
        return None
    dtype, content = _is(one, _Scalar).arguments
    return np.frombuffer(_bytes(content), _dtype(dtype))[0].item()


def _arrow(array: Any) -> np.ndarray:
    """Strings of an Arrow array, by its public functions, and checked before they are read."""
    if type(array) is _ArrowChunks:
        chunks = [_arrow(chunk) for chunk in array.arguments[0]]
        return np.concatenate(chunks) if chunks else np.empty(0, object)
    ((kind, length, _, offset, buffers, *_),) = _is(array, _ArrowArray).arguments
    kind = {"large_string": pa.LargeStringArray, "string": pa.StringArray}[
        _is(kind, _ArrowType).arguments[0]
    ]
    valid, ends, content = (None if b is None else pa.py_buffer(_bytes(b)) for b in buffers)
    if length == 0:
        return np.empty(0, object)
    strings = kind.from_buffers(length, ends, content or pa.py_buffer(b""), valid, -1, offset)
    strings.validate(full=True)
    return strings.to_numpy(zero_copy_only=False)

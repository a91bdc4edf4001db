"""Pickles: DataFrames of strings and numbers are read, and nothing in them is ever run."""

import copyreg
import os
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from cqbayes.data.routerbench import pickled
from cqbayes.data.routerbench.pickled import read_frame

from cqbayes.errors import InputError


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": ["a", "b", "ç"],
            "prompt": ["one", "", "three\nlines"],
            "score": [0.5, 1.0, 0.25],
            "count": [1, 2, 3],
            "small": np.array([1, 0, 1], np.float32),
            "yes": [True, False, True],
            "mixed": np.array([1.0, "text", np.float64(0.5)], object),
            "cost": [0.1, np.nan, 0.3],
        }
    )


def _read(tmp_path, content: bytes) -> pd.DataFrame:
    path = tmp_path / "frame.pkl"
    path.write_bytes(content)
    return read_frame("routerbench", path)


def _same(read: pd.DataFrame, written: pd.DataFrame) -> None:
    assert list(read.columns) == list(written.columns)
    for column in written:
        np.testing.assert_array_equal(read[column].to_list(), written[column].to_list())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_the_installed_pandas_writes(tmp_path, protocol):
    _same(_read(tmp_path, pickle.dumps(_frame(), protocol=protocol)), _frame())


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.iloc[[2, 0]],  # rows by number
        lambda frame: frame[["cost", "mixed", "score"]],  # blocks apart
        lambda frame: frame.iloc[:0],
        lambda frame: frame.astype({"prompt": object, "sample_id": object}),
        lambda frame: frame.astype({"prompt": pd.StringDtype("python")}),
        lambda frame: pd.concat([frame, frame], ignore_index=True),
        lambda frame: frame.set_axis(pd.Index(list(frame), dtype=object), axis=1),
    ],
)
def test_other_frames(tmp_path, change, protocol):
    changed = change(_frame())
    _same(_read(tmp_path, pickle.dumps(changed, protocol=protocol)), changed)


def test_to_pickle_and_names_of_older_versions(tmp_path):
    path = tmp_path / "frame.pkl"
    frame = _frame()[["score", "mixed", "count"]]
    frame.columns = pd.Index(list(frame), dtype=object)
    frame.to_pickle(path)
    _same(read_frame("routerbench", path), frame)
    # pandas 1 and 2 with NumPy 1 name the same things otherwise.
    old = pickle.dumps(frame, protocol=2)
    for new, before in {
        "cpandas\nDataFrame\n": "cpandas.core.frame\nDataFrame\n",
        "cpandas\nIndex\n": "cpandas.core.indexes.base\nIndex\n",
        "cpandas\nRangeIndex\n": "cpandas.core.indexes.range\nRangeIndex\n",
        "cnumpy._core.multiarray\n": "cnumpy.core.multiarray\n",
    }.items():
        assert new.encode() in old
        old = old.replace(new.encode(), before.encode())
    _same(_read(tmp_path, old), frame)


class _Payload:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden", [False, True])
def test_a_payload_does_not_run(tmp_path, protocol, hidden):
    mark = tmp_path / "was here"
    payload = _Payload(os.system, (f"touch '{mark}'",))
    held = pd.DataFrame({"x": np.array([payload, 1], object)}) if hidden else payload
    content = pickle.dumps(held, protocol=protocol)
    with pytest.raises(InputError, match=r"expected a pickled DataFrame.*to_parquet") as refusal:
        _read(tmp_path, content)
    assert not mark.exists()
    assert "touch" not in str(refusal.value)
    pickle.loads(content)
    assert mark.exists(), "the payload is a real one"


@pytest.mark.parametrize(
    "value",
    [
        _Payload(eval, ("1",)),
        _Payload(getattr, (1, "real")),
        _Payload(np.ndarray, ((10**12,),)),
        _Payload(bytearray, (10**12,)),
        _Payload(np.dtype, ("O",)),
        _Payload(slice, (0, 10**15, 1)),
        pd.DataFrame({"when": pd.to_datetime(["2024-01-01"])}),
        pd.DataFrame({"list": [[1, 2]]}),
        pd.Series([1.0]),
        {"a": 1},
        7,
    ],
)
def test_other_content_is_refused(tmp_path, value):
    with pytest.raises(InputError, match="expected a pickled DataFrame of strings and numbers"):
        _read(tmp_path, pickle.dumps(value))


def test_damaged_files_are_refused(tmp_path):
    content = pickle.dumps(_frame())
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            read = _read(tmp_path, bytes(damaged))
        except InputError:
            continue
        assert isinstance(read, pd.DataFrame), "a letter of a text has changed"


def test_offsets_of_strings_are_checked(tmp_path):
    """They say where to read in memory."""
    content = pickle.dumps(pd.DataFrame({"x": pd.array(["abc", "de"], dtype="str")}))
    offsets = struct.pack("<3q", 0, 3, 5)
    assert content.count(offsets) == 1
    wrong = content.replace(offsets, struct.pack("<3q", 0, 3, 5_000_000))
    with pytest.raises(InputError, match="expected a pickled DataFrame"):
        _read(tmp_path, wrong)


def test_classes_stay_as_they_are(tmp_path):
    """A pickle can ask to set attributes of what it names."""
    state = pickle.dumps((None, {"state": 1}))[2:-1]
    content = b"\x80\x02cpandas\nDataFrame\n" + state + b"b."
    with pytest.raises(InputError, match="expected a pickled DataFrame"):
        _read(tmp_path, content)
    assert not isinstance(pickled._Frame.__dict__.get("state"), int)


def test_one_array_for_many_columns_is_refused(tmp_path, monkeypatch):
    """A small file must not fill the memory."""
    array = np.zeros((1, 10_000))
    frame = pd.DataFrame(array.T, columns=["a"])
    one = frame._mgr.blocks[0]

    class Many:
        def __reduce__(self):
            manager = type(frame._mgr)
            return manager, ((one,) * 10_000, [frame.columns, frame.index])

    class Frame:
        __class__ = property(lambda self: pd.DataFrame)  # pickle asks whether they agree

        def __reduce_ex__(self, protocol):
            return copyreg.__newobj__, (pd.DataFrame,), {"_mgr": Many()}

    content = pickle.dumps(Frame())
    assert len(content) < 200_000
    monkeypatch.setattr(pickled, "_index", lambda index: range(10_000))
    monkeypatch.setattr(pickled, "_places", lambda places: [next(place)])
    place = iter(range(10_000))
    with pytest.raises(InputError, match="expected a pickled DataFrame"):
        _read(tmp_path, content)
    assert next(place) < 30, "it was refused as soon as there was more than the file can hold"


def test_size_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "LARGEST", 100)
    with pytest.raises(InputError, match="a pickle of at most 100 bytes"):
        _read(tmp_path, pickle.dumps(_frame()))
    with pytest.raises(InputError, match="expected a readable file"):
        read_frame("routerbench", tmp_path / "absent.pkl")

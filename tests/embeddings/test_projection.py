"""Projections: what they compute, and files that are refused."""

import numpy as np
import pytest

from cqbayes.embeddings.pca import pca
from cqbayes.embeddings.projection import Hidden, Projection, load_projection, raw, save_projection
from cqbayes.errors import InputError

safetensors = pytest.importorskip("safetensors.numpy", reason="the extra embed is not installed")


def made(rng: np.random.Generator, wide: int = 6, dim: int = 3, size: int = 4) -> Projection:
    hidden = Hidden(
        rng.normal(size=(wide, size)), rng.normal(size=size), rng.normal(size=(size, dim))
    )
    return Projection(
        "contrastive", "e@1", rng.normal(size=wide), rng.normal(size=(wide, dim)), hidden
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_contexts_are_unit_norm_and_by_the_formula(rng):
    projection, x = made(rng), rng.normal(size=(5, 6))
    z = np.empty((5, 3))
    for i, e in enumerate(x):
        centred = [e[k] - projection.mean[k] for k in range(6)]
        inner = [
            sum(c * b for c, b in zip(centred, col, strict=True))
            for col in projection.hidden.into.T
        ]
        inner = [v + b for v, b in zip(inner, projection.hidden.bias, strict=True)]
        # The hyperbolic form, written with exponentials.
        bent = [v / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))) for v in inner]
        z[i] = np.array(centred) @ projection.linear + np.array(bent) @ projection.hidden.out
    np.testing.assert_allclose(projection(x), z / np.linalg.norm(z, axis=1, keepdims=True))


def test_principal_components(rng):
    x = rng.normal(size=(60, 5)) @ np.diag([5.0, 3.0, 2.0, 0.5, 0.1]) @ rng.normal(size=(5, 5))
    projection = pca(x, 2, encoder="e")
    _, _, rows = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(projection.linear.T @ rows[:2].T), np.eye(2), atol=1e-9)
    np.testing.assert_array_equal(projection.linear, pca(x, 2, encoder="e").linear)
    with pytest.raises(InputError, match="dim: expected 1 to 5"):
        pca(x, 6, encoder="e")


def test_raw_only_scales(rng):
    x = rng.normal(size=(4, 6))
    np.testing.assert_allclose(raw(6, encoder="e")(x), x / np.linalg.norm(x, axis=1)[:, None])


def test_partial_least_squares_are_scikit_learns(rng):
    cross = pytest.importorskip("sklearn.cross_decomposition", reason="the extra embed is absent")
    from cqbayes.embeddings.supervised import supervised

    x = rng.normal(size=(80, 6))
    score = 1 / (1 + np.exp(-x @ rng.normal(size=(6, 3))))
    ours = supervised(x, score, 2, encoder="e")
    theirs = cross.PLSRegression(n_components=2, scale=False).fit(x, score).transform(x)
    z = (x - ours.mean) @ ours.linear
    np.testing.assert_allclose(z, theirs / theirs.std(axis=0), atol=1e-8)


def test_training_queries_that_cannot_be_meant(rng):
    pytest.importorskip("sklearn.cross_decomposition", reason="the extra embed is absent")
    from cqbayes.embeddings.supervised import supervised

    x, score = rng.normal(size=(30, 6)), rng.random((30, 3))
    odd = np.where(np.arange(30)[:, None] == 4, np.nan, x)
    for given, scores, dim, message in (
        (odd, score, 2, r"embeddings: expected finite numbers, not so in row 4"),
        (
            np.ones((30, 6)),
            score,
            2,
            r"embeddings: expected a row for each query, not all the same",
        ),
        (x, np.where(np.arange(30)[:, None] == 4, np.nan, score), 2, r"scores in \[0, 1\].* row 4"),
        (x, score * 2, 2, r"scores in \[0, 1\]"),
        (x, score[:9], 2, r"scores: expected 30 rows, .* got shape \(9, 3\)"),
        (x, np.ones((30, 3)), 2, r"scores: expected scores that differ among queries"),
        (x, score, 7, r"dim: expected 1 to 6 for embeddings of shape"),
        (x, score, 0, r"dim: expected 1 to 6 for embeddings of shape"),
    ):
        with pytest.raises(InputError, match=message):
            supervised(given, scores, dim, encoder="e")
    with pytest.raises(InputError, match="finite numbers, not so in row 4"):
        pca(odd, 2, encoder="e")


def test_round_trip(rng, tmp_path):
    projection = made(rng)
    save_projection(tmp_path / "p.safetensors", projection, seed=3)
    again = load_projection(tmp_path / "p.safetensors", encoder="e@1")
    x = rng.normal(size=(5, 6))
    np.testing.assert_array_equal(projection(x, "e@1"), again(x))
    assert again[:2] == projection[:2]
    first = (tmp_path / "p.safetensors").read_bytes()
    save_projection(tmp_path / "p.safetensors", projection, seed=3)
    assert (tmp_path / "p.safetensors").read_bytes() == first
    save_projection(tmp_path / "p.safetensors", raw(4, encoder="e@1"))
    assert load_projection(tmp_path / "p.safetensors").hidden is None


def test_what_does_not_fit_is_refused(rng, tmp_path):
    projection, path = made(rng), tmp_path / "p.safetensors"
    with pytest.raises(InputError, match="expected embeddings of e@1, got those of e@2"):
        projection(rng.normal(size=(2, 6)), "e@2")
    with pytest.raises(InputError, match="embeddings of 6 dimensions, got shape"):
        projection(rng.normal(size=(2, 7)))
    save_projection(path, projection)
    with pytest.raises(InputError, match="expected a projection for e@2, got one for e@1"):
        load_projection(path, encoder="e@2")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="expected the numbers that were saved, got damaged ones"):
        load_projection(path)
    for broken in (
        projection._replace(mean=np.zeros(5)),
        projection._replace(linear=np.full((6, 3), np.nan)),
        projection._replace(hidden=projection.hidden._replace(bias=np.zeros(3))),
    ):
        save_projection(path, broken)
        with pytest.raises(InputError, match="finite arrays whose shapes fit"):
            load_projection(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="expected a projection"):
        load_projection(path)
    arrays = {"mean": projection.mean, "linear": projection.linear}
    for facts in ('["method", "encoder"]', "null", '{"method": 1, "encoder": 2}', "[" * 100_000):
        path.write_bytes(safetensors.save(arrays, {"cqbayes.projection.1": facts}))
        with pytest.raises(InputError, match="as save_projection writes it"):
            load_projection(path)
    path.write_bytes(safetensors.save({"weights": np.zeros(3)}))
    with pytest.raises(InputError, match="as save_projection writes it"):
        load_projection(path)
    with pytest.raises(InputError, match="expected a projection"):
        load_projection(tmp_path / "absent")

"""Contrastive refinement: its loss by hand, what it learns, and what it must not see."""

from dataclasses import replace

import numpy as np
import pytest

from cqbayes.datasets.contexts import contexts
from cqbayes.datasets.text_scores import TextScores
from cqbayes.diagnostics.context_quality import quality
from cqbayes.embeddings.encoder import Encoder
from cqbayes.embeddings.methods import fit_projection
from cqbayes.errors import InputError

torch = pytest.importorskip("torch", reason="the extra embed is not installed")

from cqbayes.embeddings.contrastive import TrainingSettings, contrastive, soft_info_nce  # noqa: E402

SHORT = TrainingSettings(hidden=16, epochs=4, batch_size=32)


def loss_by_hand(z: np.ndarray, score: np.ndarray, temperature: float, scale: float) -> float:
    """Entropies and cross-entropies of explicit distributions, pair by pair."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        q = np.array([np.exp(-np.sum((score[i] - score[j]) ** 2) / scale) for j in others])
        p = np.array([np.exp(z[i] @ z[j] / temperature) for j in others])
        q, p = q / q.sum(), p / p.sum()
        total += -np.sum(q * np.log(p)) + np.sum(q * np.log(q))
    return total / len(z)


def test_the_loss_is_that_of_explicit_distributions():
    rng = np.random.default_rng(0)
    z, score = rng.normal(size=(7, 3)), rng.random((7, 4))
    ours = soft_info_nce(torch.tensor(z), torch.tensor(score), 0.3, 0.5)
    assert float(ours) == pytest.approx(loss_by_hand(z, score, 0.3, 0.5), rel=1e-6)


def test_the_loss_is_least_where_contexts_say_what_is_wanted():
    """Unit contexts at angles whose cosines are what the profiles ask for, up to a constant."""
    angle = np.array([0.0, 0.4, 1.1, 2.0])
    z = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], axis=1), requires_grad=True)
    # 2 - 2 cos is the squared distance on the circle: profiles are the same points.
    value = soft_info_nce(z, z.detach(), temperature=0.5, scale=1.0)
    assert float(value.detach()) == pytest.approx(0, abs=1e-9)
    value.backward()
    assert float(z.grad.abs().max()) < 1e-9


def hidden_direction(seed: int, num: int = 1_500, wide: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Scores hang on the sign of one faint direction of the embeddings, which PCA leaves out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, wide)) * np.array([*np.linspace(3, 2, wide - 1), 0.7])
    side = np.sign(x[:, -1:])
    chance = 0.5 + 0.4 * side * np.array([1, -1, 1, -1])
    x = x @ np.linalg.qr(rng.normal(size=(wide, wide)))[0]
    return x, (rng.random((num, 4)) < chance).astype(float)


def answers(seed: int = 0) -> tuple[TextScores, Encoder]:
    x, score = hidden_direction(seed)
    names = np.array([f"q{i}" for i in range(len(x))])
    return TextScores(
        name="made-up",
        llms=("a", "b", "c", "d"),
        query_id=names,
        task=np.full(len(x), "t"),
        split=np.where(np.arange(len(x)) % 3 > 0, "train", "test"),
        text=names.astype(object),
        score=score,
    ), Encoder("table", lambda texts: np.array([x[int(t[1:])] for t in texts]))


def test_it_finds_what_tells_llms_apart(tmp_path):
    data, encoder = answers()
    found = {
        method: quality(contexts(data, 2, method=method, encoder=encoder, folder=tmp_path).table)
        for method in ("contrastive", "pca")
    }
    better = found["pca"].log_loss - found["contrastive"].log_loss
    assert better > 5 * found["pca"].log_loss_error
    assert found["contrastive"].routed > found["contrastive"].single + 0.2


def test_nothing_held_out_is_seen(tmp_path):
    """Held-out scores in another order change nothing upstream; training scores do."""
    data, encoder = answers()
    held_out = np.flatnonzero(data.split == "test")
    shuffled = data.score.copy()
    shuffled[held_out] = shuffled[np.random.default_rng(1).permutation(held_out)]
    assert not np.array_equal(shuffled, data.score)
    flipped = replace(
        data, score=np.where(data.split[:, None] == "train", 1 - data.score, data.score)
    )
    flipped.score[:5] = 0  # flipping all alone would leave every distance as it was

    def project(given: TextScores, method: str):
        settings = {"settings": SHORT} if method == "contrastive" else {}
        return contexts(given, 2, method=method, encoder=encoder, folder=tmp_path, **settings)

    for method in ("contrastive", "supervised", "pca", "raw"):
        one, other = project(data, method), project(replace(data, score=shuffled), method)
        np.testing.assert_array_equal(one.table.context, other.table.context)
        np.testing.assert_array_equal(one.projection.linear, other.projection.linear)
        assert one.curve == other.curve
        if method in ("contrastive", "supervised"):
            third = project(flipped, method)
            assert not np.array_equal(one.table.context, third.table.context)


def test_held_out_queries_have_no_part_in_a_projection(tmp_path):
    """Other held-out embeddings change neither means nor directions, by any method."""
    data, encoder = answers()
    texts = list(data.text[data.split == "test"])
    moved = Encoder("moved", lambda ts: encoder.encode(ts) + 5 * np.isin(ts, texts)[:, None])
    for method in ("contrastive", "supervised", "pca"):
        settings = {"settings": SHORT} if method == "contrastive" else {}
        one, other = (
            contexts(data, 2, method=method, encoder=e, folder=tmp_path, **settings).projection
            for e in (encoder, moved)
        )
        np.testing.assert_array_equal(one.mean, other.mean)
        np.testing.assert_array_equal(one.linear, other.linear)


def test_validation_queries_only_say_when_to_stop():
    """Other ones change the curve of validation, and nothing of what is learnt."""
    x, score = hidden_direction(0, num=120)
    held_out = np.random.default_rng(0).permutation(120)[: round(0.15 * 120)]
    rng = np.random.default_rng(1)
    x_, score_ = x.copy(), score.copy()
    x_[held_out], score_[held_out] = rng.normal(size=(18, 12)), rng.random((18, 4))
    one, other = (
        contrastive(*data, 2, encoder="e", settings=SHORT)[1] for data in ((x, score), (x_, score_))
    )
    assert one.training == other.training
    assert one.validation != other.validation


def test_the_scale_of_embeddings_does_not_matter():
    x, score = hidden_direction(0, num=120)
    settings = SHORT._replace(epochs=20, learning_rate=0.01)
    one, other = (
        contrastive(size * x, score, 2, encoder="e", settings=settings)[0](size * x)
        for size in (1, 50)
    )
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_same_seed_same_bytes_and_another_seed_others():
    x, score = hidden_direction(0, num=120)

    def run(seed: int):
        return contrastive(x, score, 2, encoder="e", seed=seed, settings=SHORT)[0]

    one, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(one.linear, again.linear)
    assert not np.array_equal(one.linear, other.linear)


def test_a_killed_training_goes_on_to_the_same_result(tmp_path):
    x, score = hidden_direction(0, num=120)
    path = tmp_path / "training.safetensors"
    whole, curve = contrastive(x, score, 2, encoder="e", settings=SHORT)

    class Killed(Exception):
        pass

    done = []

    def write_then_die(content: bytes, where) -> None:
        path.write_bytes(content)
        done.append(len(content))
        if len(done) == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contrastive.__globals__, "write_bytes", write_then_die)
        with pytest.raises(Killed):
            contrastive(x, score, 2, encoder="e", settings=SHORT, checkpoint=path)
    resumed, after = contrastive(x, score, 2, encoder="e", settings=SHORT, checkpoint=path)
    assert after == curve
    for a, b in zip((whole.linear, *whole.hidden), (resumed.linear, *resumed.hidden), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="one with other seed"):
        contrastive(x, score, 2, encoder="e", seed=1, settings=SHORT, checkpoint=path)
    other = SHORT._replace(batch_size=16)
    with pytest.raises(InputError, match="one with other batch_size"):
        contrastive(x, score, 2, encoder="e", settings=other, checkpoint=path)
    with pytest.raises(InputError, match="one with other data"):
        contrastive(x, 1 - score**2, 2, encoder="e", settings=SHORT, checkpoint=path)
    whole_file = path.read_bytes()
    best_epoch = rb"\"best_epoch\": "
    for damaged in (
        whole_file.replace(b'"0.best"', b'"0.bxst"'),
        whole_file.replace(rb"\"epoch\"", rb"\"xpoch\""),
        whole_file.replace(best_epoch, best_epoch[:-1] + b"9"),
        whole_file[:-1] + bytes([whole_file[-1] ^ 1]),  # one bit of a number
    ):
        assert damaged != whole_file
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="expected a checkpoint, got a damaged one; remove it"):
            contrastive(x, score, 2, encoder="e", settings=SHORT, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="expected a checkpoint"):
        contrastive(x, score, 2, encoder="e", settings=SHORT, checkpoint=path)


def test_a_training_that_was_killed_past_its_best_epoch_still_knows_it(tmp_path):
    rng = np.random.default_rng(0)
    x, score = rng.normal(size=(80, 10)), rng.integers(0, 2, (80, 3)).astype(float)
    settings = TrainingSettings(
        hidden=64, epochs=200, patience=3, batch_size=32, learning_rate=0.02
    )
    path = tmp_path / "training.safetensors"
    whole, curve = contrastive(x, score, 2, encoder="e", settings=settings, checkpoint=path)
    assert curve.best_epoch < len(curve.validation)
    # From what is there after the last epoch, nothing is left to be trained.
    again, _ = contrastive(x, score, 2, encoder="e", settings=settings, checkpoint=path)
    np.testing.assert_array_equal(whole.linear, again.linear)


def test_it_stops_early_and_goes_back_to_the_best_epoch():
    rng = np.random.default_rng(0)
    x, score = rng.normal(size=(80, 10)), rng.integers(0, 2, (80, 3)).astype(float)
    settings = TrainingSettings(
        hidden=64, epochs=200, patience=3, batch_size=32, learning_rate=0.02
    )
    projection, curve = contrastive(x, score, 2, encoder="e", settings=settings)
    assert len(curve.validation) == curve.best_epoch + 3 < 200, "noise: nothing to be learnt"
    assert curve.validation[curve.best_epoch - 1] == min(curve.validation)
    short = settings._replace(epochs=curve.best_epoch)
    np.testing.assert_array_equal(
        projection.linear, contrastive(x, score, 2, encoder="e", settings=short)[0].linear
    )


def test_profiles_that_are_all_alike_do_no_harm():
    x, _ = hidden_direction(0, num=60)
    projection, _ = contrastive(x, np.ones((60, 3)), 2, encoder="e", settings=SHORT)
    assert np.isfinite(projection(x)).all()


def test_bad_calls():
    x, score = hidden_direction(0, num=60)
    with pytest.raises(InputError, match="at least 20 embeddings with as many scores"):
        contrastive(x[:10], score[:10], 2, encoder="e")
    with pytest.raises(InputError, match="dim: expected 1 to"):
        contrastive(x, score, 20, encoder="e")
    one_missing = np.where(np.arange(60)[:, None] == 7, np.nan, score)
    with pytest.raises(InputError, match=r"scores in \[0, 1\].* not so in row 7"):
        contrastive(x, one_missing, 2, encoder="e", settings=SHORT)
    with pytest.raises(InputError, match=r"a finite loss, got none in epoch 1; .*learning_rate"):
        contrastive(x, score, 2, encoder="e", settings=SHORT._replace(learning_rate=1e30))
    for name, value, most in (
        ("batch_size", 1, "at least 2"),
        ("validation", 1.0, "a number between 0 and 1"),
        ("temperature", 0.0, "a number between 0 and inf"),
    ):
        with pytest.raises(InputError, match=f"{name}: expected {most}, got {value}"):
            contrastive(x, score, 2, encoder="e", settings=SHORT._replace(**{name: value}))
    data, encoder = answers()
    with pytest.raises(InputError, match="method: expected one of contrastive"):
        contexts(data, 2, method="magic", encoder=encoder)
    assert fit_projection(x, score, 2, "raw", encoder="e")[0].dim == 12

"""Quality of contexts: its numbers by hand, and what they are fitted to."""

from itertools import combinations

import numpy as np
import pytest

from cqbayes.datasets.score_table import ScoreTable
from cqbayes.diagnostics import context_quality as module
from cqbayes.diagnostics.context_quality import quality


def _table(context: np.ndarray, score: np.ndarray, split: np.ndarray) -> ScoreTable:
    names = np.array([f"q{i}" for i in range(len(score))])
    llms = tuple("abcdefgh"[: score.shape[1]])
    return ScoreTable(
        name="made-up",
        llms=llms,
        query_id=names,
        task=np.full(len(names), "t"),
        split=split,
        context=context,
        score=score,
    )


def _auc(p: np.ndarray, good: np.ndarray) -> float:
    pairs = [(a, b) for a in p[good] for b in p[~good]]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


def _tau(p: np.ndarray, s: np.ndarray) -> float:
    """Kendall's tau-b over pairs of LLMs, ``p`` without ties."""
    pairs = list(combinations(range(len(p)), 2))
    signs = [np.sign((p[i] - p[j]) * (s[i] - s[j])) for i, j in pairs]
    untied = sum(s[i] != s[j] for i, j in pairs)
    return sum(signs) / np.sqrt(len(pairs) * untied)


def test_the_numbers_by_hand(monkeypatch):
    rng = np.random.default_rng(0)
    score = rng.choice([0.0, 0.5, 1.0], (40, 3), p=[0.4, 0.2, 0.4])
    split = np.where(np.arange(40) < 15, "train", "test")
    score[:15, 2], score[15:, 0] = 1, np.maximum(score[15:, 0], 0.5)
    score[:15, 0] = 0  # the best LLM of one split is not that of the other
    table = _table(rng.normal(size=(40, 2)), score, split)
    p, s = rng.uniform(0.1, 0.9, (25, 3)), score[15:]
    given = []

    def predict(train, context):
        given.append((train, context))
        return p

    monkeypatch.setattr(module, "predict", predict)
    found = quality(table)
    ((train, context),) = given
    assert set(train.split) == {"train"}
    np.testing.assert_array_equal(context, table.context[15:])
    loss = [
        np.mean(
            [-(s[i, j] * np.log(p[i, j]) + (1 - s[i, j]) * np.log(1 - p[i, j])) for j in (0, 1, 2)]
        )
        for i in range(25)
    ]
    routed = [s[i, max((0, 1, 2), key=lambda j, i=i: p[i, j])] for i in range(25)]
    assert found.log_loss == pytest.approx(np.mean(loss))
    np.testing.assert_allclose(found.losses, loss)
    assert found.log_loss_error == pytest.approx(np.std(loss, ddof=1) / 5)
    assert found.routed == pytest.approx(np.mean(routed))
    assert found.routed_error == pytest.approx(np.std(routed, ddof=1) / 5)
    several = [j for j in range(3) if 0 < (s[:, j] >= 0.5).mean() < 1]
    assert found.auc == pytest.approx(np.mean([_auc(p[:, j], s[:, j] >= 0.5) for j in several]))
    assert found.tau == pytest.approx(
        np.mean([_tau(p[i], s[i]) for i in range(25) if len(set(s[i])) > 1])
    )
    assert found.single == pytest.approx(s[:, 2].mean()) != pytest.approx(s.mean(axis=0).max())
    assert found.best == pytest.approx(s.max(axis=1).mean())


def test_wide_contexts_are_not_judged_by_how_much_they_overfit():
    """With as many coordinates as queries, and nothing in them, the base rates are found."""
    rng = np.random.default_rng(0)
    context = rng.normal(size=(300, 150))
    context /= np.linalg.norm(context, axis=1, keepdims=True)
    score = (rng.random((300, 2)) < [0.3, 0.8]).astype(float)
    split = np.where(np.arange(300) < 150, "train", "test")
    test = score[150:]
    rate = score[:150].mean(axis=0)
    base = -np.mean(test * np.log(rate) + (1 - test) * np.log(1 - rate))
    assert quality(_table(context, score, split)).log_loss < base + 0.02

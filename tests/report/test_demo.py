"""The demo at its smallest: files, numbers, honesty of labels, same seed same bytes."""

import html

import numpy as np
import pytest

from cqbayes import load_scores
from cqbayes.environments.scores import from_scores
from cqbayes.report.demo import SMOKE, demo, simulated_log


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo(folder, SMOKE, progress=False)


@pytest.mark.slow
@pytest.mark.long
def test_report_and_pictures(outcome):
    folder, result = outcome
    text = html.unescape(result.report.read_text())
    assert len(result.numbers) == 5
    for name, value in result.numbers.items():
        assert name in text
        assert value in text
    for path in result.files:
        assert path.stat().st_size > 0
        if path.suffix == ".png":
            assert f'src="{path.name}"' in text
            assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in [*result.files, result.report]
    )


@pytest.mark.slow
@pytest.mark.long
def test_report_says_what_is_real_and_what_simulated(outcome):
    text = outcome[1].report.read_text()
    assert "users, their retrials and the queue are simulated" in text
    for policy in ("ACQB, NUTS", "ACQB, Laplace", "oracle", "random", "FIFO", "best single"):
        assert policy in text
    for fact in ("jax", "numpyro", "seed"):
        assert fact in text


def test_log_has_real_outcomes_and_simulated_users(key):
    """Rows come from the train split only, and outcomes follow the scores."""
    scores = load_scores("paretobandit3", 4)
    train = scores.part("train")
    log = simulated_log(key, train, 1_500)
    assert log.num_obs == 1_500
    assert (np.asarray(log.weight) == 1).all()
    assert (np.asarray(log.offered).sum(axis=1) == 2).all()
    place = {tuple(row): i for i, row in enumerate(np.float32(train.context))}
    rows = [place[tuple(np.asarray(x))] for x in np.asarray(log.context)]
    population = from_scores(train)
    odds = np.exp(np.asarray(population.utility.args[0])[rows]) * np.asarray(log.offered)
    retry = 1 / (1 + odds.sum(axis=1))
    retried = np.asarray(log.choice) == 0
    z = (retried.sum() - retry.sum()) / np.sqrt((retry * (1 - retry)).sum())
    assert abs(z) < 4
    assert len(set(rows)) < len(rows), "queries that were retried come back"

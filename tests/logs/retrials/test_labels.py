"""Labels: pairs drawn with known probabilities, kept without text, resumed and taken back."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

import cqbayes
from cqbayes.errors import InputError
from cqbayes.logs.retrials.chains import Rule, decide, inferred_pairs
from cqbayes.logs.retrials.detector import CLASSES, load_detector
from cqbayes.logs.retrials.labels import (
    Drawn,
    Label,
    draw_pairs,
    error_of_labels,
    label_pairs,
    labels_of,
    read_labels,
)
from cqbayes.logs.schema import TURNS

SECRET = "Zanzibar"
SAYS = ["Great, thanks", f"No, that is wrong, {SECRET}", "What is the capital?", "sort a list now"]


def _turns(sessions: int = 60, length: int = 5) -> pa.Table:
    rows = [
        {
            "session_id": f"s{i}",
            "turn": t,
            "guessed": False,
            "model": "ab"[(i + t) % 2],
            "text": f"{SAYS[(i * 7 + t * 3) % 4]} {i}" if t else f"sort a list {i}",
            "failed": False,
            "repeated": False,
        }
        for i in range(sessions)
        for t in range(length)
    ]
    return pa.Table.from_pylist(rows, TURNS)


@pytest.fixture(scope="module")
def rule() -> Rule:
    return Rule(load_detector())


@pytest.fixture(scope="module")
def drawn(rule) -> Drawn:
    return draw_pairs(_turns(), rule)


def _truth(question) -> str:
    return "says it was bad" if SECRET in question.second else "neither"


def test_pairs_are_those_whose_outcome_is_inferred(drawn, rule):
    _, counts, _ = decide(_turns().combine_chunks().to_batches()[0], rule)
    assert len(drawn.pair) == len(set(drawn.pair)) == counts.inferred == 60 * 4
    assert drawn.sizes.tolist() == np.bincount(drawn.score_class, minlength=CLASSES).tolist()
    asked = set(zip(drawn.first.to_pylist(), drawn.second.to_pylist(), strict=True))
    text = _turns()["text"].to_pylist()
    assert asked == {(text[i], text[i + 1]) for i in range(300) if i % 5 < 4}
    # Each has the class of its own score.
    score = rule.detector.score(drawn.first, drawn.second)
    np.testing.assert_array_equal(np.digitize(score, (-0.7, 0.2, 1.0)), drawn.score_class)


def test_any_part_from_the_start_is_a_sample_of_known_probability(rule):
    """Over seeds, each pair of a class is as often among the first as any other of it."""
    turns = _turns(20)
    times: Counter[str] = Counter()
    place = {}
    for seed in range(400):
        drawn = draw_pairs(turns, rule, seed)
        times.update(drawn.pair[:24])
        place = dict(zip(drawn.pair, drawn.score_class.tolist(), strict=True))
        taken = np.bincount(drawn.score_class[:24], minlength=CLASSES)
        expected = 24 * np.sqrt(drawn.sizes) / np.sqrt(drawn.sizes).sum()
        assert (np.abs(taken - expected) <= 1).all()
    for k in range(CLASSES):
        mine = np.array([times[pair] for pair in place if place[pair] == k])
        share = mine.mean() / 400
        if share < 1:
            far = (mine - mine.mean()) / np.sqrt(400 * share * (1 - share))
            assert (np.abs(far) < 4.5).all()
            assert 0.6 < np.mean(far**2) < 1.5


def test_the_draw_depends_on_the_pairs_and_the_seed_alone(rule, drawn):
    turns = _turns()
    sessions = turns["session_id"].to_numpy(zero_copy_only=False)
    other_order = turns.take(pa.array(np.argsort([hash(s) for s in sessions], kind="stable")))
    again = draw_pairs(other_order, rule)
    assert again.pair == drawn.pair
    assert draw_pairs(turns, rule, seed=1).pair != drawn.pair


def test_a_run_that_was_stopped_goes_on(tmp_path, drawn):
    path, seen = tmp_path / "labels.jsonl", []

    def some(question):
        seen.append(question)
        return "stop" if len(seen) == 8 else _truth(question)

    label_pairs(drawn, path, some, number=20)
    assert len(path.read_text().splitlines()) == 7
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # as some editors leave it
    assert len(read_labels(path).kinds) == 7
    label_pairs(drawn, path, lambda _: "stop", number=20)
    assert path.read_bytes() == whole
    for torn in (b'{"pair": "torn', b"{"):
        path.write_bytes(whole + torn)  # as a killed process leaves it
        assert len(read_labels(path).kinds) == 7
    found = label_pairs(drawn, path, lambda q: seen.append(q) or _truth(q), number=20)
    assert [q.second for q in seen[8:]] == drawn.second.to_pylist()[7:20]
    assert [q.number for q in seen[8:]] == list(range(7, 20))
    assert found == read_labels(path)
    assert list(found.kinds) == drawn.pair[:20]
    assert found.retrial == {
        pair: SECRET in text
        for pair, text in zip(drawn.pair[:20], drawn.second.to_pylist(), strict=False)
    }
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["class"] for line in lines] == drawn.score_class[:20].tolist()
    assert [line["of"] for line in lines] == drawn.sizes[drawn.score_class[:20]].tolist()
    assert SECRET not in path.read_text()
    assert "sort" not in path.read_text()
    label_pairs(drawn, path, lambda _: pytest.fail("asked again"), number=20)


def test_what_a_labeller_has_done_elsewhere_counts_as_done(tmp_path, drawn, rule):
    path = tmp_path / "labels.jsonl"
    label_pairs(draw_pairs(_turns(), rule, seed=1), path, _truth, number=12)
    found = label_pairs(drawn, path, _truth, number=20)
    assert len(found.kinds) == 20
    path.unlink()
    label_pairs(draw_pairs(_turns(20), rule), path, _truth, number=12)
    seen = []
    found = label_pairs(drawn, path, lambda q: seen.append(q.number) or _truth(q), number=20)
    assert (len(found.kinds), seen) == (20, list(range(12, 20)))


def test_a_file_that_is_something_else_is_left_alone(tmp_path, drawn):
    for content in (b"my notes", b"my notes\n", b'{"pairs": 3}', b'[{"pair": "'):
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"notes.txt, line 1: expected a label"):
            label_pairs(drawn, path, lambda _: "stop")
        assert path.read_bytes() == content
    log = tmp_path / "log.jsonl"
    log.write_text('{"id": "a", "model": "m", "messages": []}')
    with pytest.raises(InputError, match="expected another file than the input"):
        cqbayes.label(log, _truth, format="openai_chat", labels=log)
    with pytest.raises(InputError, match=r"null: expected a file to write labels to, got: "):
        label_pairs(drawn, "/dev/null", _truth, number=1)


def test_the_last_label_can_be_taken_back(tmp_path, drawn):
    path = tmp_path / "labels.jsonl"
    said = iter(["neither", "undo", "undo", "unclear", "neither", "undo", "asks again", "stop"])
    found = label_pairs(drawn, path, lambda _: next(said), number=5)
    assert found.kinds == {drawn.pair[0]: {"me": "unclear"}, drawn.pair[1]: {"me": "asks again"}}
    assert found.retrial == {drawn.pair[1]: True}
    assert read_labels(path) == found
    # And so can one of an earlier call.
    said = iter(["undo", "neither", "stop"])
    found = label_pairs(drawn, path, lambda _: next(said), number=5)
    assert found.retrial == {drawn.pair[1]: False}


def test_two_labellers_get_the_same_pairs_and_their_agreement_counts(tmp_path, drawn):
    path = tmp_path / "labels.jsonl"
    label_pairs(drawn, path, _truth, number=20)
    found = label_pairs(drawn, path, lambda _: "neither", number=10, by="you")
    bad = [SECRET in text for text in drawn.second.to_pylist()[:20]]
    assert found.agreement == (sum(bad[:10]), 10)
    assert sum(bad[:10]) > 0
    # The first to say something clear is believed, up to the error of a labeller.
    assert list(found.retrial.values()) == bad
    assert labels_of([Label("a", "unclear"), Label("a", "neither", "you")]).retrial == {"a": False}
    assert error_of_labels(found) == (1 + sum(bad[:10]), 99 + 20 - sum(bad[:10]))
    assert error_of_labels(labels_of([Label("a", "neither")])) == (1, 99)


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "no",
        '{"pair": "a"}',
        '{"pair": "a", "label": "good", "by": "me", "class": 0, "of": 1}',
        '{"pair": 3, "label": "neither", "by": "me", "class": 0, "of": 1}',
        '{"pair": "a", "label": "neither", "by": "me", "class": "0", "of": 1}',
        '{"pair": "a", "label": ["neither"], "by": "me", "class": 0, "of": 1}',
        "[" * 100_000,
    ],
)
def test_lines_that_are_no_labels(tmp_path, line):
    path = tmp_path / "labels.jsonl"
    good = '{"pair": "a", "label": "neither", "by": "me", "class": 0, "of": 1, "at": "x"}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=r"labels.jsonl, line 2: expected a label"):
        read_labels(path)


def test_what_is_refused(tmp_path, drawn):
    with pytest.raises(InputError, match="expected a file of labels, got none; cqbayes label"):
        read_labels(tmp_path / "none")
    with pytest.raises(InputError, match="expected labels that can be read, got: Is a directory"):
        read_labels(tmp_path)
    with pytest.raises(InputError, match=r"expected one of asks again, .* stop, got 'maybe'"):
        label_pairs(drawn, tmp_path / "a", lambda _: "maybe")
    nothing = draw_pairs(_turns(3, 1), Rule(load_detector()))
    with pytest.raises(InputError, match="expected requests that follow an answer, got none"):
        label_pairs(nothing, tmp_path / "a", _truth)
    assert not list(inferred_pairs([], Rule(load_detector())))
    with pytest.raises(InputError, match="expected labels that can be read, got: not readable"):
        label_pairs(drawn, "a\0b", _truth)
    with pytest.raises(InputError, match="expected a file of labels, got none"):
        read_labels("a\0b")
    with pytest.raises(InputError, match="format: expected an importer's, one of"):
        cqbayes.label(tmp_path / "a", _truth, format="services")

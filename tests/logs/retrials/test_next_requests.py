"""What next requests mean in one log: signs, and rows of requests that open a session."""

import numpy as np
import pyarrow as pa

from cqbayes.choice.data import choice_data
from cqbayes.logs.retrials.detector import BUCKETS, Detector, load_detector
from cqbayes.logs.retrials.next_requests import next_requests
from cqbayes.logs.retrials.words import hashed_words

_WRONG = hashed_words(pa.array(["wrong"])).bucket
_WEIGHTS = np.zeros(BUCKETS)
_WEIGHTS[_WRONG] = 4.0
DETECTOR = Detector(-1.0, 0.0, _WEIGHTS, prevalence=0.2)  # of one word: 3, of all else -1


def _turns(*sessions: list[str | None]) -> pa.Table:
    rows = [(f"s{i}", text) for i, texts in enumerate(sessions) for text in texts]
    return pa.table(
        {
            "session_id": pa.array([session for session, _ in rows], pa.string()),
            "text": pa.array([text for _, text in rows], pa.string()),
            "failed": pa.nulls(len(rows), pa.bool_()),
            "language": pa.nulls(len(rows), pa.string()),
        }
    )


def test_requests_that_open_a_session_are_counted_by_class():
    turns = _turns(["a", "wrong"], ["wrong", "b", "wrong"], [None, "wrong"], ["c"])
    assert next_requests(DETECTOR, turns).opening.tolist() == [2, 0, 0, 1]


def test_words_of_another_language_are_not_known():
    """Simulated: the same sentences, and with each letter replaced by another."""
    said = ["That is wrong, try again", "No, I want another one", "Is there a cheap hotel?"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    other = str.maketrans(letters, "qzxjkvwypgbmfuhncdlrtsoiea")
    english = next_requests(load_detector(), _turns(["Hello", *said * 20]))
    foreign = next_requests(
        load_detector(), _turns(["Hello", *(t.lower().translate(other) for t in said)])
    )
    assert english.known > 0.8
    assert foreign.known < 0.3
    assert np.isnan(next_requests(DETECTOR, _turns(["a"])).known)


def test_languages_that_are_stated_are_counted():
    turns = _turns(["a", "b", "c"], ["d", "e", "f"])
    stated = pa.array(["German", "English", None, "en-GB", "German", "de"])
    turns = turns.set_column(turns.column_names.index("language"), "language", stated)
    assert next_requests(DETECTOR, turns).foreign == 0.5


def test_the_sign_is_that_of_the_class():
    found = next_requests(DETECTOR, _turns(["a"]))
    score = np.array([-1.0, -0.5, 0.3, 3.0])
    nobody, probability = np.full(4, -1), DETECTOR.probability(score)
    assert found.signs(probability, nobody).tolist() == [-2, -3, -4, -5]
    # Labelled as retrials, and as taken: further on by the number of classes each.
    assert found.signs(probability, np.array([1, -1, 0, 1])).tolist() == [-6, -3, -12, -9]


def test_doubts_grow_where_the_detector_is_a_stranger():
    plain = next_requests(DETECTOR, _turns(["a"]))
    of = {known: plain._replace(known=known).settings() for known in (0.9, 0.46, 0.2, np.nan)}
    for known, times in ((0.9, 1), (0.46, 2), (0.2, 4), (np.nan, 1)):
        median, spread = DETECTOR.strength
        assert of[known]["strength"] == (median, times * spread)
        assert of[known]["tilt"] == times * DETECTOR.tilt
        assert of[known]["doubts"] == tuple(times * one for one in DETECTOR.doubts)
        assert of[known]["levels"] == DETECTOR.levels


def test_they_are_rows_in_which_no_llm_is_offered():
    data = choice_data([[1.0], [2.0]], [[True, False], [False, True]], [1, -3], attempt=[1, 2])
    found = next_requests(DETECTOR, _turns(["a"], ["wrong"], ["b"])).with_opening(data)
    assert found.choice.tolist() == [1, -3, -2, -3, -4, -5]
    assert found.weight.tolist() == [1, 1, 2, 0, 0, 1]
    assert found.offered[2:].any() == np.False_
    assert found.offered[:2].tolist() == data.offered.tolist()
    assert found.attempt.tolist()[:2] == [1, 2]


def test_what_users_showed_says_what_scores_mean():
    data = choice_data([[1.0], [2.0]], [[True, False], [False, True]], [1, -3])
    plain = next_requests(DETECTOR, _turns(["a"], ["wrong"], ["b"]))
    after = np.array([[7, 0, 0, 1], [2, 0, 0, 4]])  # answers that were taken, and that were not
    found = plain._replace(after=after)
    assert "known" not in plain.settings()
    assert found.settings() == {**plain.settings(), "known": True}
    made = found.with_opening(data)
    assert made.choice.tolist() == [1, -3, *range(-2, -14, -1)]
    assert made.weight.tolist() == [1, 1, 2, 0, 0, 1, *after[1], *after[0]]
    assert found._replace(labels=(1.0, 9.0)).settings()["labels"] == (1.0, 9.0)
    assert plain._replace(labels=(1.0, 9.0)).knows

"""What is wrong with data is said, what is not is not, and every threshold is where it stands."""

import json

import numpy as np
import pytest

from cqbayes.diagnostics.data_verdict import Checked, DataFacts, DataVerdict, Finding, judge
from cqbayes.diagnostics.stratified import Stratum, share_of_hits, shares_of_classes
from cqbayes.errors import InputError

SOUND = DataFacts(
    read=1_000,
    requests=1_000,
    turns=1_000,
    services=1_000,
    queries=1_000,
    first_attempts=1_000,
    sessions=500,
    explicit=1_000,
    retried=400,
    taken=600,
    offered=(("a", 500), ("b", 500)),
)
SECRET = "what a user wrote"


def levels(**changes) -> dict[str, str]:
    """What is found in sound data with some changes: its level, by its name."""
    return {found.name: found.level for found in judge(SOUND._replace(**changes)).findings}


def test_nothing_is_found_in_sound_data():
    verdict = judge(SOUND)
    assert verdict == DataVerdict()
    assert verdict.ok
    assert str(verdict) == "data: ok (nothing found wrong)"
    assert judge(DataFacts()).ok, "what is not known is not judged"


@pytest.mark.parametrize(
    ("name", "within", "beyond", "better", "worse"),
    [
        ("set_aside", {"set_aside": 50}, {"set_aside": 51}, "note", "warn"),
        ("set_aside", {"set_aside": 200}, {"set_aside": 201}, "warn", "fail"),
        ("guessed_sessions", {"guessed": 50}, {"guessed": 51}, "note", "warn"),
        ("inferred", {"inferred": 50}, {"inferred": 51}, "note", "warn"),
        ("unseen", {"unseen": 50}, {"unseen": 51}, "note", "warn"),
        ("unattributed", {"unattributed": 200}, {"unattributed": 201}, "note", "warn"),
        ("last_taken", {"decreed_taken": 50}, {"decreed_taken": 51}, "note", "warn"),
        ("last_dropped", {"decreed_dropped": 52}, {"decreed_dropped": 53}, "note", "warn"),
        ("no_first_attempt", {"first_attempts": 950}, {"first_attempts": 949}, "note", "warn"),
        ("no_acceptance", {"taken": 1}, {"taken": 0, "silent": 600}, None, "fail"),
        ("no_retry", {"retried": 1}, {"retried": 0, "silent": 400}, None, "fail"),
        (
            "few_rows",
            {"offered": (("a", 980), ("b", 20))},
            {"offered": (("a", 981), ("b", 19))},
            None,
            "warn",
        ),
        ("never_offered", {}, {"offered": (*SOUND.offered, ("c", 0))}, None, "warn"),
        ("list_like_names", {}, {"list_like_names": 1}, None, "warn"),
        (
            "rate_not_learnt",
            {"rates": (("leaves", 0.2, 0.18), ("fixed", 0.0, 0.0))},
            {"rates": (("leaves", 0.2, 0.181),)},
            None,
            "warn",
        ),
        ("rate_not_learnt", {}, {"rates": (("leaves", 0.2, float("nan")),)}, None, "warn"),
        ("undated", {"turns": 98, "undated": 2}, {"turns": 97, "undated": 3}, "note", "warn"),
    ],
)
def test_each_threshold_is_where_it_stands(name, within, beyond, better, worse):
    assert levels(**within) == ({name: better} if better else {})
    assert levels(**beyond) == {name: worse}
    assert judge(SOUND._replace(**within)).ok == (better in (None, "note"))
    assert not judge(SOUND._replace(**beyond)).ok


@pytest.mark.parametrize(
    ("within", "beyond", "name"),
    [
        ({"known_words": 0.4}, {"known_words": 0.39}, "unknown_words"),
        ({"known_words": 0.4}, {"known_words": float("nan")}, "unknown_words"),
        ({"foreign": 0.05}, {"foreign": 0.06}, "not_english"),
    ],
)
def test_a_detector_that_hears_nothing_is_said(within, beyond, name):
    heard = SOUND._replace(followed=51, known_words=0.9)
    assert judge(heard._replace(**within)).ok
    assert [found.name for found in judge(heard._replace(**beyond)).doubts] == [name]
    assert judge(heard._replace(**{**beyond, "followed": 50})).ok, "few hang on it"


def _checked(labelled: int) -> Checked:
    strata = (Stratum(900, labelled - 10, 4), Stratum(100, 10, 5))
    kinds = {"asks again": 3, "says it was bad": 6, "neither": labelled - 9}
    return Checked(strata, (0.2,), kinds, agreement=(1, 12), elsewhere=2)


def test_labels_check_what_was_inferred():
    """From 50 on; and what they say by themselves is in a sentence, with its error."""
    inferred = SOUND._replace(
        followed=600, hidden_retries=100.0, known_words=0.1, checked=_checked(50)
    )
    found = {one.name: one for one in judge(inferred).findings}
    assert judge(inferred).ok
    assert "which is checked by labels" in found["inferred"].text
    share, error = share_of_hits(inferred.checked.strata)
    assert share == 0.9 * 0.1 + 0.1 * 0.5
    said = found["labels"].text
    assert said.startswith(
        "50 of 1,000 next requests are labelled; "
        f"14.0% +- {error:.1%} are retrials, and 50 more labels would make that +- "
    )
    hits, others = shares_of_classes(inferred.checked.strata, [False, True])
    assert f"scores above 0.2 have {hits.median:.0%} ({hits.low:.0%} to {hits.high:.0%}) of" in said
    assert f"retrials and {others.median:.0%} (" in said
    assert "labels in all: 3 asks again, 6 says it was bad, 41 neither; two" in said
    assert said.endswith("two labellers agree on 11 of 12; 2 labelled pairs are not in this log")
    few = judge(inferred._replace(checked=_checked(49)))
    assert [one.name for one in few.doubts] == ["inferred", "unknown_words"]
    moved = judge(inferred._replace(checked=inferred.checked._replace(moved=1)))
    assert {one.name for one in moved.doubts} == {"labels", "inferred", "unknown_words"}
    assert "1 were drawn by another detector's scores: label anew" in str(moved)


def test_the_two_signals_are_counted_apart():
    facts = SOUND._replace(followed=60, explicit=940, asked_again=120, said_bad=8)
    (found,) = judge(facts).findings
    assert found.text.endswith(
        "; users showed 120 times that they ask again, and said 8 times that an answer was bad"
    )


@pytest.mark.parametrize(
    ("name", "change", "value"),
    [
        ("not_turns", {"not_turns": (("raced", 30), ("second records", 20))}, 0.05),
        ("out_of_order", {"out_of_order": 7}, 0.007),
        ("users_missing", {"users_missing": 990}, 0.99),
        ("signs", {"went_on": 600, "explicit": 400}, None),
        ("one_llm", {"offered": (("a", 1_000),)}, None),
        ("repeated_queries", {"queries": 500, "first_attempts": 500}, 2.0),
    ],
)
def test_what_is_only_to_know_is_a_note(name, change, value):
    verdict = judge(SOUND._replace(**change))
    assert [(found.name, found.level) for found in verdict.findings] == [(name, "note")]
    assert verdict.findings[0].value == value
    assert verdict.ok


def test_last_turns_are_counted_with_what_each_choice_would_do():
    found = {f.name: f for f in judge(SOUND._replace(last=300, silent=300, taken=300)).findings}
    assert found["last_turns"].level == "note"
    assert found["last_turns"].value == 0.3
    text = found["last_turns"].text
    assert text.startswith("300 of 1,000 services (30.0%) are the last of their session")
    assert "to take them for accepted would raise acceptance, to drop them would lower it" in text
    decreed = judge(SOUND._replace(last=300, decreed_taken=300))
    assert [f.name for f in decreed.doubts] == ["last_taken"]
    assert "this raises acceptance" in decreed.doubts[0].text
    assert "last_turns" not in [f.name for f in decreed.findings], "it is not left open"
    dropped = judge(SOUND._replace(decreed_dropped=300))
    assert dropped.doubts[0].text.startswith("300 of 1,300 answers (23.1%)")
    assert "this lowers acceptance" in dropped.doubts[0].text


def test_the_worst_comes_first_and_figures_are_in_the_sentences():
    facts = SOUND._replace(
        read=1_200,
        set_aside=120,
        guessed=600,
        guessed_sessions=300,
        guessed_retrials=90,
        retried=0,
        silent=400,
        not_turns=(("raced", 30), ("second records", 20)),
    )
    verdict = judge(facts)
    assert str(verdict).splitlines() == [
        "data: not to be believed as they are (no_retry, set_aside, guessed_sessions)",
        "fail: none of 1,000 services was retried: users who ask again cannot be told from users "
        "who take anything",
        "warn: 120 of 1,200 records (10.0%) are set aside: if they differ from the rest, the fit "
        "is not of all",
        "warn: 600 of 1,000 services (60.0%) are in guessed sessions: nothing states 300 of 500 "
        "sessions (60.0%), and 90 retrials hang on them",
        "note: 50 of 1,000 requests and spans (5.0%) are no turn of a user: 30 raced; 20 second "
        "records",
    ]


def test_names_of_llms_are_few_and_short():
    rows = (*((f"{'x' * 200}{j}", 5 + j) for j in range(9)), ("b", 0), ("c", 0))
    few, never = sorted(judge(SOUND._replace(offered=rows)).doubts, key=lambda found: found.name)
    assert few.value == 5.0
    assert "and 6 more" in few.text
    assert len(few.text) < 300
    assert never.text == "no service offers b, c: what is said of them is the prior"
    assert never.value == 2.0


@pytest.mark.parametrize("ratio", [0.95, float("nan"), float("inf")])
def test_a_verdict_survives_json(ratio):
    facts = SOUND._replace(inferred=70, rates=(("leaves", 1.0, ratio),), users_missing=3)
    verdict = judge(facts)
    said = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert said["ok"] is False
    assert DataVerdict.from_dict(said) == verdict
    assert DataVerdict.from_dict(judge(SOUND).to_dict()).ok


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "expected findings"),
        ({"findings": [{"name": "a", SECRET: 1}]}, "expected findings"),
        ({"findings": [{"name": "a", "level": SECRET, "text": ""}]}, "expected levels"),
    ],
)
def test_what_is_no_verdict_is_refused(said, message):
    with pytest.raises(InputError, match=message) as refusal:
        DataVerdict.from_dict(said)
    assert SECRET not in str(refusal.value)


def test_a_verdict_is_not_ok_because_it_says_so():
    finding = Finding("a", "warn", "")._asdict()
    assert not DataVerdict.from_dict({"ok": True, "findings": [finding]}).ok


def test_llms_that_are_complained_of_differently_are_said():
    """Plainly of one and quietly of the other: what a score means is not the same for both."""
    spoken = np.zeros((4, 3, 4), int)
    spoken[0] = [[40, 20, 5, 2], [40, 20, 5, 2], [0, 0, 0, 0]]
    spoken[1] = [[3, 3, 7, 7], [7, 7, 3, 3], [0, 0, 0, 0]]
    offered = (*SOUND.offered, ("c", 50))
    assert judge(SOUND._replace(offered=offered, spoken=spoken)).ok, "chance has that"
    (found,) = judge(SOUND._replace(offered=offered, spoken=10 * spoken)).doubts
    assert (found.name, found.level) == ("unlike_llms", "warn")
    assert "after answers labelled as not taken" in found.text
    assert "high in 140 of 200 for a and 60 of 200 for b" in found.text
    shown = judge(SOUND._replace(offered=offered, spoken=10 * spoken[[2, 3, 0, 1]])).doubts[0]
    assert "after answers that users showed not to be taken" in shown.text

"""The time to go is known after one step, however long steps are."""

import pytest

from cqbayes._tools.progress import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("seconds", [2, 240])
@pytest.mark.parametrize("steps", [1, 2])
def test_time_to_go(clock, capsys, seconds, steps):
    with progress_bar("cells", total=10) as advance:
        for _ in range(steps):
            clock[0] += seconds
            advance(1)
    left = (10 - steps) * seconds
    assert f"left {left // 3600}:{left // 60 % 60:02}:{left % 60:02}" in capsys.readouterr().err


def test_what_an_earlier_call_did_says_nothing_about_speed(clock, capsys):
    with progress_bar("rounds", total=100, done=80) as advance:
        clock[0] += 60
        advance(5)
    assert " 85% 0:01:00 left 0:03:00" in capsys.readouterr().err

"""What a long job says of its rate and time left."""

import pytest

from score_sde.runtime import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_compilation_before_the_first_step_is_not_in_the_rate(clock, capsys):
    with progress.Progress(100, "train", start=40) as bar:
        clock[0] += 60.0  # compiling
        bar.update(41, "compiled")
        assert bar.rate is None
        clock[0] += 10.0
        bar.update(61, "loss 1")
        assert bar.rate == pytest.approx(2.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train 41/100  compiled"
    assert lines[1] == "train 61/100  2 step/s  19s left  loss 1"


def test_lines_come_at_most_every_so_often(clock, capsys):
    with progress.Progress(10, "read", "file", every_seconds=5.0) as bar:
        for done in range(1, 11):
            clock[0] += 1.0
            bar.update(done)
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["5/10", "10/10"]


def test_quiet_says_nothing(clock, capsys):
    with progress.Progress(10, "read", quiet=True) as bar:
        clock[0] += 100.0
        bar.update(5)
        bar.say("hello")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(3720, "1h 02m"), (200.9, "3m 20s"), (12.3, "12s")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text

"""What the loop says of itself: time lost to input, time spent compiling."""

import pytest

from score_sde import progress
from score_sde.train import loop


class Done:
    def __init__(self, ready):
        self._ready = ready

    def is_ready(self):
        return self._ready


def test_waiting_for_a_batch_counts_only_while_the_devices_have_nothing_to_do(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def slow():
        while True:
            now[0] += 2.0
            yield {}

    source = loop._Input(slow())
    source.next(None)
    assert source.idle_seconds == pytest.approx(2.0)
    source.next({"finite": Done(False)})  # they are still busy with the step before
    assert source.idle_seconds == pytest.approx(2.0)
    source.next({"finite": Done(True)})
    assert source.idle_seconds == pytest.approx(4.0)


class Later:
    """Metrics that are there once somebody waits for them or for later ones."""

    done = -1

    def __init__(self, step):
        self._step = step

    def block_until_ready(self):
        Later.done = max(Later.done, self._step)
        return self


def test_one_dispatch_waits_while_another_is_computed(monkeypatch):
    monkeypatch.setattr(Later, "done", -1)
    pending = loop._Pending()
    for step in range(4):
        pending.add(step, {"finite": Later(step)})
        assert Later.done == step - 1  # neither more of them nor fewer


def test_seconds_of_what_shows_no_progress_are_counted(capsys):
    with progress.Progress(10, "train", every_seconds=0.0) as bar, bar.ticking("compiling"):
        pass
    assert capsys.readouterr().err.splitlines()[0] == "train 0/10  compiling 0s"

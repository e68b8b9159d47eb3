"""What the loop says of itself (time lost to input, time spent compiling), and measuring around an end."""

import json
import os
import signal

import pytest

from score_sde.runtime import progress
from score_sde.tasks.base import Measure
from score_sde.train import Best, Checkpoints, loop
from score_sde.train.measuring import lacking
from tests.train.test_training import Run


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


class Killed(BaseException):
    pass


class Measures:
    """Two that measure every four steps and at the end; the first calls ``on`` when it begins at ``at``."""

    def __init__(self, at=None, on=None):
        self.calls = []
        self._at, self._on = at, on
        self.both = tuple(
            Measure(
                4,
                lambda step, state, frozen, note, name=name: self._act(name, step, state),
                at_end=True,
                logs=name,
            )
            for name in ("first", "second")
        )

    def _act(self, name, step, state):
        if (name, step) == ("first", self._at):
            self._on()
        self.calls.append((name, step))
        return {name: float(state.params["net"]["b"].sum())}


def measured(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "first" in line or "second" in line]


def kill():
    raise Killed


@pytest.mark.parametrize("at", [4, 6], ids=["between", "at the end"])
def test_a_run_killed_while_measuring_has_its_steps_and_measures_what_it_lacks(at, tmp_path):
    whole, cut, rest = Measures(), Measures(at, kill), Measures()
    Run(tmp_path / "whole").to(6, measures=whole.both)
    run = Run(tmp_path / "cut")
    with pytest.raises(Killed):
        run.to(6, measures=cut.both)
    with Checkpoints(run.path / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == at
    run.to(6, measures=rest.both)
    assert cut.calls + rest.calls == whole.calls
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    again = Measures()
    run.to(6, measures=again.both)
    assert again.calls == []


def test_a_signal_leaves_out_the_measurements_to_come_until_the_run_goes_on(tmp_path):
    run = Run(tmp_path)
    stopped, rest = Measures(6, lambda: os.kill(os.getpid(), signal.SIGTERM)), Measures()
    run.to(6, measures=stopped.both)
    assert stopped.calls == [("first", 4), ("second", 4), ("first", 6)]
    run.to(6, measures=rest.both)
    assert rest.calls == [("second", 6)]


def test_a_run_is_finished_when_all_is_measured(tmp_path, monkeypatch):
    train, finished = loop.train, []

    def watched(*args, **options):
        result = train(*args, **options)
        finished.append(result[1])
        return result

    monkeypatch.setattr("tests.train.test_training.train", watched)
    run = Run(tmp_path)
    run.to(6, measures=Measures(6, lambda: os.kill(os.getpid(), signal.SIGTERM)).both)
    run.to(6, measures=Measures().both)
    assert finished == [False, True]


def test_the_best_has_seen_all_that_is_logged(tmp_path, monkeypatch):
    run = Run(tmp_path)

    def best_of(checkpoints):
        return Best(checkpoints, tmp_path / "best.json", "first")

    monkeypatch.setattr(Best, "offer", lambda *_: kill())
    for _ in range(2):  # killed before it has: measured again
        actions = Measures()
        with Checkpoints(run.path / "checkpoints") as checkpoints:
            state = checkpoints.restore(run.shapes, run.mesh) if checkpoints.steps else run.fresh()
            with pytest.raises(Killed):
                run.on(checkpoints, state, 6, measures=actions.both, best=best_of(checkpoints))
        assert actions.calls == [("first", 4)]
        assert measured(tmp_path) == []
    monkeypatch.undo()
    with Checkpoints(run.path / "checkpoints") as checkpoints:
        best = best_of(checkpoints)
        run.on(checkpoints, checkpoints.restore(run.shapes, run.mesh), 6, measures=Measures().both, best=best)
        assert best.record.value == min(line["first"] for line in measured(tmp_path) if "first" in line)


def test_what_other_steps_logged_is_not_taken_for_this_one():
    one = Measure(4, lambda step, state, frozen, note: {}, logs="first")
    assert lacking([one], 8, [{"step": 4, "first": 1.0}, {"step": 8, "loss": 1.0}]) == [one]
    assert lacking([one], 8, [{"step": 8, "first": 1.0}]) == []


def test_a_measurement_is_left_between_its_chunks_and_made_up_for(tmp_path, capsys):
    chunks, begun = [], []

    def act(step, state, frozen, note):
        begun.append(step)
        for done in range(1, 6):
            chunks.append(done)
            if (begun, done) == ([4], 2):
                os.kill(os.getpid(), signal.SIGTERM)
            note(done, 5, "loss 1")
        return {"first": 1.0}

    measure = Measure(4, act, logs="first")
    run = Run(tmp_path)
    state = run.to(8, measures=(measure,))
    assert int(state.step) == 4 and chunks == [1, 2]
    run.to(8, measures=(measure,))
    assert begun == [4, 4, 8] and chunks == [1, 2, *range(1, 6), *range(1, 6)]
    assert [line["step"] for line in measured(tmp_path)] == [4, 8]


def test_zero_means_never_at_the_end_too():
    never = Measure(0, lambda step, state, frozen, note: {}, at_end=True)
    assert not never.due(3, 4, 4)
    assert Measure(3, never.act, at_end=True).due(3, 4, 4)
    assert not Measure(3, never.act).due(3, 4, 4)

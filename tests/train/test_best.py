"""The best checkpoint outlives the newest, and its record never names one that is not there."""

import json

import numpy as np
import pytest

from score_sde.tasks.base import Measure
from score_sde.train import Best, Checkpoints, read_best
from tests.train.test_training import Run, assert_same

VALUES = {4: 0.9, 8: 0.3, 12: 0.5, 16: 0.4, 20: 0.35}


def measured(step, state, frozen, note):
    return {"held_out_loss": VALUES[step]}


def test_the_best_is_kept_when_newer_ones_push_it_out(tmp_path):
    run = Run(tmp_path)
    with Checkpoints(tmp_path / "c", keep_last=2) as checkpoints:
        best = Best(checkpoints, tmp_path / "best.json", "loss")
        taken = []
        for step, value in VALUES.items():
            taken.append(best.offer(step, {"loss": value}, run.fresh()))
            checkpoints.save(step, run.fresh())
            checkpoints.wait()
        assert taken == [True, True, False, False, False]
        assert checkpoints.steps == [8, 16, 20]  # 4 was the best for a while, and was let go
        assert not best.offer(24, {"loss": float("nan")}, run.fresh())
        assert not best.offer(24, {"other": 0.0}, run.fresh())
    assert read_best(tmp_path / "best.json") == (8, "loss", 0.3)


def test_a_run_that_goes_on_knows_its_best(tmp_path):
    run = Run(tmp_path)
    with Checkpoints(tmp_path / "c", keep_last=1) as checkpoints:
        Best(checkpoints, tmp_path / "best.json", "loss").offer(8, {"loss": 0.3}, run.fresh())
    with Checkpoints(tmp_path / "c", keep_last=1) as checkpoints:
        best = Best(checkpoints, tmp_path / "best.json", "loss")
        assert not best.offer(12, {"loss": 0.5}, run.fresh())
        for step in (12, 16):
            checkpoints.save(step, run.fresh())
            checkpoints.wait()
        assert checkpoints.steps == [8, 16]
    with Checkpoints(tmp_path / "c", keep_last=1) as checkpoints:  # another metric begins anew
        assert Best(checkpoints, tmp_path / "best.json", "other").offer(20, {"other": 7.0}, run.fresh())
    (tmp_path / "best.json").write_text(json.dumps({"step": 99, "metric": "loss", "value": 0.0}))
    with Checkpoints(tmp_path / "c", keep_last=1) as checkpoints:  # names a checkpoint that is not there
        assert Best(checkpoints, tmp_path / "best.json", "loss").record is None
    (tmp_path / "best.json").write_text('{"step"')
    assert read_best(tmp_path / "best.json") is None


class Killed(Exception):
    pass


@pytest.mark.parametrize("when", ["before the checkpoint", "before the record"])
def test_a_kill_leaves_a_record_of_a_checkpoint_that_is_there(tmp_path, monkeypatch, when):
    run = Run(tmp_path)

    def die(*_):
        raise Killed

    with Checkpoints(tmp_path / "c", keep_last=1) as checkpoints:
        best = Best(checkpoints, tmp_path / "best.json", "loss")
        best.offer(4, {"loss": 0.9}, run.fresh())
        if when == "before the checkpoint":
            monkeypatch.setattr(checkpoints, "save", die)
        else:
            monkeypatch.setattr("os.replace", die)
        with pytest.raises(Killed):
            best.offer(8, {"loss": 0.3}, run.fresh())
        monkeypatch.undo()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert read_best(tmp_path / "best.json").step == 4
        assert 4 in checkpoints.steps


def test_a_resumed_run_keeps_the_same_best_and_the_same_bits(tmp_path):
    def to(run, steps):
        with Checkpoints(run.path / "checkpoints", keep_last=1) as checkpoints:
            state = checkpoints.restore(run.shapes, run.mesh) if checkpoints.steps else run.fresh()
            best = Best(checkpoints, run.path / "best.json", "held_out_loss")
            return run.on(checkpoints, state, steps, measures=(Measure(4, measured),), best=best)

    whole = to(Run(tmp_path / "a"), 20)
    to(Run(tmp_path / "b"), 11)
    assert_same(to(Run(tmp_path / "b"), 20), whole)
    for name in "ab":
        assert read_best(tmp_path / name / "best.json").step == 8
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            assert checkpoints.steps == [8, 20]
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in "ab"
    ]
    for log in logs:
        looks = [(line["step"], line["held_out_loss"]) for line in log if "held_out_loss" in line]
        assert looks == list(VALUES.items())
    with Checkpoints(tmp_path / "b" / "checkpoints") as checkpoints:  # and it is the state of its step
        run = Run(tmp_path)
        kept = checkpoints.restore(run.shapes, run.mesh, 8)
    assert int(kept.step) == 8
    assert not np.array_equal(kept.params["net"]["w"], whole.params["net"]["w"])

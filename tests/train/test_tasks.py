"""A task may have parameters of every kind: the trainer knows parts by name, and not what they are for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import score_sde
from score_sde.data import Digits
from score_sde.experiment import files
from score_sde.experiment.run_sections import Training
from score_sde.experiment.schema import changed, typed
from score_sde.names import ConfigError
from score_sde.runs.workdir import Workdir
from score_sde.runtime.mesh import make_mesh
from score_sde.tasks import TASKS
from score_sde.tasks.base import Measure, Setting
from score_sde.train import EMAS, Checkpoints, fit
from tests.train.test_training import assert_same


class Followers:
    """One part learns what a frozen teacher says, and another the moving average of the first."""

    denoises = False

    def __init__(self, goal: float = 2.0):
        self.goal = goal

    def frozen(self):
        return {"teacher": {"goal": jnp.full((3,), self.goal)}}

    def init(self, frozen, key):
        return {"net": {"w": jnp.zeros(3)}, "follower": {"w": jnp.zeros(3)}}

    def draw(self, frozen, batch, key):
        return frozen["teacher"]["goal"][None] + 0.1 * jax.random.normal(key, (batch["x"].shape[0], 3))

    def loss(self, trained, frozen, ema, examples, key):
        behind = jnp.sum((trained["follower"]["w"] - ema["net"]["w"]) ** 2)
        return jnp.sum((trained["net"]["w"][None] - examples) ** 2, axis=1) + behind, {"behind": behind}

    def measures(self, setting):
        def gap(step, state, frozen, note):
            return {"gap": float(jnp.abs(state.ema["follower"]["w"] - frozen["teacher"]["goal"]).max())}

        return (Measure(4, gap, logs="gap"),)


def fitted(workdir, steps, task):
    mesh = make_mesh(devices=jax.devices()[:2])
    setting = Setting(Digits("train"), Digits("test"), mesh, workdir, seed=3)
    schedule = Training(
        steps=steps, batch_size=8, checkpoint_every_steps=8, log_every_steps=8, best_metric="gap"
    )
    state, frozen, finished = fit(task, setting, optax.sgd(0.1), EMAS["constant"](decay=0.5), schedule)
    assert finished
    return state, frozen


def test_a_teacher_a_part_and_one_that_follows_its_average_are_trained_resumed_and_measured(tmp_path):
    whole, frozen = fitted(tmp_path / "whole", 40, Followers())
    assert set(whole.params) == set(whole.ema) == {"net", "follower"}
    np.testing.assert_array_equal(frozen["teacher"]["goal"], 2.0)  # no gradient has reached it
    np.testing.assert_allclose(whole.params["net"]["w"], 2.0, atol=0.1)
    np.testing.assert_allclose(whole.ema["follower"]["w"], 2.0, atol=0.1)
    fitted(tmp_path / "cut", 16, Followers())
    again, kept = fitted(
        tmp_path / "cut", 40, Followers(goal=9.0)
    )  # the teacher of the run is the stored one
    assert_same((again, kept), (whole, frozen))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["gap"] for line in lines if "gap" in line]
    assert len(gaps) == 10 and gaps[-1] < 0.1 < gaps[0]
    assert any("behind" in line for line in lines)


def test_the_first_step_moves_each_part_by_its_own_gradient(tmp_path):
    state, _ = fitted(tmp_path, 1, Followers())
    # sgd(0.1) on sum (w - goal)^2; what follows starts where the average does, and stays.
    np.testing.assert_allclose(state.params["net"]["w"], 0.2 * 2.0, atol=0.05)
    np.testing.assert_array_equal(state.params["follower"]["w"], 0.0)
    np.testing.assert_allclose(state.ema["net"]["w"], 0.5 * state.params["net"]["w"], rtol=1e-6)


def test_parts_that_another_task_has_are_named(tmp_path):
    class Alone(Followers):
        def init(self, frozen, key):
            return {"net": {"w": jnp.zeros(3)}}

    fitted(tmp_path, 8, Followers())
    with pytest.raises(ValueError, match=r"follower/w: saved float32\[3\], config nothing"):
        fitted(tmp_path, 16, Alone())
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == 8


def test_a_run_whose_task_fits_no_score_model_is_loaded_with_its_parts_and_not_sampled(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "followers", Followers)
    state, _ = fitted(tmp_path, 1, Followers())
    config = changed(typed(files.load_file("configs/vp_digits.py")), {"task": "followers"})
    Workdir(tmp_path, config, Digits("train").spec).save()
    model = score_sde.load(tmp_path)
    assert set(model.parts) == {"net", "follower"}
    np.testing.assert_array_equal(model.parts["net"]["w"], state.ema["net"]["w"])
    for refused in (
        lambda: model.sample(1),
        lambda: model.denoise(np.zeros((1, 8, 8, 1)), 0.5),
        lambda: model.log_prob(np.zeros((1, 8, 8, 1), np.uint8)),
        lambda: model.encode(np.zeros((1, 8, 8, 1), np.uint8)),
    ):
        with pytest.raises(ConfigError, match="config.task = 'followers', which fits no score model"):
            refused()

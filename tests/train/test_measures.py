"""What training measures: never where it is off, at a stated cost by default, and left between two levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.codecs import Pixels
from score_sde.data import Digits, Late
from score_sde.denoiser import Estimate
from score_sde.evaluate import level_times, measure_levels
from score_sde.evaluate.examples import First
from score_sde.evaluate.levels import _summary
from score_sde.experiment.run_sections import Training
from score_sde.runtime.mesh import make_mesh
from score_sde.sde import VP
from score_sde.tasks.base import Setting
from score_sde.tasks.measures import Monitor


def absent():
    raise ValueError("data.source.held_out = 0: leaves none")


@pytest.mark.parametrize(("every", "count"), [((0, 0), 0), ((0, 5), 1), ((5, 0), 1), ((5, 5), 2)])
def test_what_is_off_is_not_measured_and_needs_no_data(tmp_path, every, count):
    monitor = Monitor(
        eval_every_steps=every[0],
        eval_examples=16,
        eval_batch_size=8,
        sample_every_steps=every[1],
        sample_count=4,
        sample_batch_size=4,
        sampler=lambda _: None,
        extractor=type("Features", (), {"name": "pixels"}),
    )
    source = Digits("train")
    setting = Setting(source, Late(absent), make_mesh(devices=jax.devices()[:1]), tmp_path, seed=0)
    if every[0]:
        with pytest.raises(ValueError, match="held_out = 0"):  # said before the first step
            monitor.measures(None, setting)
        setting = Setting(source, Late(lambda: source), setting.mesh, tmp_path, seed=0)
    measures = monitor.measures(None, setting)
    assert len(measures) == count
    assert all(one.due(9, 10, 10) for one in measures)  # at the end, too


def test_late_data_are_those_of_the_source():
    opened = []
    late = Late(lambda: opened.append(1) or Digits("test"))
    assert not opened
    assert len(late) == 300 and late.spec == Digits("test").spec and opened == [1]
    np.testing.assert_array_equal(late.read(np.arange(3))["x"], Digits("test").read(np.arange(3))["x"])
    assert opened == [1]


@pytest.mark.parametrize(
    ("fields", "examples"),
    [
        ({"steps": 6, "batch_size": 16}, 16),  # the least
        ({"steps": 10_000, "batch_size": 10, "eval_every_steps": 4_000}, 300),
        ({"steps": 4_000, "batch_size": 10, "eval_every_steps": 10_000}, 300),
        ({"steps": 1_000_000, "batch_size": 128}, 512),  # the most
        ({"steps": 6, "batch_size": 16, "eval_examples": 77}, 77),
    ],
)
def test_the_held_out_loss_costs_a_twentieth_of_the_training_between(fields, examples):
    training = Training(**fields, **({"checkpoint_every_steps": 2} if fields["steps"] == 6 else {}))
    assert training.held_out_examples == examples
    if 16 < examples < 512 and "eval_examples" not in fields:  # 20 forward passes each; an update is 3
        between = min(training.steps, training.eval_every_steps) * training.batch_size
        assert 20 * examples == pytest.approx(3 * between / 20, rel=0.01)


class Left(Exception):
    pass


def test_the_loss_by_level_is_left_after_any_level_and_does_not_depend_on_the_batch():
    sde, mesh = VP(), make_mesh(devices=jax.devices()[:1])

    def bind(parts, cond):
        return lambda x, t: Estimate(parts["a"] * x, jnp.zeros_like(x))

    measure = measure_levels(bind, sde, mesh)
    parts, codec = {"a": jnp.float32(0.5)}, Pixels(grey_levels=17)
    seen: list[int] = []

    def of(batch_size, note=None):
        some = First(Digits("test"), 12)
        times = level_times(sde, 3)
        return measure(parts, some, codec, times=times, batch_size=batch_size, seed=0, note=note)

    whole = of(6, lambda done, text: seen.append(done))
    assert seen == [2, 4, 6, 8, 10, 12]
    np.testing.assert_allclose(of(4).noise, whole.noise, rtol=1e-5)
    np.testing.assert_allclose(of(12).x0, whole.x0, rtol=1e-5)

    def leave(done, text):
        if done >= 4:
            raise Left

    with pytest.raises(Left):
        of(6, leave)


def test_the_error_bar_is_that_of_a_mean_over_examples():
    noise = np.array([[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 4.0, 4.0]])
    levels = _summary(np.array([0.1, 0.2]), np.zeros(2), np.stack([noise, 2 * noise]))
    np.testing.assert_allclose(levels.noise, [3.0, 2.0])
    np.testing.assert_allclose(levels.x0, [6.0, 4.0])
    np.testing.assert_allclose(levels.noise_error, noise.std(axis=1) / 2)

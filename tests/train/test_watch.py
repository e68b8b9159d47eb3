"""Warnings fire on runs that go wrong, on no others, and do not depend on where a run was killed."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.train import EMAS, Log, Watch, slow_average
from score_sde.train.watch import Level
from tests.train.test_training import Run, adam


def alarms(lines, steps=1000):
    watch = Watch(steps)
    return [(step, alarm.kind) for step, values in lines for alarm in watch.see(step, values)]


def falling(seed, count=100, noise=0.15):
    """A loss that falls as a power of time, with noise, as training losses do."""
    draws = np.random.default_rng(seed)
    return 0.1 + np.arange(1, count + 1) ** -0.7 * np.exp(noise * draws.standard_normal(count))


# --- the loss and the gradient ---------------------------------------------------------------------


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_healthy_numbers_alarm_nobody(key):
    for seed in range(20):
        for noise in (0.01, 0.15, 0.5):
            values = falling(seed, noise=noise)
            assert alarms([(10 * i, {key: v}) for i, v in enumerate(values)]) == [], (seed, noise)
    outlier = falling(0)
    outlier[50] *= 100  # one bad batch is no divergence
    assert alarms([(i, {key: v}) for i, v in enumerate(outlier)]) == []


@pytest.mark.parametrize(
    ("key", "kind", "factor"), [("loss", "loss", 3.0), ("grad_norm", "gradient norm", 20.0)]
)
def test_a_rise_is_seen_at_the_second_look(key, kind, factor):
    values = falling(1, noise=0.1)
    values[60:] *= factor
    lines = [(i, {key: v}) for i, v in enumerate(values)]
    assert alarms(lines) == [(61, kind)]
    watch = Watch(1000)
    for step, line in lines[:70]:
        watch.see(step, line)
    assert watch.note == f"! {kind}"
    assert [a.kind for a in watch.standing] == [kind]
    for step in range(70, 80):
        watch.see(step, {key: values[59]})
    assert watch.note == ""  # it has recovered
    # Nothing is known of a run that has just begun.
    assert alarms([(i, {key: 10.0**i}) for i in range(7)]) == []


def test_a_slow_rise_is_seen_too():
    level = Level(2.0)
    seen = [level.far_above(1.02**i) is not None for i in range(100)]
    first = seen.index(True)
    assert 1.02 ** (first - 1) == pytest.approx(2.0 * 1.02**2, rel=0.03)  # against the median of looks 0 to 4
    assert all(seen[first:])


# --- held-out loss ---------------------------------------------------------------------------------


def test_growth_of_the_held_out_loss_is_seen_when_it_lasts():
    def looks(*losses):
        return alarms([(100 * (i + 1), {"held_out_loss": loss}) for i, loss in enumerate(losses)])

    assert looks(0.9, 0.5, 0.3, 0.31, 0.29, 0.30) == []
    assert looks(0.9, 0.3, 0.35, 0.3, 0.35) == []  # up and down
    assert looks(0.9, 0.3, 0.35, 0.36) == [(400, "held-out loss")]
    assert looks(0.9, 0.3, 0.35, 0.36, 0.4, 0.5) == [(400, "held-out loss")]  # said once


def test_an_average_that_lags_is_seen_in_the_second_half():
    def look(step, average, raw):
        return alarms([(step, {"held_out_loss": average, "held_out_loss_raw": raw})])

    assert look(400, 0.9, 0.1) == []  # still warming up
    assert look(600, 0.11, 0.1) == []
    assert look(600, 0.09, 0.1) == []  # as it should be
    assert look(600, 0.9, 0.1) == [(600, "average")]


# --- the average before training -------------------------------------------------------------------


def test_a_slow_average_is_known_before_training():
    slow = slow_average(EMAS["constant"](decay=0.9999), 1000)
    assert "half-life is longer than that" in slow
    assert "91% of it" in slow  # 0.9999^900 = 0.914
    suggested = float(slow.partition("constant decay of ")[2].rstrip(")"))
    assert suggested ** (1000 / 20) == pytest.approx(0.5, rel=1e-2)
    slow = slow_average(EMAS["constant"](decay=0.9999), 20_000)
    half_life = int(slow.partition("half-life is ")[2].split()[0])
    assert half_life == pytest.approx(np.log(2) / 1e-4, rel=1e-3)  # decays are float32
    assert slow_average(EMAS["constant"](decay=0.9999), 40_000) is None


@pytest.mark.parametrize(
    ("average", "steps"),
    [
        (EMAS["constant"](decay=0.9999), 1_300_000),  # as published
        (EMAS["warmup"](decay=0.9999), 1000),
        (EMAS["warmup"](decay=0.995), 1000),
        (EMAS["power"](sigma_rel=0.25), 1000),
        (EMAS["half_life"](batch_size=128), 2000),
    ],
)
def test_averages_that_suit_their_run_alarm_nobody(average, steps):
    assert slow_average(average, steps) is None


def test_the_weight_of_the_beginning_is_that_of_the_average_itself():
    # 200 updates by hand: parameters 1 in the first tenth and 0 afterwards.
    decay, average = EMAS["half_life"](batch_size=64, half_life_images=64 * 100, ramp_up=0.0), 1.0
    for step in range(200):
        keep = float(decay(jnp.asarray(step)))
        average = keep * average + (1 - keep) * (step < 20)
    assert f"{average:.0%} of it" in slow_average(decay, 200)


# --- in the loop -----------------------------------------------------------------------------------


def lines_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_that_diverges_is_warned_of_once_and_a_healthy_one_never(tmp_path):
    Run(tmp_path / "a").to(80)
    assert [line for line in lines_of(tmp_path / "a") if "warning" in line] == []
    Run(tmp_path / "b").to(40)
    wild = dict(learning_rate=30.0, warmup_steps=0)
    Run(tmp_path / "b", optimizer=adam(**wild)).to(60)
    told = [line for line in lines_of(tmp_path / "b") if "warning" in line]
    assert any("training has diverged" in line["warning"] and 40 < line["step"] <= 50 for line in told)
    Run(tmp_path / "b", optimizer=adam(**wild)).to(72)  # goes on, having read its own log: nothing new
    said = [line["warning"] for line in lines_of(tmp_path / "b") if "warning" in line]
    assert sum("training has diverged" in text for text in said) == 1


def test_what_is_known_beforehand_is_said_once(tmp_path):
    Run(tmp_path).to(4, warning="too slow")
    Run(tmp_path).to(8, warning="too slow")
    assert [line["step"] for line in lines_of(tmp_path) if line.get("warning") == "too slow"] == [0]


def test_the_log_gives_back_what_it_keeps(tmp_path):
    with Log(tmp_path) as log:
        assert log.lines == []
        log.write(2, {"loss": 1.0, "levels": [1.0, float("inf")]})
        log.write(4, {"warning": "words"})
    with Log(tmp_path, resume_step=3) as log:
        assert log.lines == [{"step": 2, "loss": 1.0, "levels": [1.0, "inf"]}]

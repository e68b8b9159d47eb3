"""Whole data sets: volumes of levels, errors by source, devices, and going on after a kill."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.codecs import Pixels
from score_sde.data.base import Spec
from score_sde.evaluate import Measured, measure_density
from score_sde.evaluate.cache import Cache
from score_sde.evaluate.density import split_errors
from score_sde.likelihood.ode_density import Exact, log_prob
from score_sde.runtime.mesh import make_mesh
from score_sde.sde import VP
from tests.oracles import Mixture

ROOT = Path(__file__).parents[2]


class Numbers:
    """Integer examples, or continuous ones."""

    def __init__(self, levels, count=11, shape=(2,)):
        self.spec = Spec(shape, grey_levels=levels)
        random = np.random.default_rng(0)
        self.x = (
            random.normal(size=(count, *shape))
            if levels is None
            else random.integers(0, levels, (count, *shape))
        ).astype(self.spec.dtype)

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return {"x": self.x[indices]}


def uniform(params, keys, x, cond):
    """The uniform density on the range of ``x`` in ``params``; NaN outside."""
    low, high = params
    inside = jnp.all((x >= low) & (x <= high), axis=1)
    nats = jnp.where(inside, -x.shape[1] * jnp.log(high - low), jnp.nan)[:, None]
    return Measured(nats, jnp.ones(len(x)), jnp.zeros_like(nats))


def of(source, measure, scaling, params=0.0, **options):
    mesh = options.pop("mesh", None) or make_mesh(1, jax.devices()[:1])
    return measure_density(
        measure,
        params,
        source,
        scaling,
        mesh,
        batch_size=4,
        seed=0,
        log_volume=scaling.log_volume(),
        **options,
    )


@pytest.mark.parametrize(
    ("levels", "low", "high"), [(2, -1.0, 1.0), (17, -3.0, 2.0), (256, 0.0, 1.0), (65536, -1.0, 1.0)]
)
def test_a_uniform_density_has_the_bits_of_its_levels(levels, low, high):
    scaling = Pixels(grey_levels=levels, low=low, high=high, dequantize=True)
    density = of(Numbers(levels), uniform, scaling, params=(low, high), draws=2)
    assert len(density.nats) == 11
    np.testing.assert_allclose(density.bits, math.log2(levels), rtol=1e-6)


def test_continuous_data_are_measured_in_their_own_units():
    source, scaling = Numbers(None), Pixels(grey_levels=None, shift=1.0, scale=3.0)

    def normal(params, keys, x, cond):
        nats = -0.5 * jnp.sum(x**2 + math.log(2 * math.pi), axis=1, keepdims=True)
        return Measured(nats, jnp.ones(len(x)), jnp.zeros_like(nats))

    z = (source.x.astype(np.float64) - 1.0) / 3.0
    want = -0.5 * np.sum(z**2 + np.log(2 * np.pi * 9.0), axis=1)  # N(1, 3^2)
    np.testing.assert_allclose(of(source, normal, scaling).nats, want, rtol=1e-5)


@pytest.mark.parametrize("levels", [1000, 65536])
@pytest.mark.parametrize("dequantize", [False, True])
def test_deep_levels_come_back(levels, dequantize):
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (-0.5, 2.5)):
        scaling = Pixels(grey_levels=levels, low=low, high=high, dequantize=dequantize)
        raw = np.broadcast_to(np.arange(levels, dtype=np.uint16)[:, None], (levels, 16))
        back = jax.jit(scaling.decode)({}, jax.jit(scaling.encode)({}, raw, jax.random.key(0)))
        np.testing.assert_array_equal(back, raw)
        assert back.dtype == np.uint16


@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize("levels", [17, 256])
def test_cells_lie_where_levels_are_encoded(levels, dequantize):
    scaling = Pixels(grey_levels=levels, low=-1.0, high=3.0, dequantize=dequantize)
    cells = scaling.cells
    raw = np.arange(levels, dtype=np.uint8)
    np.testing.assert_allclose(scaling.middle({}, raw), cells.first + cells.step * raw, atol=1e-6)
    np.testing.assert_array_equal(scaling.decode({}, scaling.middle({}, raw)), raw)


def test_errors_are_split_by_their_source():
    random = np.random.default_rng(0)
    shape, parts = (4000, 3, 4), (1.0, 0.8, 1.5)
    draws = sum(
        part * random.standard_normal(shape[: i + 1] + (1,) * (2 - i)) for i, part in enumerate(parts)
    )
    errors = split_errors(draws)
    want = [part / math.sqrt(math.prod(shape[: i + 1])) for i, part in enumerate(parts)]
    np.testing.assert_allclose(errors[1:], want, rtol=0.06)
    assert errors.whole == pytest.approx(math.sqrt(sum(e**2 for e in errors[1:])))
    alone = split_errors(draws[:, :1, :1])
    assert alone[1:] == (None, None, None)
    assert alone.whole == pytest.approx(math.sqrt(sum(p**2 for p in parts) / 4000), rel=0.06)
    mixed = split_errors(draws[:, :1])
    assert mixed.dequantization is None
    assert mixed.probes == pytest.approx(1.5 / math.sqrt(16000), rel=0.06)
    noise = split_errors(draws[:, :, :1])
    assert noise.probes is None
    assert noise.dequantization == pytest.approx(math.sqrt((0.8**2 + 1.5**2) / 12000), rel=0.06)


def test_draws_differ_and_the_first_is_what_one_draw_gives():
    source, scaling = Numbers(17), Pixels(grey_levels=17, dequantize=True)

    def first(params, keys, x, cond):
        return Measured(x[:, :1], jnp.ones(len(x)), jnp.zeros((len(x), 1)))

    one, three = (of(source, first, scaling, draws=draws) for draws in (1, 3))
    assert three.draws.shape == (11, 3, 1)
    np.testing.assert_array_equal(three.draws[:, :1], one.draws)
    assert len(np.unique(three.draws)) == 33


def test_devices_do_not_change_what_is_drawn():
    def measure(params, keys, x, cond):
        nats = x[:, :1] + jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return Measured(nats, jnp.ones(len(x)), jnp.zeros_like(nats))

    source, scaling = Numbers(17), Pixels(grey_levels=17, dequantize=True)
    one, four = (of(source, measure, scaling, mesh=make_mesh(1, jax.devices()[:n]), draws=2) for n in (1, 4))
    np.testing.assert_array_equal(one.draws, four.draws)
    assert one.draws.shape == (11, 2, 3)


@pytest.mark.slow
def test_devices_do_not_change_a_likelihood():
    data, scaling = Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25), Pixels(grey_levels=None)
    sde = VP()

    def measure(params, keys, x, cond):
        out = log_prob(keys, data.denoise(sde), sde, x, divergence=Exact(), nodes=8)
        return Measured(out.by_probe, out.evaluations, out.quadrature_error)

    one, four = (of(Numbers(None), measure, scaling, mesh=make_mesh(1, jax.devices()[:n])) for n in (1, 4))
    np.testing.assert_allclose(one.draws, four.draws, rtol=1e-4, atol=1e-3)  # steps are chosen in float32


def test_finished_batches_are_not_measured_again(tmp_path):
    source, scaling = Numbers(17), Pixels(grey_levels=17, dequantize=True)

    def constant(params, keys, x, cond):
        nats = jnp.full((len(x), 1), params)
        return Measured(nats, jnp.ones(len(x)), jnp.zeros_like(nats))

    cache = Cache(tmp_path / "done")
    assert np.all(of(source, constant, scaling, params=1.0, cache=cache).evaluations == 1)
    (tmp_path / "done" / "00000001.npz").unlink()
    again = of(source, constant, scaling, params=2.0, cache=cache).nats - 2 * scaling.log_volume()
    np.testing.assert_allclose(again, [1] * 4 + [2] * 4 + [1] * 3, rtol=1e-6)


def test_an_example_that_was_given_up_is_named():
    scaling = Pixels(grey_levels=17, low=0.0, high=1.0, dequantize=True)
    source = Numbers(17)
    source.x[:] = 0
    source.x[9] = 16
    with pytest.raises(FloatingPointError, match="example 9 is not finite"):
        of(source, uniform, scaling, params=(0.0, 0.9))


@pytest.mark.slow
def test_a_killed_measurement_goes_on_and_ends_the_same(tmp_path):
    workdir, clean = tmp_path / "run", tmp_path / "clean"
    small = (
        "--config.model.nf=4",
        "--config.training.steps=2",
        "--config.training.batch_size=8",
        "--config.training.checkpoint_every_steps=2",
        "--config.training.eval_every_steps=0",
        "--config.training.sample_every_steps=0",
    )
    command = [sys.executable, "run.py"]
    subprocess.run(
        [*command, "--config=configs/vp_digits.py", "--mode=train", f"--workdir={workdir}", *small],
        cwd=ROOT,
        check=True,
    )
    subprocess.run(["cp", "-r", str(workdir), str(clean)], check=True)
    words = [*command, "--mode=likelihood", "--config.likelihood.num_examples=96"]
    words += [
        "--config.likelihood.batch_size=8",
        "--config.likelihood.draws=2",
        "--config.likelihood.divergence.probes=2",
    ]

    def measure(place):
        return subprocess.Popen([*words, f"--workdir={place}"], cwd=ROOT)

    process = measure(workdir)
    deadline = time.monotonic() + 400
    while len(list(workdir.glob("results/*/0*[0-9].npz"))) < 2:
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: os.stat(path).st_mtime_ns for path in workdir.glob("results/*/0*[0-9].npz")}
    assert 2 <= len(done) < 12
    assert not (workdir / "likelihood.json").exists()
    for place in (workdir, clean):
        assert measure(place).wait() == 0
    assert all(os.stat(path).st_mtime_ns == when for path, when in done.items())
    reports = [json.loads((place / "likelihood.json").read_text()) for place in (workdir, clean)]
    assert reports[0] == reports[1]
    with np.load(workdir / "likelihood.npz") as a, np.load(clean / "likelihood.npz") as b:
        np.testing.assert_array_equal(a["draws"], b["draws"])

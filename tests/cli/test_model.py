"""What Python gets of a run: ``load``, and everything that the model of a workdir can do."""

import jax
import numpy as np
import pytest

from score_sde.data import Digits
from score_sde.names import ConfigError
from score_sde.runs.model import load
from tests.cli.test_cli import train

LOOSE = {
    "inversion.transport.rtol": 1e-4,
    "inversion.transport.atol": 1e-4,
    "likelihood.integrator": "fixed",
    "likelihood.integrator.method": "euler",
    "likelihood.integrator.steps": 4,
    "likelihood.divergence": "exact",
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    assert train(path, "--config.denoiser.prediction=edm", "--config.training.checkpoint_every_steps=2") == 0
    return path


@pytest.fixture(scope="module")
def model(workdir):
    return load(workdir, changes=LOOSE)


@pytest.fixture(scope="module")
def digits():
    """Eight held-out digits as pictures."""
    return np.rint(Digits("test").read(np.arange(8))["x"] * (255 / 16)).astype(np.uint8)


def test_a_sample_depends_on_the_seed_and_its_number_only(model):
    few, many = model.sample(3, seed=5), model.sample(10, seed=5)
    assert few.shape == (3, 8, 8, 1)
    assert few.dtype == np.uint8
    np.testing.assert_array_equal(many[:3], few)
    assert np.any(model.sample(3, seed=6) != few)
    np.testing.assert_array_equal(model.sample(3), model.sample(3, seed=model.config.seed))
    # In batches of another size a program of another shape rounds otherwise, by a level at most.
    parts = np.concatenate(list(model.batches(10, seed=5, batch_size=8)))
    again = model.architecture.decode(model.parts, parts)
    np.testing.assert_allclose(again.astype(int), many.astype(int), atol=16)
    assert np.mean(again == many) > 0.99
    last = np.concatenate(list(model.batches(10, seed=5, start=8, batch_size=8)))
    np.testing.assert_allclose(last, parts[8:], atol=1e-5)


def test_denoising_takes_noise_away(model, digits):
    clean = model.encode_state(digits)
    sde = model.architecture.sde
    noise = np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    t = np.full(8, 0.02, np.float32)
    noisy = np.asarray(sde.perturb(clean, t, noise))
    denoised = model.denoise(noisy, t)
    assert denoised.shape == clean.shape
    np.testing.assert_allclose(model.denoise(noisy, 0.02), denoised, atol=1e-5)
    np.testing.assert_allclose(model.denoise(clean, model.architecture.sde.t_min), clean, atol=0.02)


@pytest.mark.slow
def test_encoding_and_decoding_are_inverse(model, digits):
    latents = model.encode(digits)
    assert latents.shape == (8, 8, 8, 1)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(model.decode(latents), digits)
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(N, 8, 8, 1\)"):
        model.encode(digits[:, :4])
    with pytest.raises(ValueError, match="label: the model takes no condition"):
        model.encode(digits, label=3)


def test_log_densities_are_those_of_each_example(model, digits):
    nats = model.log_prob(digits)
    assert nats.shape == (8,)
    np.testing.assert_allclose(model.log_prob(digits[:3]), nats[:3], rtol=1e-4)
    assert model.density_model.config.codec.options["dequantize"]
    assert np.abs(model.log_prob(digits, seed=1) - nats).max() > 1e-3  # of other noise within the levels
    noise = np.random.default_rng(0).integers(0, 17, digits.shape) * (255 / 16)
    assert np.all(np.isfinite(model.log_prob(noise.round().astype(np.uint8))))


def test_a_change_is_of_the_config_alone(model, workdir):
    heun = model.change({"sampling.solver": "heun", "sampling.steps": 3})
    assert heun.parts is model.parts
    assert model.config.sampling.solver.name == "pc"
    assert heun.sampler.steps == 4  # the last is the denoising
    assert np.any(heun.sample(2) != model.sample(2))
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        model.change({"sampling.step": 3})
    with pytest.raises(ConfigError, match="must be positive"):
        load(workdir, changes={"sampling.steps": 0})


def test_other_checkpoints_share_the_compiled_sampler(model, workdir):
    assert (model.step, model.workdir.steps) == (4, [2, 4])
    first = model.at(2)
    assert first.draw is model.draw
    assert first.digest != model.digest
    np.testing.assert_array_equal(first.sample(2), load(workdir, step=2, changes=LOOSE).sample(2))
    assert load(workdir, best=True).step == 4
    with pytest.raises(FileNotFoundError, match=r"3.*\[2, 4\]"):
        load(workdir, step=3)
    with pytest.raises(FileNotFoundError, match="no config.json there"):
        load(workdir / "nowhere")


def test_a_second_call_compiles_nothing(model, digits, caplog):
    def calls():
        latents = model.encode(digits[:4])
        model.decode(latents)
        model.denoise(latents, 0.5)
        model.log_prob(digits[:4])

    calls()
    with jax.log_compiles():
        calls()
    assert [record.message for record in caplog.records if "Compiling" in record.message] == []

"""Snapshots of EDM and folders of diffusers, from file to samples (tests/data/README.md)."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import cli, convert
from score_sde.conditions import labelled
from score_sde.flags import parse
from score_sde.modes.run import model_of
from tests.conftest import DATA
from tests.convert.test_diffusers import folder
from tests.convert.test_edm import CLASSES, snapshot
from tests.convert.torch_writer import STUBS, Tensor, plain_bytes
from tests.recipe import state_dict

RECIPES = json.loads(gzip.decompress((DATA / "imported_others.json.gz").read_bytes()))
HEUN = ["sampling.solver=heun", "sampling.grid=power", "sampling.grid.rho=7", "sampling.steps=17"]
VP = [
    "sde.name=edm",
    "denoiser.prediction=scaled_noise",
    "denoiser.time_input=vp_time",
    "sampling.t_end=0.002",
]
VE = ["sde.name=edm", "denoiser.time_input=log_half_sigma", "codec.low=-1.0", "model.input_range=(-1.0,1.0)"]
# EDM samples from every network on its own process (docs/import.md).
EDM = {"edm": [], "edm_vp": VP + HEUN, "edm_ve": [*VE, *HEUN, "sampling.t_end=0.02"], "edm_iddpm": []}


def tensors(tag):
    return state_dict(RECIPES[tag]["seed"], RECIPES[tag]["table"])


def opened(path, tmp_path, *options):
    """The model of a workdir into which a file was imported."""
    words = ["run.py", "--mode=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'run'}"]
    assert cli.run(parse(words, "usage")) == 0
    words = ["run.py", "--mode=sample", f"--workdir={tmp_path / 'run'}", *(f"--config.{o}" for o in options)]
    return model_of(parse(words, "usage"))


def sampled(model, cond, noise):
    s, sde = model.sampler, model.architecture.sde

    def run(parts, plan):
        denoise = s.bind(parts, cond)
        x = s.solver.run(denoise, sde, sde.prior_sigma * noise(0), plan, noise)
        return s.solver.finish(denoise, x, plan)

    compiled = jax.jit(run).lower(model.parts, s.plan).compile({"xla_backend_optimization_level": 0})
    return np.moveaxis(np.asarray(compiled(model.parts, s.plan)), -1, 1)


def images(generator):
    return jnp.moveaxis(jnp.asarray(generator.standard_normal((2, 3, 8, 8)).astype(np.float32)), 1, -1)


@pytest.mark.parametrize("tag", [pytest.param(t, marks=pytest.mark.slow) for t in EDM])
def test_snapshots_of_edm(tag, tmp_path, fixture):
    recipe = RECIPES[tag]
    made = {k: v for k, v in recipe["kwargs"].items() if k not in ("img_resolution", "img_channels")}
    inner = {name.removeprefix("model."): array for name, array in tensors(tag).items()}
    value = snapshot(inner, precond=recipe["precond"], **made, img_channels=3)
    if recipe["precond"] == "iDDPMPrecond":
        value["ema"].meta["state"]["_buffers"]["u"] = Tensor.of(iddpm_levels().astype(np.float32))
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(plain_bytes(value, STUBS | CLASSES))
    model = opened(path, tmp_path, *EDM[tag])
    latents = jnp.moveaxis(
        jnp.asarray(
            np.random.Generator(np.random.PCG64(7100 + [*EDM].index(tag))).standard_normal((2, 3, 8, 8)),
            jnp.float32,
        ),
        1,
        -1,
    )
    cond = {"label": jnp.array([0, 2])} if "label_dim" in made else {}
    got = sampled(model, cond, lambda i: jnp.where(i == 0, latents, 0.0))
    want = fixture("imported_others")[f"{tag}/samples"]
    assert np.abs(got - want).max() < 5e-4 * np.abs(want).max()


def iddpm_levels():
    """arXiv:2206.00364, table 1: the levels of iDDPM's cosine schedule, the largest first."""
    kept = [np.sin(0.5 * np.pi * j / 1000 / 1.008) ** 2 for j in range(1001)]
    u = np.zeros(1001)
    for j in range(1000, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(kept[j - 1] / kept[j], 0.001) - 1)
    return u


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_folders_of_diffusers(variance, tmp_path, fixture):
    """``DDPMScheduler`` from level to level, with either of its variances."""
    recipe = RECIPES["diffusers"]
    scheduler = {**recipe["scheduler"], "variance_type": variance}
    path = folder(tmp_path / "in", tensors("diffusers"), recipe["config"], scheduler)
    model = opened(path, tmp_path)
    generator = np.random.Generator(np.random.PCG64(777))
    draws = [images(generator) for _ in range(41)]
    got = sampled(model, {"label": jnp.array([0, 2])}, lambda i: jnp.stack(draws)[i])
    want = fixture("imported_others")[f"diffusers/{variance}"]
    assert np.abs(got - want).max() < 2e-4 * np.abs(want).max()


def test_the_file_says_what_the_network_is(tmp_path):
    recipe = RECIPES["diffusers"]
    model = convert.load(folder(tmp_path / "in", tensors("diffusers"), recipe["config"], recipe["scheduler"]))
    assert model.architecture.spec.conditions == labelled(3)
    assert model.config.conditions.names == ("label",)

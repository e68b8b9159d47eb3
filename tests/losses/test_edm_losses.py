"""EDM's three losses (arXiv:2206.00364, table 1) with recorded draws; see tests/data/README.md."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.data import Spec
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.experiment.assemble import architecture_of, loss_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from score_sde.losses import WEIGHTS, square_error
from score_sde.nets import NETS, Net
from score_sde.nets.edm_names import from_edm_names
from score_sde.sde import EDM, VE, VP
from tests.conftest import DATA, ROOT
from tests.oracles import denoise_by
from tests.recipe import normals, state_dict, uniforms

SHAPE = (4, 3, 32, 32)
IMAGES, NOISE = 2 * uniforms(72, SHAPE) - 1, normals(73, SHAPE)
UNIFORM, NORMAL = uniforms(74, (4,)), normals(75, (4,))
# Process, its times from their draws, and the weight.
LOSSES = {
    "VPLoss": (VP(), 1 + UNIFORM * (1e-5 - 1), WEIGHTS["noise"]()),
    "VELoss": (VE(sigma_min=0.02, sigma_max=100.0), UNIFORM, WEIGHTS["noise"]()),
    "EDMLoss": (EDM(), np.exp(1.2 * NORMAL - 1.2), WEIGHTS["edm"]()),
}


def toy(sde):
    """Their stand-in for a network: ``sin(x) / (1 + sigma)`` of data at unit scale."""

    def denoise(x, t):
        wide = (-1, 1, 1, 1)
        alpha, level = sde.alpha(t), sde.sigma(t) / sde.alpha(t)
        return jnp.sin(x / alpha.reshape(wide)) / (1 + level.reshape(wide))

    return denoise_by(sde, denoise)


@pytest.mark.parametrize("name", LOSSES)
def test_sums_of_the_weighted_square_error(name, fixture):
    sde, times, weight = LOSSES[name]
    t = jnp.asarray(times, jnp.float32)
    loss = square_error(toy(sde), sde, jnp.asarray(IMAGES), t, jnp.asarray(NOISE), weight=weight)
    sums, recorded = np.asarray(loss) * np.prod(SHAPE[1:]), fixture("edm_losses")
    if f"{name}/toy/sum_per_sample" in recorded:
        np.testing.assert_allclose(sums, recorded[f"{name}/toy/sum_per_sample"], rtol=5e-4)
    else:
        assert sums.sum() / 4 == pytest.approx(float(recorded[f"{name}/toy/train_scalar"]), rel=1e-4)


@pytest.mark.slow
def test_the_recipe_has_this_loss():
    """configs/edm_cifar.py draws exp(-1.2 + 1.2 z) and weighs as recorded."""
    config = typed(load_file(str(ROOT / "configs" / "edm_cifar.py")))
    loss = loss_of(config, architecture_of(config, Spec((32, 32, 3), 256)))
    t = jnp.asarray([0.02, 0.5, 30.0])
    np.testing.assert_allclose(loss.weight(loss.sde, t), LOSSES["EDMLoss"][2](EDM(), t), rtol=1e-6)
    draws = np.log(np.asarray(loss.times(loss.sde, jax.random.key(0), 4096)))
    assert draws.mean() == pytest.approx(-1.2, abs=0.01)
    assert draws.std() == pytest.approx(1.2, abs=0.01)


@pytest.mark.slow
def test_losses_of_a_network(fixture):
    """VP's scaling of a DDPM++ with regenerated weights, under VP's loss and under EDM's."""
    recorded = fixture("edm_losses")
    recipe = json.loads(gzip.decompress((DATA / "edm/recipes.json.gz").read_bytes()))["vp_ddpmpp_small"]
    net = Net(NETS["songunet"](nf=16))
    params = from_edm_names(state_dict(recipe["seed"], recipe["table"]), net, (32, 32, 3))
    row = Precondition(PREDICTIONS["scaled_noise"](), TIME_INPUTS["vp_time"]())
    denoiser = Denoiser(params, EDM(), net, row)
    x0, noise = (jnp.moveaxis(jnp.asarray(a), 1, -1) for a in (IMAGES, NOISE))

    @jax.jit
    def squares(x0, t, noise):
        return (denoiser(EDM().perturb(x0, t, noise), t).x0 - x0) ** 2

    vp = np.sqrt(np.expm1(0.5 * 19.9 * (1 + UNIFORM * (1e-5 - 1)) ** 2 + 0.1 * (1 + UNIFORM * (1e-5 - 1))))
    for name, sigma, weight in (("VPLoss", vp, WEIGHTS["noise"]()), ("EDMLoss", *LOSSES["EDMLoss"][1:])):
        t = jnp.asarray(sigma, jnp.float32)
        weighted = np.asarray(weight(EDM(), t)[:, None, None, None] * squares(x0, t, noise))
        if name == "VPLoss":
            sums = weighted.sum((1, 2, 3))
            np.testing.assert_allclose(sums, recorded["VPLoss/net/sum_per_sample"], rtol=5e-4)
            np.testing.assert_allclose(sums.sum() / 4, recorded["VPLoss/net/train_scalar"], rtol=5e-4)
        else:
            pixels = np.moveaxis(weighted, -1, 1)[:, :, :4, :4]
            np.testing.assert_allclose(pixels, recorded["EDMLoss/net/first_pixels"], rtol=5e-3, atol=1e-3)

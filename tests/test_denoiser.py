import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.denoiser import (
    PREDICTIONS,
    TIME_INPUTS,
    Denoiser,
    Precondition,
    noise_from,
    score_from,
    velocity_from,
)
from score_sde.sde import DDPM, EDM, SDES, SMLD, VE, VP
from tests.oracles import Gaussian, Mixture

ALL = [pytest.param(make(), id=name) for name, make in SDES.items()]
DATA = Gaussian(np.array([0.5, -0.3, 0.1]), np.array([0.4, 0.2, 0.7]))


def draw(sde, count=64):
    x0 = DATA.sample(jax.random.key(0), count)
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.linspace(0.02, 0.98, count)
    return x0, noise, t, sde.perturb(x0, t, noise)


def documented_target(name, sde, x0, noise, t):
    """What each prediction says the network outputs."""
    alpha, sigma = expand(sde.alpha(t), x0), expand(sde.sigma(t), x0)
    x = alpha * x0 + sigma * noise
    velocity = expand(sde.alpha_slope(t), x0) * x0 + expand(sde.sigma_slope(t), x0) * noise
    level, data = sigma / alpha, 0.5
    total = level**2 + data**2
    edm = (x0 - data**2 / total * x / alpha) / (level * data / jnp.sqrt(total))
    return {
        "noise": noise,
        "score": -noise,
        "raw_score": -noise / sigma,
        "x0": x0,
        "v": alpha * noise - sigma * x0,
        "velocity": velocity,
        "edm": edm,
        "scaled_noise": noise,
    }[name]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_network_that_outputs_the_documented_target_gives_back_x0(sde, name):
    x0, noise, t, x = draw(sde)
    target = documented_target(name, sde, x0, noise, t)
    row = Precondition(PREDICTIONS[name](), lambda sde, t: t)
    denoiser = Denoiser(None, sde, lambda params, x, c_noise, cond, *, key: target, row)
    np.testing.assert_allclose(denoiser(x, t), x0, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_edm_row_scales_input_and_target_to_unit_variance():
    sde = VE(sigma_min=0.01, sigma_max=20.0)
    data = Gaussian(np.zeros(1), np.full(1, 0.5))
    x0 = data.sample(jax.random.key(0), 20000)
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    for t in (0.1, 0.5, 0.9):
        times = jnp.full(20000, t)
        c_skip, c_out, c_in = PREDICTIONS["edm"]()(sde, times)
        x = sde.perturb(x0, times, noise)
        target = (x0 - expand(c_skip, x) * x) / expand(c_out, x)
        assert np.std(expand(c_in, x) * x) == pytest.approx(1, rel=0.02)
        assert np.std(target) == pytest.approx(1, rel=0.02)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_score_of_the_denoiser_is_the_gradient_of_the_log_density(sde):
    for data in (DATA, Mixture(np.array([[1.0, 0.0, 0.0], [-0.5, 0.8, 0.3]]), 0.3)):
        _, _, t, x = draw(sde, 9)
        want = jax.vmap(jax.grad(lambda x, t, d=data: d.log_prob(sde, x[None], t)[0]))(x, t)
        got = score_from(sde, data.denoise(sde)(x, t), x, t)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_velocity_is_the_tangent_of_the_exact_flow(sde):
    _, _, t, x = draw(sde, 9)
    got = velocity_from(sde, DATA.denoise(sde)(x, t), x, t)
    for i in range(len(t)):
        want = jax.jvp(lambda s, i=i: DATA.flow(sde, x[i : i + 1], t[i], s), (t[i],), (1.0,))[1]
        np.testing.assert_allclose(got[i], want[0], rtol=1e-7, atol=1e-9)
    ode = sde.reverse_drift(x, score_from(sde, DATA.denoise(sde)(x, t), x, t), t, noise_scale=0.0)
    np.testing.assert_allclose(got, ode, rtol=1e-6, atol=1e-6)


def test_noise_is_what_was_added():
    sde = VP()
    x0, noise, t, x = draw(sde)
    np.testing.assert_allclose(noise_from(sde, x0, x, t), noise, atol=2e-4)


def test_labels_are_what_released_networks_were_trained_with():
    t = jnp.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(TIME_INPUTS["time_999"]()(VP(), t), [0, 249.75, 999])
    np.testing.assert_allclose(TIME_INPUTS["log_sigma"]()(VE(), t[::2]), np.log([0.01, 50]), rtol=1e-6)
    np.testing.assert_allclose(TIME_INPUTS["index"]()(DDPM(steps=500), t), [0, 124.75, 499])
    np.testing.assert_allclose(TIME_INPUTS["reverse_index"]()(SMLD(steps=500), t), [499, 374, 0])
    quarter = TIME_INPUTS["quarter_log_sigma"]()(VE(), t[::2])
    np.testing.assert_allclose(quarter, np.log([0.01, 50]) / 4, rtol=1e-5)


def test_time_may_be_a_scalar_and_condition_and_key_reach_the_network():
    seen = {}

    def net(params, x, c_noise, cond, *, key):
        seen.update(params=params, c_noise=c_noise, cond=cond, key=key)
        return jnp.zeros_like(x)

    row = Precondition(PREDICTIONS["noise"](), TIME_INPUTS["time_999"]())
    denoiser = Denoiser("weights", VP(), net, row, {"label": jnp.array([3, 4])})
    denoiser(jnp.ones((2, 5)), 0.5, key="dropout")
    assert seen["params"] == "weights"
    assert seen["key"] == "dropout"
    np.testing.assert_array_equal(seen["c_noise"], [499.5, 499.5])
    np.testing.assert_array_equal(seen["cond"]["label"], [3, 4])


@pytest.mark.usefixtures("x64")
def test_index_of_iddpm_is_the_nearest_level():
    """Telescoped, ``u_j^2 + 1 = kept_M / kept_j`` wherever no step is clipped (arXiv:2102.09672, eq. 17)."""
    levels = TIME_INPUTS["iddpm_index"]().levels
    j = np.array([999, 500, 100, 40])
    kept = np.sin(0.5 * np.pi * np.append(j, 1000) / 1008) ** 2
    np.testing.assert_allclose(levels[j], np.sqrt(kept[-1] / kept[:-1] - 1), rtol=1e-10)
    assert levels[1000] == 0
    # Only the last step, from u_1 with kept_0 = 0, is clipped.
    assert levels[0] == pytest.approx(np.sqrt((levels[1] ** 2 + 1) / 0.001 - 1))
    near = levels[j] + 0.4 * (levels[j - 1] - levels[j])
    far = levels[j] + 0.6 * (levels[j - 1] - levels[j])
    np.testing.assert_array_equal(TIME_INPUTS["iddpm_index"]()(EDM(), near), 999 - j)
    np.testing.assert_array_equal(TIME_INPUTS["iddpm_index"]()(EDM(), far), 999 - j + 1)

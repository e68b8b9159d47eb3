import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.denoiser import (
    PREDICTIONS,
    TIME_INPUTS,
    Denoiser,
    Estimate,
    Precondition,
    from_x0,
    score_from,
    velocity_from,
    x0_error,
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
def test_a_network_that_outputs_the_documented_target_gives_back_x0_and_noise(sde, name):
    x0, noise, t, x = draw(sde)
    target = documented_target(name, sde, x0, noise, t)
    row = Precondition(PREDICTIONS[name](), lambda sde, t: t)
    denoiser = Denoiser({}, sde, lambda params, x, c_noise, cond, *, key: target, row)
    got = denoiser(x, t)
    np.testing.assert_allclose(got.x0, x0, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.noise, noise, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_edm_row_scales_input_and_target_to_unit_variance():
    sde = VE(sigma_min=0.01, sigma_max=20.0)
    data = Gaussian(np.zeros(1), np.full(1, 0.5))
    x0 = data.sample(jax.random.key(0), 20000)
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    for t in (0.1, 0.5, 0.9):
        times = jnp.full(20000, t)
        row = PREDICTIONS["edm"]()(sde, times)
        x = sde.perturb(x0, times, noise)
        target = (x0 - expand(row.c_skip, x) * x) / expand(row.c_out, x)
        assert np.std(expand(row.c_in, x) * x) == pytest.approx(1, rel=0.02)
        assert np.std(target) == pytest.approx(1, rel=0.02)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_score_of_the_denoiser_is_the_gradient_of_the_log_density(sde):
    for data in (DATA, Mixture(np.array([[1.0, 0.0, 0.0], [-0.5, 0.8, 0.3]]), 0.3)):
        _, _, t, x = draw(sde, 9)
        want = jax.vmap(jax.grad(lambda x, t, d=data: d.log_prob(sde, x[None], t)[0]))(x, t)
        got = score_from(sde, data.denoise(sde)(x, t), t)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_velocity_is_the_tangent_of_the_exact_flow(sde):
    _, _, t, x = draw(sde, 9)
    got = velocity_from(sde, DATA.denoise(sde)(x, t), t)
    for i in range(len(t)):
        want = jax.jvp(lambda s, i=i: DATA.flow(sde, x[i : i + 1], t[i], s), (t[i],), (1.0,))[1]
        np.testing.assert_allclose(got[i], want[0], rtol=1e-7, atol=1e-9)
    ode = sde.reverse_drift(x, score_from(sde, DATA.denoise(sde)(x, t), t), t, noise_scale=0.0)
    np.testing.assert_allclose(got, ode, rtol=1e-6, atol=1e-6)


# --- digits ----------------------------------------------------------------------------------------


def instants(sde):
    """Times down to t_min, or to where next to no noise is, and up to t_max; exact in float32."""
    first = max(sde.t_min, 1e-6)
    t = np.concatenate([np.geomspace(first, sde.t_max, 23), np.linspace(first, sde.t_max, 23)[1:-1]])
    return np.clip(t.astype(np.float32), np.float32(first), np.float32(sde.t_max))


def quantities(sde, x, output, t):
    """x0, noise, score and velocity by what the output is taken for; alpha and sigma."""
    found = {}
    for name, make in PREDICTIONS.items():
        row = Precondition(make(), lambda sde, t: t)
        estimate = Denoiser({}, sde, lambda params, x, c_noise, cond, *, key: output, row)(x, t)
        found[name] = (*estimate, score_from(sde, estimate, t), velocity_from(sde, estimate, t))
    return found, (sde.alpha(t), sde.sigma(t))


@pytest.mark.parametrize("sde", ALL)
def test_float32_loses_no_digits_at_any_time_whatever_is_predicted(sde):
    # Every quantity is linear in (x, F); with F of its own, nothing in the result is small by chance.
    t, compute = instants(sde), jax.jit(functools.partial(quantities, sde))
    given = (*np.random.default_rng(0).standard_normal((2, len(t), 64)).astype(np.float32), t)
    got, _ = jax.device_get(compute(*given))
    with jax.enable_x64(True):
        want, scales = jax.device_get(compute(*(jnp.asarray(a, jnp.float64) for a in given)))
    alpha, sigma = (scale[:, None] for scale in scales)
    for name, halves in got.items():
        for kind, value, exact in zip(("x0", "noise", "score", "velocity"), halves, want[name], strict=True):
            assert value.dtype == np.float32 and exact.dtype == np.float64
            worst = np.abs(value - exact).max(axis=1) / np.abs(exact).max(axis=1)
            assert worst.max() < 1e-5, (name, kind, t[worst.argmax()], worst.max())
        parts = alpha * halves[0], sigma * halves[1]
        size = np.maximum(np.abs(given[0]), np.maximum(*np.abs(parts))).max(axis=1)
        apart = np.abs(sum(parts) - given[0]).max(axis=1) / size
        assert apart.max() < 2e-6, (name, t[apart.argmax()], apart.max())


@pytest.mark.parametrize("sde", [SDES["subvp"](), SDES["flow"]()])
def test_the_error_of_x0_keeps_its_digits_for_a_network_that_predicts_noise(sde):
    # An error of 1e-3 in the noise is 1e-3 sigma / alpha in x0, which x0 itself in float32 does not show.
    t = instants(sde)
    x0, noise, error = np.random.default_rng(1).standard_normal((3, len(t), 64)).astype(np.float32)
    net = lambda params, x, c_noise, cond, *, key: noise + np.float32(1e-3) * error  # noqa: E731
    denoiser = Denoiser({}, sde, net, Precondition(PREDICTIONS["noise"](), lambda sde, t: t))
    got = x0_error(sde, denoiser(sde.perturb(x0, t, noise), t), x0, noise, t)
    with jax.enable_x64(True):
        level = np.exp(-0.5 * np.asarray(sde.log_snr(jnp.asarray(t, jnp.float64))))[:, None]
    np.testing.assert_allclose(got / (1e-3 * level), -error, atol=2e-3)


@pytest.mark.usefixtures("x64")
def test_combinations_and_shifts_belong_to_the_same_x():
    sde, other = VP(), Mixture(np.array([[1.0, 0.0, 0.0], [-0.5, 0.8, 0.3]]), 0.3)
    _, _, t, x = draw(sde, 9)
    first, second = DATA.denoise(sde)(x, t), other.denoise(sde)(x, t)
    share = jnp.linspace(-1.0, 3.0, 9)
    mixed = first.toward(second, share)
    np.testing.assert_allclose(mixed.x0, first.x0 + share[:, None] * (second.x0 - first.x0), rtol=1e-12)
    moved = first.shifted(sde, t, second.x0 - first.x0)
    for got, want in ((moved, second), (from_x0(sde, mixed.x0, x, t), mixed)):
        np.testing.assert_allclose(got.x0, want.x0, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(got.noise, want.noise, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(first.mix(2.0, -3.0), 2 * first.x0 - 3 * first.noise, rtol=1e-12)
    np.testing.assert_array_equal(Estimate(first.x0, jnp.inf * x).mix(1.0, 0.0), first.x0)


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

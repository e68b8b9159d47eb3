import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss, loss_at_level, square_error
from score_sde.sde import DDPM, EDM, SDES, SMLD, VE, VP, SubVP
from tests.oracles import Gaussian, denoise_by

ALL = [pytest.param(make(), id=name) for name, make in SDES.items()]
DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))


def toy(sde, prediction, label):
    """The stand-in network of the recorded losses: sin(x) + 0.001 label."""

    def net(params, x, c_noise, cond, *, key):
        return jnp.sin(x) + 0.001 * c_noise.reshape(-1, 1, 1, 1)

    return Denoiser(None, sde, net, Precondition(PREDICTIONS[prediction](), label))


def sigma_label(sde, t):
    return sde.sigma(t)


# process, what the toy predicts, its label
CONTINUOUS = {
    "vp": (VP(), "noise", TIME_INPUTS["time_999"]()),
    "subvp": (SubVP(), "noise", TIME_INPUTS["time_999"]()),
    "ve": (VE(), "raw_score", sigma_label),
}


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("likelihood", [True, False])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_losses_match_the_official_code(name, likelihood, mean, fixture):
    # Their std is 1 - exp(.) in float32, ours expm1; the tolerances cover their error at the smallest time.
    tolerance = 1e-3 if name == "subvp" else 2e-4
    sde, prediction, label = CONTINUOUS[name]
    d = fixture("losses")
    x0 = d["x_unit"] if name == "ve" else 2 * d["x_unit"] - 1
    t = jnp.asarray(d["u"] * (1 - 1e-5) + 1e-5)
    weight = WEIGHTS["likelihood" if likelihood else "noise"]()
    got = square_error(toy(sde, prediction, label), sde, x0, t, d["z"], weight=weight)
    if not mean:
        got = got * 0.5 * x0[0].size
    want = d[f"toy/{name}|cont_rm{mean:d}_lw{likelihood:d}"][:4]
    np.testing.assert_allclose(got, want, rtol=tolerance)


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_discrete_losses_match_the_official_code(name, fixture):
    d = fixture("losses")
    labels = d["labels"]
    if name == "vp":  # DDPM: index 0 is the least noise
        sde, x0, t = DDPM(), 2 * d["x_unit"] - 1, labels / 999
        denoiser = toy(sde, "noise", TIME_INPUTS["index"]())
    else:  # SMLD: label 0 is the most noise
        sde, x0, t = SMLD(t_min=0.0), d["x_unit"], 1 - labels / 999
        denoiser = toy(sde, "raw_score", TIME_INPUTS["reverse_index"]())
    t = jnp.asarray(t, jnp.float32)
    got = square_error(denoiser, sde, x0, t, d["z"], weight=WEIGHTS["noise"]())
    np.testing.assert_allclose(got, d[f"toy/{name}|disc_rm1"][:4], rtol=2e-4)
    np.testing.assert_allclose(got * 0.5 * x0[0].size, d[f"toy/{name}|disc_rm0"][:4], rtol=2e-4)


@pytest.mark.parametrize("sde", ALL)
def test_the_smallest_loss_is_the_posterior_variance(sde):
    count = 20000
    t = sde.t_min + 0.4 * (sde.t_max - sde.t_min)
    times = jnp.full(count, t)
    x0 = DATA.sample(jax.random.key(0), count)
    noise = jax.random.normal(jax.random.key(1), x0.shape)
    exact = DATA.denoise(sde)
    alpha, sigma = float(sde.alpha(jnp.float32(t))), float(sde.sigma(jnp.float32(t)))
    variance = np.mean(DATA.std**2 * sigma**2 / (alpha**2 * DATA.std**2 + sigma**2))
    uniform = WEIGHTS["uniform"]()
    best = np.asarray(square_error(exact, sde, x0, times, noise, weight=uniform))
    assert best.mean() == pytest.approx(variance, abs=5 * best.std() / np.sqrt(count))
    for worse in (lambda x, t: 1.05 * exact(x, t).x0, lambda x, t: exact(x, t).x0 + 0.05):
        assert (
            np.mean(square_error(denoise_by(sde, worse), sde, x0, times, noise, weight=uniform)) > best.mean()
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_weights_turn_the_error_of_x0_into_that_of_each_target(sde):
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.linspace(0.05, 0.95, 7)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    # With x fixed, D + 1 moves the noise by -alpha / sigma, the score by alpha / sigma^2.
    np.testing.assert_allclose(WEIGHTS["noise"]()(sde, t), (alpha / sigma) ** 2, rtol=1e-9)
    score = (sde.diffusion(t) * alpha / sigma**2) ** 2
    np.testing.assert_allclose(WEIGHTS["likelihood"]()(sde, t), score, rtol=1e-9)
    velocity = (sde.alpha_slope(t) - sde.sigma_slope(t) * alpha / sigma) ** 2
    np.testing.assert_allclose(WEIGHTS["velocity"]()(sde, t), velocity, rtol=1e-9)
    level = sigma / alpha
    c_out = level * 0.5 / jnp.sqrt(level**2 + 0.25)
    np.testing.assert_allclose(WEIGHTS["edm"]()(sde, t), 1 / c_out**2, rtol=1e-9)


@pytest.mark.parametrize("name", ["uniform", "low_discrepancy"])
def test_times_are_uniform(name):
    sde, draw = VP(t_min=0.1, t_max=0.9), TIMES[name]()
    t = np.concatenate([draw(sde, jax.random.key(i), 64) for i in range(200)])
    assert t.min() >= 0.1
    assert t.max() <= 0.9
    assert t.mean() == pytest.approx(0.5, abs=4 * 0.8 / np.sqrt(12 * t.size))
    assert t.var() == pytest.approx(0.64 / 12, rel=0.03)


def test_low_discrepancy_times_are_evenly_spread():
    t = np.sort(TIMES["low_discrepancy"]()(VP(t_min=0.0), jax.random.key(3), 16))
    np.testing.assert_allclose(np.diff(t), 1 / 16, atol=1e-6)


def test_level_times_visit_every_level():
    t = np.asarray(TIMES["levels"]()(SMLD(steps=5), jax.random.key(0), 4000))
    values, counts = np.unique(np.round(t * 4), return_counts=True)
    np.testing.assert_array_equal(values, range(5))
    assert np.all(np.abs(counts - 800) < 5 * np.sqrt(800))


def test_half_sum_is_the_mean_times_half_the_dimensions():
    sde, x0 = VP(), jnp.ones((3, 4, 5))
    pieces = (sde, WEIGHTS["noise"](), TIMES["uniform"]())

    zero = denoise_by(sde, lambda x, t: 0 * x)
    key = jax.random.key(0)
    mean, aux = DenoisingLoss(*pieces)(zero, x0, key)
    half, _ = DenoisingLoss(*pieces, half_sum=True)(zero, x0, key)
    np.testing.assert_allclose(half, 10 * mean, rtol=1e-6)
    np.testing.assert_allclose(aux["log_snr"], sde.log_snr(aux["t"]), rtol=1e-6)


def test_loss_at_a_level_of_the_exact_denoiser_is_the_posterior_variance_at_each_level():
    sde, count = VP(), 20000
    x0 = DATA.sample(jax.random.key(0), count)
    levels = jnp.array([0.1, 0.5, 0.9])
    keys = jax.random.split(jax.random.key(2), count)

    def at(x0, keys):
        every = [loss_at_level(DATA.denoise(sde), sde, x0, keys, i, t) for i, t in enumerate(levels)]
        return np.stack(every, axis=1)

    noise, clean = at(x0, keys)
    a, s = np.asarray(sde.alpha(levels)), np.asarray(sde.sigma(levels))
    variance = np.mean(
        DATA.std**2 * s[:, None] ** 2 / (a[:, None] ** 2 * DATA.std**2 + s[:, None] ** 2), axis=1
    )
    np.testing.assert_allclose(np.mean(clean, axis=1), variance, rtol=0.05)
    np.testing.assert_allclose(noise, (a / s)[:, None] ** 2 * clean, rtol=1e-5)
    few, _ = at(x0[:5], keys[:5])
    np.testing.assert_allclose(few, noise[:, :5], rtol=1e-5)  # whatever the batch


def test_log_normal_times_have_the_stated_noise_levels():
    # Quantiles of evenly spread numbers: mean and spread are exact up to the batch's cells.
    for sde in (EDM(), VP()):
        t = TIMES["log_normal"](p_mean=-0.8, p_std=0.7)(sde, jax.random.key(3), 4096)
        level = -0.5 * np.asarray(sde.log_snr(t), np.float64)
        assert level.mean() == pytest.approx(-0.8, abs=0.005)
        assert level.std() == pytest.approx(0.7, abs=0.01)
    with pytest.raises(ValueError, match="p_std = 0"):
        TIMES["log_normal"](p_std=0.0)

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.sde import DDPM, EDM, SDES, SMLD, VE, VP, Cosine, Flow, SubVP

ALL = [pytest.param(make(), id=name) for name, make in SDES.items()]
OFFICIAL = {"vp": VP(), "subvp": SubVP(), "ve": VE()}


def times(sde, count=41):
    inner = np.linspace(0.001, 0.999, count)
    if isinstance(sde, DDPM):  # piecewise between levels: stay off the kinks
        inner = (np.floor(inner * (sde.steps - 1)) + 0.5) / (sde.steps - 1)
    return jnp.asarray(sde.t_min + (sde.t_max - sde.t_min) * inner)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
class TestLaws:
    def test_log_snr_decreases_and_is_two_log_of_the_ratio(self, sde):
        t = times(sde)
        log_snr = sde.log_snr(t)
        assert np.all(np.diff(log_snr) < 0)
        np.testing.assert_allclose(log_snr, 2 * np.log(sde.alpha(t) / sde.sigma(t)), rtol=1e-9, atol=1e-9)

    def test_time_of_inverts_the_log_snr_and_stays_in_range(self, sde):
        t = times(sde)
        np.testing.assert_allclose(sde.time_of(sde.log_snr(t)), t, rtol=1e-6, atol=1e-9)
        ends = sde.time_of(jnp.array([1e9, -1e9]))
        np.testing.assert_allclose(ends, [sde.t_min, sde.t_max], atol=1e-9)

    def test_marginals_solve_the_moment_equations(self, sde):
        # d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2, by central differences.
        t = times(sde)
        h = 1e-6 * (sde.t_max - sde.t_min)
        f, g = sde.drift(t), sde.diffusion(t)
        alpha_rate = (sde.alpha(t + h) - sde.alpha(t - h)) / (2 * h)
        variance_rate = (sde.sigma(t + h) ** 2 - sde.sigma(t - h) ** 2) / (2 * h)
        scale = np.abs(variance_rate) + np.abs(2 * f * sde.sigma(t) ** 2)
        np.testing.assert_allclose(alpha_rate, f * sde.alpha(t), rtol=1e-5, atol=1e-7)
        assert np.all(np.abs(2 * f * sde.sigma(t) ** 2 + g**2 - variance_rate) < 1e-5 * scale)

    def test_reverse_drift_interpolates_between_ode_and_sde(self, sde):
        t = times(sde)[:7]
        x, score = np.ones((7, 2)), np.full((7, 2), -0.3)
        ode = sde.reverse_drift(x, score, t, noise_scale=0.0)
        reverse = sde.reverse_drift(x, score, t, noise_scale=1.0)
        g = np.asarray(sde.diffusion(t))[:, None]
        np.testing.assert_allclose(ode - reverse, 0.5 * g**2 * score, rtol=1e-9)
        np.testing.assert_allclose(
            sde.reverse_drift(x, score, t, noise_scale=2.0) - ode, -2 * g**2 * score, rtol=1e-9
        )

    def test_prior_density_is_that_of_its_samples(self, sde):
        keys = jax.random.split(jax.random.key(0), 4000)
        x = sde.prior_sample(keys, (3,))
        scale = sde.prior_sigma
        assert np.std(x) == pytest.approx(scale, rel=0.03)
        entropy = 1.5 * (np.log(2 * np.pi * scale**2) + 1)
        assert -np.mean(sde.prior_log_prob(x)) == pytest.approx(entropy, abs=5 * np.sqrt(1.5 / 4000))


@pytest.mark.parametrize("sde", ALL)
def test_is_static_under_jit_and_its_prior_can_be_traced(sde):
    assert hash(sde) == hash(dataclasses.replace(sde))
    assert sde == dataclasses.replace(sde)
    traced = jax.jit(lambda key: sde.prior_sample(key[None], (2,)))(jax.random.key(1))
    np.testing.assert_allclose(traced, sde.prior_sample(jax.random.key(1)[None], (2,)), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_derived_coefficients_equal_the_published_closed_forms():
    t = jnp.linspace(1e-4, 1.0, 50)
    beta = 0.1 + t * 19.9
    np.testing.assert_allclose(VP().drift(t), -beta / 2, rtol=1e-12)
    np.testing.assert_allclose(VP().diffusion(t) ** 2, beta, rtol=1e-12)
    decay = -2 * 0.1 * t - 19.9 * t**2
    np.testing.assert_allclose(SubVP().diffusion(t) ** 2, -beta * np.expm1(decay), rtol=1e-9)
    ve = VE()
    np.testing.assert_allclose(ve.diffusion(t), ve.sigma(t) * np.sqrt(2 * np.log(5000)), rtol=1e-9)
    np.testing.assert_allclose(ve.drift(t), 0, atol=1e-12)
    level = jnp.linspace(0.01, 80, 50)
    np.testing.assert_allclose(EDM().diffusion(level) ** 2, 2 * level, rtol=1e-12)
    np.testing.assert_allclose(Flow().drift(t[:-1]), -1 / (1 - t[:-1]), rtol=1e-9)
    np.testing.assert_allclose(Flow().diffusion(t[:-1]) ** 2, 2 * t[:-1] / (1 - t[:-1]), rtol=1e-9)
    half = np.pi / 2
    np.testing.assert_allclose(Cosine().diffusion(t[:-1]) ** 2, 2 * half * np.tan(half * t[:-1]), rtol=1e-9)


@pytest.mark.parametrize("name", OFFICIAL)
def test_float32_is_exact_down_to_small_times(name):
    # In float32 the plain form 1 - exp(.) is wrong by up to 3 % here.
    sde = OFFICIAL[name]
    t = np.geomspace(1e-5, 1.0, 60).astype(np.float32)
    with jax.enable_x64(True):
        wide = jnp.asarray(t, jnp.float64)
        want = [np.asarray(f(wide)) for f in (sde.alpha, sde.sigma, sde.diffusion)]
    for function, value in zip((sde.alpha, sde.sigma, sde.diffusion), want, strict=True):
        got = function(jnp.asarray(t))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, value, rtol=2e-6)


@pytest.mark.parametrize("name", OFFICIAL)
def test_matches_the_recorded_tables_of_the_official_code(name, fixture):
    # Recorded in float64; ours is float32, hence 2e-6.  Row 0 is t = 0, where sigma is 0 for VP and sub-VP.
    sde, d = OFFICIAL[name], fixture("sde_tables")
    t = jnp.asarray(d["t"])
    x, z = d["x"], d["z"]
    alpha = np.asarray(sde.alpha(t))[:, None, None, None]
    np.testing.assert_allclose(alpha * x, d[f"{name}|f64|mean"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(sde.sigma(t), d[f"{name}|f64|std"], rtol=2e-6)
    np.testing.assert_allclose(sde.prior_log_prob(z), d[f"{name}|f64|prior_logp"], rtol=2e-6)
    drift = np.asarray(sde.drift(t))[:, None, None, None] * x
    np.testing.assert_allclose(drift, d[f"{name}|f64|drift"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(sde.diffusion(t)[1:], d[f"{name}|f64|diffusion"][1:], rtol=2e-6)
    for churn, tag in ((1.0, "pf0"), (0.0, "pf1")):
        got = sde.reverse_drift(x[1:], d["score"][1:], t[1:], noise_scale=churn)
        # The record is float32 and uses 1 - exp(.): its own error is larger than ours.
        want = d[f"{name}|f32|rev_drift_{tag}"][1:]
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * np.abs(want).max() * (name == "subvp"))


def test_perturbed_samples_have_the_stated_moments():
    sde = VP()
    noise = jax.random.normal(jax.random.key(0), (20000, 2))
    x = sde.perturb(jnp.full((20000, 2), 1.5), jnp.full(20000, 0.3), noise)
    assert np.mean(x) == pytest.approx(1.5 * float(sde.alpha(0.3)), abs=4 * 0.8 / 200)
    assert np.std(x) == pytest.approx(float(sde.sigma(jnp.float32(0.3))), rel=0.02)


def test_ddpm_levels_are_the_published_products():
    sde = DDPM()
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas = np.sqrt(np.cumprod(1 - betas))
    t = jnp.arange(1000) / 999
    np.testing.assert_allclose(sde.alpha(t), alphas, rtol=3e-5)
    np.testing.assert_allclose(sde.sigma(t), np.sqrt(1 - alphas**2), rtol=3e-5)
    assert alphas[-1] == pytest.approx(0.006353, abs=1e-6)


def test_smld_levels_are_geometric():
    sde = SMLD(sigma_min=0.01, sigma_max=50, steps=10)
    np.testing.assert_allclose(sde.sigma(jnp.arange(10) / 9), np.geomspace(0.01, 50, 10), rtol=2e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VP(beta_min=3.0, beta_max=1.0), "beta_min < beta_max"),
        (lambda: VE(sigma_min=-1.0), "sigma_min"),
        (lambda: EDM(t_min=5.0, t_max=1.0), "t_min < t_max"),
        (lambda: DDPM(steps=20), "beta_max < steps"),
        (lambda: SMLD(steps=1), "at least 2"),
    ],
)
def test_impossible_values_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "sde", [VE(t_max=0.7), VE(sigma_min=0.02, sigma_max=30.0, t_max=0.5), EDM(t_max=20.0)], ids=repr
)
def test_the_prior_has_the_noise_of_the_last_time_wherever_that_is(sde):
    np.testing.assert_allclose(sde.prior_sigma, sde.sigma(jnp.asarray(sde.t_max)), rtol=1e-9)

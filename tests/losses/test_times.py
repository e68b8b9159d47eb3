"""Drawing times well changes the variance of the loss, not its mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss
from score_sde.losses.times import SPREADS, correction_of
from score_sde.sde import DDPM, SDES, VP
from tests.oracles import Gaussian

ALL = [pytest.param(make(), id=name) for name, make in SDES.items()]
DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
WEIGHT = WEIGHTS["likelihood"]()


def exact(sde):
    denoise = DATA.denoise(sde)
    return lambda x, t, key=None: denoise(x, t)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", ALL)
def test_importance_density_is_that_of_the_weight_and_normalised(sde):
    # correction = uniform / density: its inverse is the density, whose integral is one ...
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.linspace(0.1, 0.9, 9)
    times = TIMES["importance"]()
    density = 1 / (correction_of(times, sde, t) * (sde.t_max - sde.t_min))
    rate = sde.diffusion(t) ** 2 / sde.sigma(t) ** 2
    np.testing.assert_allclose(density / density[0], rate / rate[0], rtol=1e-9)
    # ... and whose distribution function the draws invert, exactly: a quantile is where it should be.
    drawn = np.sort(times(sde, jax.random.key(0), 4096))
    assert drawn[0] >= sde.t_min
    assert drawn[-1] <= sde.t_max * (1 + 1e-7)
    high, low = (float(sde.log_snr(jnp.asarray(end))) for end in (sde.t_min, sde.t_max))
    share = (high - np.asarray(sde.log_snr(jnp.asarray(drawn)))) / (high - low)
    # float32 uniform numbers; the ends of float32 times near zero
    np.testing.assert_allclose(np.diff(share), 1 / 4096, atol=2e-6)
    # By the trapezoidal rule over equal steps of log-SNR, fine enough for 1e-5.
    grid = np.asarray(sde.time_of(jnp.linspace(high, low, 20001)), np.float64)
    values = 1 / np.asarray(correction_of(times, sde, jnp.asarray(grid))) / (sde.t_max - sde.t_min)
    if not isinstance(sde, DDPM):  # whose density jumps at every level
        assert np.trapezoid(values, grid) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("sde", [VP(), SDES["subvp"](t_min=1e-2), SDES["ve"](), SDES["learned"]()])
def test_importance_sampling_is_unbiased_and_lowers_the_variance(sde):
    # The closed form: 1/(T - t_min) int g^2 alpha^2 / sigma^4 posterior variance dt, mean over dimensions.
    with jax.enable_x64(True):
        high, low = (float(sde.log_snr(jnp.asarray(end))) for end in (sde.t_min, sde.t_max))
        log_snr = np.linspace(high, low, 4001)
        noise = DATA.std[None] ** 2 / (DATA.std[None] ** 2 + np.exp(-log_snr[:, None]))
        want = np.trapezoid(noise.mean(1), -log_snr) / (sde.t_max - sde.t_min)
    count = 2**15
    x0 = DATA.sample(jax.random.key(0), count)
    spread = {}
    for name in ("uniform", "importance"):
        loss = DenoisingLoss(sde, WEIGHT, TIMES[name]())(exact(sde), x0, jax.random.key(1))[0]
        got = np.asarray(loss, np.float64)
        error = got.std() / np.sqrt(count)
        assert got.mean() == pytest.approx(want, abs=4 * error)
        spread[name] = got.std()
    if sde.sigma(jnp.float32(sde.t_min)) < 0.5 and not isinstance(sde, SDES["ve"] | SDES["learned"]):
        assert spread["importance"] < 0.5 * spread["uniform"]
    else:  # uniform times are those already
        assert spread["importance"] == pytest.approx(spread["uniform"], rel=0.05)


@pytest.mark.parametrize("name", SPREADS)
@pytest.mark.parametrize("batch", [7, 8])
def test_each_number_of_a_spread_is_uniform(name, batch):
    keys = jax.random.split(jax.random.key(0), 3000)
    u = np.asarray(jax.vmap(lambda key: SPREADS[name](key, batch))(keys), np.float64)
    assert u.shape == (3000, batch)
    for i in range(batch):  # Kolmogorov-Smirnov at the 1e-5 level
        distance = np.abs(np.sort(u[:, i]) - (np.arange(3000) + 0.5) / 3000).max()
        assert distance < 2.5 / np.sqrt(3000)


def test_antithetic_and_even_times_lower_the_variance_of_the_mean():
    # Of a rising function: pairs take away what is linear, even spacing nearly all.
    keys = jax.random.split(jax.random.key(0), 500)
    variance = {
        name: float(np.var(jax.vmap(lambda key, draw=SPREADS[name]: jnp.mean(jnp.exp(draw(key, 16))))(keys)))
        for name in SPREADS
    }
    single = (np.exp(2) - 1) / 2 - (np.e - 1) ** 2
    assert variance["independent"] == pytest.approx(single / 16, rel=0.3)
    # The pair's covariance in closed form: e - (e - 1)^2.
    paired = (single + np.e - (np.e - 1) ** 2) / 2 / 8
    assert variance["antithetic"] == pytest.approx(paired, rel=0.3)
    # Even spacing: what is left is the step from the end to the start, (e - 1) / 16 times a uniform number.
    even = ((np.e - 1) / 16) ** 2 / 12
    assert variance["low_discrepancy"] == pytest.approx(even, rel=0.3)


def test_pairs_mirror_each_other():
    t = np.asarray(TIMES["antithetic"]()(VP(t_min=0.2), jax.random.key(0), 10))
    np.testing.assert_allclose(t[:5] + t[5:], 1.2, rtol=1e-6)


def test_a_misspelt_spread_is_refused():
    with pytest.raises(ValueError, match="'antithetical' is not one of: .*did you mean 'antithetic'"):
        TIMES["importance"](spread="antithetical")

"""The bound as a loss, and the learned schedule: closed forms on Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.losses import VariationalLoss, variational_bound
from score_sde.sde import SDES, VP, Learned
from score_sde.sde.learned import ByLevel, fall
from tests.oracles import Gaussian

STD = np.linspace(0.1, 1.0, 64)
DATA = Gaussian(np.full(64, 0.2), STD)
ROW = Precondition(PREDICTIONS["x0"](), TIME_INPUTS["quarter_log_sigma"]())


def shrink(params, x, c_noise, cond, *, key=None):
    """The exact denoiser of ``DATA`` as a network that is told the log-SNR: times ``params``, to spoil it."""
    variance = jnp.exp(8 * c_noise)[:, None]  # of x / alpha
    alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(-8 * c_noise))[:, None]
    gain = jnp.asarray(STD)[None] ** 2 / (jnp.asarray(STD)[None] ** 2 + variance)
    return params * (0.2 + gain * (x / alpha - 0.2))


def model(spoil=1.0):
    return Denoiser(jnp.float32(spoil), ByLevel(), shrink, ROW)


def schedule_of(logits, high=13.3, low=-5.0):
    return {
        "log_snr_max": jnp.float32(high),
        "log_snr_min": jnp.float32(low),
        "logits": jnp.asarray(logits, jnp.float32),
    }


EVEN = np.zeros(12)
BENT = np.linspace(-1.5, 1.5, 12)


@pytest.mark.usefixtures("x64")
def test_equal_shares_fall_linearly_and_any_shares_fall_from_0_to_1():
    t = jnp.linspace(0, 1, 33)
    np.testing.assert_allclose(fall(jnp.full(12, 1 / 12), t), t, atol=1e-14)
    bent = fall(jax.nn.softmax(jnp.asarray(BENT)), t)
    np.testing.assert_allclose([bent[0], bent[-1]], [0, 1], atol=1e-14)
    assert np.all(np.diff(bent) > 0)
    # Degree 2, by hand: c_1 2 t (1 - t) + t^2
    np.testing.assert_allclose(fall(jnp.array([0.3, 0.7]), t), 0.6 * t * (1 - t) + t**2, atol=1e-14)


def test_a_frozen_process_has_the_schedule_of_the_parameters():
    schedule = schedule_of(BENT, 11.0, -4.0)
    sde = Learned().freeze({"schedule": schedule})
    t = jnp.linspace(0, 1, 9)
    want = 11.0 - 15.0 * fall(jax.nn.softmax(schedule["logits"]), t)
    np.testing.assert_allclose(sde.log_snr(t), want, rtol=1e-5, atol=1e-5)
    assert hash(sde) == hash(Learned().freeze({"schedule": schedule}))
    assert sde.parts() == {} and sde.freeze({}) == sde
    back = Learned(log_snr_max=11.0, log_snr_min=-4.0, shares=sde.shares).parts()["schedule"]
    np.testing.assert_allclose(jax.nn.softmax(back["logits"]), sde.shares, rtol=1e-5)


@pytest.mark.parametrize(
    "sde",
    [
        VP(),
        SDES["ve"](),
        SDES["edm"](t_max=20.0),
        SDES["flow"](),
        pytest.param(Learned(), marks=pytest.mark.slow),
    ],
)
def test_bound_with_the_exact_denoiser_is_the_entropy(sde):
    # Of the data with the noise of t_min in their units, plus the distance of the end from the prior.
    def batch(key):
        x0 = DATA.sample(key, 256)
        return jnp.mean(variational_bound(DATA.denoise(sde), sde, x0, jax.random.fold_in(key, 1)))

    bound = np.asarray(jax.lax.map(batch, jax.random.split(jax.random.key(0), 1024)), np.float64)
    alpha, sigma = (
        np.asarray(f(jnp.array([sde.t_min, sde.t_max])), np.float64) for f in (sde.alpha, sde.sigma)
    )
    entropy = 0.5 * np.log(2 * np.pi * np.e * (STD**2 + (sigma[0] / alpha[0]) ** 2))
    end = (alpha[1] ** 2 * STD**2 + sigma[1] ** 2) / sde.prior_sigma**2
    gap = 0.5 * (end + (alpha[1] * 0.2 / sde.prior_sigma) ** 2 - 1 - np.log(end))
    error = bound.std() / np.sqrt(len(bound))
    assert bound.mean() == pytest.approx(np.mean(entropy + gap), abs=4 * error + 1e-4)
    assert 4 * error < 0.02


def expected(logits, spoil=1.0, high=13.3, low=-5.0):
    """The loss without noise: x0 and noise averaged in closed form, times by quadrature; and its square."""
    t = (jnp.arange(4000) + 0.5) / 4000
    shares = jax.nn.softmax(jnp.asarray(logits))
    value, slope = jax.jvp(lambda u: fall(shares, u), (t,), (jnp.ones_like(t),))
    snr = jnp.exp(high - (high - low) * value)[:, None]
    std = jnp.asarray(STD)[None]
    posterior = std**2 / (1 + std**2 * snr)
    moment = 0.04 + std**2 - posterior  # of the exact denoiser
    error = jnp.mean(snr * (posterior + (spoil - 1) ** 2 * moment), axis=1)
    return 0.5 * (high - low) * slope * error


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("spoil", [1.0, 0.9])
def test_the_mean_does_not_depend_on_the_interior_but_the_variance_does(spoil):
    even, bent = expected(EVEN, spoil), expected(-BENT, spoil)
    assert float(jnp.mean(bent)) == pytest.approx(float(jnp.mean(even)), rel=1e-5)
    assert float(jnp.var(bent)) > 1.2 * float(jnp.var(even)) or float(jnp.var(bent)) < 0.8 * float(
        jnp.var(even)
    )
    slope = jax.grad(lambda logits: jnp.mean(expected(logits, spoil)))(jnp.asarray(BENT))
    scale = jax.grad(lambda logits: jnp.mean(expected(logits, spoil) ** 2))(jnp.asarray(BENT))
    assert np.abs(slope).max() < 1e-4 * np.abs(scale).max()


@pytest.mark.parametrize("logits", [EVEN, BENT])
def test_the_loss_of_every_schedule_has_that_mean(logits):
    count = 2**13
    x0 = DATA.sample(jax.random.key(0), count)
    loss, aux = VariationalLoss()(model(0.9), schedule_of(logits), x0, jax.random.key(2))
    constant = 0.5 * (np.log(2 * np.pi * np.e) - 13.3)
    alpha2 = 1 / (1 + np.exp(5.0))
    prior = 0.5 * (1 - alpha2 + alpha2 * np.mean(x0**2) - 1 - np.log(1 - alpha2))
    with jax.enable_x64(True):
        want = float(jnp.mean(expected(EVEN, 0.9))) + constant + prior
    got = np.asarray(loss, np.float64)
    assert got.mean() == pytest.approx(want, abs=4 * got.std() / np.sqrt(count))
    assert float(aux["log_snr"].min()) >= -5.001
    assert float(aux["log_snr"].max()) <= 13.301


# A network that errs pulls at the high end by far; one that does not leaves the low end to be seen.
@pytest.mark.parametrize(("spoil", "low"), [pytest.param(0.9, -5.0, marks=pytest.mark.slow), (1.0, 0.0)])
def test_gradients_are_of_the_bound_for_ends_and_of_the_square_for_the_interior(spoil, low):
    batches = 16

    def slopes(key):
        key_data, key_loss = jax.random.split(key)
        x0 = DATA.sample(key_data, 2**12)

        def loss(spoil, schedule):
            return jnp.mean(VariationalLoss()(model(spoil), schedule, x0, key_loss)[0])

        return jax.grad(loss, (0, 1))(jnp.float32(spoil), schedule_of(BENT, low=low))

    network, schedule = jax.lax.map(slopes, jax.random.split(jax.random.key(3), batches))
    with jax.enable_x64(True):

        def bound(s, high, low):
            a2 = jax.nn.sigmoid(low)
            prior = 0.5 * (-a2 + a2 * (0.04 + np.mean(STD**2)) - jnp.log(1 - a2))
            return jnp.mean(expected(jnp.asarray(BENT), s, high, low)) - 0.5 * high + prior

        want = jax.grad(bound, (0, 1, 2))(spoil, 13.3, low)
        square = jax.grad(lambda logits: jnp.mean(expected(logits, spoil, low=low) ** 2))(jnp.asarray(BENT))
    errors = []
    for each, exact in zip((network, schedule["log_snr_max"], schedule["log_snr_min"]), want, strict=True):
        got = np.asarray(each, np.float64)
        errors.append(got.std() / np.sqrt(batches - 1))
        assert got.mean() == pytest.approx(float(exact), abs=4 * errors[-1] + 1e-4)
    if spoil == 1:
        assert errors[2] < 0.03 * float(want[2])
    else:
        assert errors[0] < 0.01 * abs(float(want[0]))
        assert errors[1] < 0.01 * float(want[1])
    logits = np.mean(np.asarray(schedule["logits"], np.float64), axis=0)
    cosine = np.dot(logits, square) / np.linalg.norm(logits) / np.linalg.norm(square)
    assert cosine > 0.99
    # 64 dimensions: the square of the mean over dimensions is not the mean square
    assert np.linalg.norm(logits) == pytest.approx(np.linalg.norm(square), rel=0.1)


@pytest.mark.slow
def test_training_finds_the_schedule_of_least_variance():
    # Deterministic in the limit of many dimensions: the best density is in proportion to the error.
    x0 = DATA.sample(jax.random.key(0), 256)
    optimizer = optax.adam(0.03)
    schedule = schedule_of(BENT)
    state = optimizer.init(schedule)

    @jax.jit
    def step(schedule, state, key):
        def loss(logits):
            return jnp.mean(VariationalLoss()(model(), {**schedule, "logits": logits}, x0, key)[0])

        slope = {**jax.tree.map(jnp.zeros_like, schedule), "logits": jax.grad(loss)(schedule["logits"])}
        change, state = optimizer.update(slope, state)
        return optax.apply_updates(schedule, change), state

    for i in range(600):
        schedule, state = step(schedule, state, jax.random.fold_in(jax.random.key(1), i))
    with jax.enable_x64(True):
        before, after = expected(EVEN), expected(np.asarray(schedule["logits"], np.float64))
        spread = [float(jnp.std(v) / jnp.mean(v)) for v in (before, after)]
    assert spread[1] < 0.5 * spread[0], spread

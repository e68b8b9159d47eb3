"""Latents against closed forms: the flow of a Gaussian shifts and scales, great circles keep their radius."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.inversion.latents import (
    Adaptive,
    decode,
    encode,
    interpolate,
    round_trip,
    slerp,
    stepped,
    temper,
)
from score_sde.sde import EDM, VE, VP, Flow, SubVP
from score_sde.solvers import GRIDS, SOLVERS
from tests.oracles import Gaussian, Mixture

SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM(), "flow": Flow()}
DATA = Gaussian(np.array([0.3, -0.5, 0.1]), np.array([0.2, 0.5, 0.9]))


@pytest.mark.parametrize("name", SDES)
def test_the_latent_of_gaussian_data_is_the_closed_form_affine_map(name):
    sde = SDES[name]
    x = DATA.sample(jax.random.key(0), 16)
    out = jax.jit(lambda x: encode(DATA.denoise(sde), sde, x, Adaptive()))(x)
    want = DATA.flow(sde, x, sde.t_min, sde.t_max) / sde.prior_sigma
    np.testing.assert_allclose(out.x, want, atol=2e-4)
    assert np.all(out.evaluations > 6)
    # latents of the model's own samples have unit variance, whatever the process and the data
    many = DATA.sample(jax.random.key(1), 4000)
    whole = DATA.flow(sde, many, sde.t_min, sde.t_max) / sde.prior_sigma
    np.testing.assert_allclose(np.std(whole, axis=0), 1.0, atol=0.05)


@pytest.mark.parametrize("name", SDES)
def test_decoding_returns_what_was_encoded(name):
    sde, data = SDES[name], Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)
    x = jax.random.uniform(jax.random.key(1), (32, 2), minval=-1, maxval=1)
    trip = jax.jit(lambda x: round_trip(data.denoise(sde), sde, x, Adaptive()))(x)
    assert float(trip.rms.max()) < float(trip.largest.max()) < 1e-3
    np.testing.assert_allclose(trip.rms, np.sqrt(np.mean((trip.back - x) ** 2, axis=1)), rtol=1e-5)
    assert float(np.abs(trip.latent - x).max()) > 0.1  # it went somewhere


def error(transport):
    """Mean round-trip error of a mixture."""
    sde, data = VP(), Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)
    x = jax.random.uniform(jax.random.key(1), (32, 2), minval=-1, maxval=1)
    trip = jax.jit(lambda x: round_trip(data.denoise(sde), sde, x, transport, t_min=1e-3).rms)
    return float(trip(x).mean())


@pytest.mark.slow
def test_the_round_trip_error_falls_with_the_tolerance():
    assert error(Adaptive(rtol=1e-5, atol=1e-5)) < 0.1 * error(Adaptive(rtol=1e-3, atol=1e-3))


def test_the_round_trip_error_falls_with_the_steps():
    assert error(make("ddim", 80)) < error(make("ddim", 20)) / 3  # first order: a quarter


def make(name, steps, **options):
    sde = VP()
    return stepped(SOLVERS[name](denoise=False, **options), GRIDS["log_snr"](sde=sde), steps)


@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_a_solver_on_a_grid_encodes_as_the_ode_does(name):
    sde, x = VP(), DATA.sample(jax.random.key(0), 8)
    want = DATA.flow(sde, x, 1e-3, 1.0)
    steps = {"ddim": 400, "heun": 60}[name]
    out = jax.jit(lambda x: encode(DATA.denoise(sde), sde, x, make(name, steps), t_min=1e-3))(x)
    np.testing.assert_allclose(out.x, want, atol=0.03)
    back = jax.jit(lambda z: decode(DATA.denoise(sde), sde, z, make(name, steps), t_min=1e-3))(want)
    np.testing.assert_allclose(back.x, x, atol=0.03)
    assert np.all(out.evaluations >= steps)


def test_a_solver_that_draws_noise_or_has_no_table_is_refused():
    with pytest.raises(ValueError, match="draws noise"):
        make("ddpm", 10).plan(VP(), 1e-3, 1.0)
    with pytest.raises(ValueError, match="makes no table"):
        make("pc", 10)
    with pytest.raises(ValueError, match="dopri5, tsit5"):
        Adaptive(method="euler")


@pytest.mark.parametrize("angle", [1e-6, 0.5, 1.5, 3.0])
def test_slerp_turns_at_constant_speed_and_keeps_the_length(angle):
    a = 2.0 * jnp.array([[1.0, 0.0, 0.0]])
    b = 2.0 * jnp.array([[np.cos(angle), np.sin(angle), 0.0]], jnp.float32)
    for weight in (0.0, 0.25, 0.5, 1.0):
        got = np.asarray(slerp(a, b, weight))
        want = 2.0 * np.array([[np.cos(weight * angle), np.sin(weight * angle), 0.0]])
        np.testing.assert_allclose(got, want, atol=3e-6)
        np.testing.assert_allclose(np.linalg.norm(got), 2.0, rtol=1e-6)


def test_slerp_of_unequal_lengths_and_of_opposite_latents():
    a, b = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 3.0]])
    got = np.asarray(slerp(a, b, 0.5))
    np.testing.assert_allclose(got, 2.0 * np.sqrt(0.5) * np.ones((1, 2)), rtol=1e-6)
    opposite = np.asarray(slerp(a, -a, 0.5))
    assert np.all(np.isfinite(opposite))
    np.testing.assert_allclose(slerp(a, -a, 1.0), -a, atol=1e-6)


def test_interpolation_has_its_ends_and_a_straight_line_would_leave_the_sphere():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    way = np.asarray(interpolate(a, b, 5))
    assert way.shape == (3, 5, 4, 4, 1)
    np.testing.assert_allclose(way[:, 0], a, atol=1e-5)
    np.testing.assert_allclose(way[:, -1], b, atol=1e-5)
    ends = [np.linalg.norm(np.reshape(x, (3, -1)), axis=1) for x in (a, b)]
    middle = np.linalg.norm(way[:, 2].reshape(3, -1), axis=1)
    np.testing.assert_allclose(middle, np.mean(ends, axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match="frames = 1"):
        interpolate(a, b, 1)


@pytest.mark.slow
def test_temperature_scales_latents_and_the_spread_of_what_they_decode_to():
    sde = VP()
    latent = jax.random.normal(jax.random.key(0), (64, 3))
    np.testing.assert_allclose(temper(latent, 0.5), 0.5 * latent)
    np.testing.assert_allclose(temper(latent[:2], jnp.array([0.0, 2.0]))[1], 2 * latent[1])
    # decoding Gaussian data is affine: cooled latents give exactly the spread of the data, cooled
    both = [decode(DATA.denoise(sde), sde, temper(latent, t), Adaptive()).x for t in (1.0, 0.5)]
    np.testing.assert_allclose(np.std(both[1], axis=0), 0.5 * np.std(both[0], axis=0), rtol=1e-3)


@pytest.mark.slow
def test_each_tolerance_is_what_its_name_says():
    # Values of a hundred: relative to them a thousandth is a tenth, and so much looser than absolutely.
    data, sde = Gaussian(np.full(2, 100.0), np.full(2, 1.0)), VE()
    x = data.sample(jax.random.key(0), 4)
    few, many = (
        Adaptive(rtol=rtol, atol=atol)(data.denoise(sde), sde, x, sde.t_min, sde.t_max).evaluations
        for rtol, atol in ((1e-2, 1e-6), (1e-6, 1e-2))
    )
    assert int(few.max()) < int(many.min())

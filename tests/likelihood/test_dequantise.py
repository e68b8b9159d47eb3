"""Dequantisation noise: exactly uniform at first, a density always, and trained to tighten the bound."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from score_sde.codecs import Pixels
from score_sde.likelihood.dequantise import Coupled, Uniform, encode
from score_sde.nets.dequantiser import CouplingNet

SCALING = Pixels(grey_levels=17, dequantize=True)
FLOW = Coupled(SCALING, CouplingNet(width=8, couplings=2))
LEVELS = jnp.asarray(np.random.default_rng(0).integers(0, 17, (6, 4, 4, 1)), jnp.uint8)


def draw(density, params, levels, key):
    """The noise of a density for some integers, and its log density."""
    return density.move(params, levels, SCALING.noise(key, levels.shape))


def spoilt(shape=(4, 4, 1), flow=FLOW):
    """Parameters far from the first ones."""
    params = flow.init(jax.random.key(0), shape)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def test_at_first_it_is_uniform_to_the_last_bit():
    params = FLOW.init(jax.random.key(0), (4, 4, 1))
    for key in jax.random.split(jax.random.key(2), 5):
        u, log_q = draw(FLOW, params, LEVELS, key)
        plain, zero = draw(Uniform(SCALING), {}, LEVELS, key)
        np.testing.assert_array_equal(u, plain)
        np.testing.assert_array_equal(log_q, zero)
        x, _ = encode(FLOW, params, SCALING, LEVELS, key)
        np.testing.assert_array_equal(x, SCALING.encode({}, LEVELS, key))


def test_noise_stays_in_its_cell():
    u, log_q = draw(FLOW, spoilt(), LEVELS, jax.random.key(3))
    assert float(jnp.abs(log_q).max()) > 1  # far from uniform
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    np.testing.assert_array_equal(SCALING.decode({}, SCALING.place(LEVELS, u)), LEVELS)


def test_log_q_is_the_change_of_volume():
    # log |dy/dw| by the whole Jacobian of one example.
    params, x = spoilt(), LEVELS[:1].astype(jnp.float32) / 8 - 1
    w = jax.random.logistic(jax.random.key(4), x.shape)
    jacobian = jax.jacfwd(lambda w: FLOW.flow(params, x, w)[0].reshape(-1))(w).reshape(16, 16)
    _, log_slope = FLOW.flow(params, x, w)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_slope[0], rtol=1e-4)


def test_the_density_integrates_to_one():
    # E_q[1 / q] is the volume of the cube; two pixels, so that the estimate has a small error.
    levels = jnp.broadcast_to(jnp.array([[[3], [12]]], jnp.uint8), (20000, 2, 1))
    _, log_q = draw(FLOW, spoilt((2, 1)), levels, jax.random.key(5))
    inverse = np.exp(-np.asarray(log_q, np.float64))
    assert log_q.std() > 0.1
    assert inverse.mean() == pytest.approx(1, abs=4 * inverse.std() / math.sqrt(20000))


@pytest.mark.slow
def test_training_recovers_a_density_inside_the_cells():
    # p is uniform on the lower half of each cell, softened: log p = -a logcosh-like wall; best q is p itself.
    rate = 6.0

    def objective(params, key):
        x0, log_q = encode(FLOW, params, SCALING, LEVELS, key)
        u = (x0 + 1) / 2 * 17 - LEVELS
        log_p = math.log(rate / (1 - math.exp(-rate))) - rate * u
        return jnp.mean(log_q / 16 - jnp.mean(log_p, axis=(1, 2, 3)))

    optimizer = optax.adam(1e-2)
    params = FLOW.init(jax.random.key(0), (4, 4, 1))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        value, slope = jax.value_and_grad(objective)(params, key)
        change, state = optimizer.update(slope, state)
        return optax.apply_updates(params, change), state, value

    values = []
    for i in range(400):
        params, state, value = step(params, state, jax.random.fold_in(jax.random.key(1), i))
        values.append(float(value))
    # Uniform noise: rate / 2 - log(rate / (1 - e^-rate)); the density itself would reach 0.
    uniform = rate / 2 - math.log(rate / (1 - math.exp(-rate)))
    assert values[0] == pytest.approx(uniform, abs=0.3)
    assert -0.02 < np.mean(values[-50:]) < 0.15 * uniform


def test_continuous_data_are_refused():
    assert Pixels(grey_levels=None).levels is None
    with pytest.raises(ValueError, match=r"dequantiser\.couplings = 0"):
        CouplingNet(couplings=0)

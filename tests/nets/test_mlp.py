"""The network of examples without a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditions import Condition
from score_sde.nets import MLP, Net

COND = (("label", Condition("class", (), 3)), ("known", Condition("image", (10,))))


def drawn(module, shape=(5,), seed=0):
    net = Net(module)
    params = net.init(jax.random.key(seed), shape)
    random = iter(jax.random.split(jax.random.key(seed + 1), 100))
    return net, jax.tree.map(lambda leaf: jax.random.normal(next(random), leaf.shape) * 0.3, params)


def by_hand(params, x, c_noise, blocks):
    """The formulas of the docstring in numpy, for the fourier embedding and swish."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def swish(h):
        return h / (1 + np.exp(-h))

    def dense(h, name):
        return h @ p[name]["kernel"] + p[name]["bias"]

    def norm(h, name):
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
        return h * p[name]["scale"] + p[name]["bias"]

    angle = 2 * np.pi * c_noise[:, None] * p["time_embedding"]["frequencies"]
    time = swish(dense(np.concatenate([np.sin(angle), np.cos(angle)], -1), "time_dense_0"))
    time = swish(dense(time, "time_dense_1"))
    h = dense(x, "stem")
    for i in range(blocks):
        scale, shift = np.split(dense(time, f"block_{i}_time"), 2, -1)
        inner = dense(norm(h, f"block_{i}_norm") * (1 + scale) + shift, f"block_{i}_dense_0")
        h = h + dense(swish(inner), f"block_{i}_dense_1")
    return dense(swish(norm(h, "norm_out")), "out")


def test_the_network_is_what_its_formulas_say():
    net, params = drawn(MLP(width=8, num_blocks=2, hidden_mult=3))
    x, c = np.random.default_rng(0).normal(size=(4, 5)), np.array([-1.0, -0.2, 0.3, 1.1])
    got = net(params, jnp.asarray(x, jnp.float32), jnp.asarray(c, jnp.float32))
    np.testing.assert_allclose(got, by_hand(params, x, c, 2), rtol=2e-4, atol=2e-4)
    assert params["block_0_dense_0"]["kernel"].shape == (8, 24)


def test_it_starts_at_zero_and_takes_any_shape():
    net = Net(MLP(width=8, num_blocks=1))
    params = net.init(jax.random.key(0), (3, 2))
    x = jax.random.normal(jax.random.key(1), (4, 3, 2))
    assert np.abs(net(params, x, 0.5)).max() < 1e-3
    _, params = drawn(net.module, (3, 2))
    flat = Net(MLP(width=8, num_blocks=1))(params, x.reshape(4, 6), 0.5)
    np.testing.assert_allclose(net(params, x, 0.5).reshape(4, 6), flat, rtol=1e-5)


def test_conditions_reach_the_output_and_null_is_none():
    net, params = drawn(MLP(width=8, num_blocks=1, conditions=COND))
    x = jax.random.normal(jax.random.key(1), (4, 5))
    nothing = net(params, x, 0.5)
    np.testing.assert_array_equal(nothing, net(params, x, 0.5, {"known": jnp.zeros((4, 10))}))
    assert np.abs(nothing - net(params, x, 0.5, {"known": jnp.ones((4, 10))})).max() > 1e-2
    assert np.abs(nothing - net(params, x, 0.5, {"label": jnp.array([0, 1, 2, 0])})).max() > 1e-2


def test_embeddings_differ_and_dropout_acts_with_a_key_only():
    x = jax.random.normal(jax.random.key(1), (4, 5))
    net, params = drawn(MLP(width=8, num_blocks=1, dropout=0.5))
    np.testing.assert_array_equal(net(params, x, 0.5), net(params, x, 0.5))
    assert np.abs(net(params, x, 0.5) - net(params, x, 0.5, key=jax.random.key(2))).max() > 1e-3
    positional, params = drawn(MLP(width=8, num_blocks=1, embedding_type="positional"))
    assert "time_embedding" not in params
    assert np.abs(positional(params, x, 0.5) - positional(params, x, 50.0)).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 7}, "width=7: must be even"),
        ({"num_blocks": 0}, "num_blocks=0"),
        ({"hidden_mult": 0}, "hidden_mult=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"embedding_type": "sine"}, "embedding_type='sine'"),
        ({"nonlinearity": "tanh"}, "nonlinearity='tanh'"),
    ],
)
def test_fields_that_cannot_be_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        Net(MLP(**options)).shapes((5,))

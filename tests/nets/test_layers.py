"""Laws of single layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import layers
from score_sde.nets.initial import draw


def normals(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def initial(module, *args):
    boxes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]
    return draw(jax.random.key(1), boxes)


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (96, 24), (256, 32), (200, 25), (3, 1)])
def test_group_norm_normalises_each_group(channels, groups):
    """Groups are min(C // 4, 32) where that divides C, and the next smaller divisor elsewhere."""
    x = 3 + 5 * normals(0, (2, 4, 3, channels))
    y = layers.GroupNorm().apply({"params": initial(layers.GroupNorm(), x)}, x)
    y = np.asarray(y).reshape(2, 12, groups, -1)
    np.testing.assert_allclose(y.mean((1, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1.0, atol=1e-4)
    if groups < channels // 2:  # not normalised more finely than that
        assert np.abs(y[..., ::2].mean((1, 3))).max() > 1e-3


def test_attention_commutes_with_permutations_of_positions():
    x = normals(0, (2, 6, 8))
    module = layers.Attention(init_scale=1.0)
    params = initial(module, x)
    order = np.random.default_rng(0).permutation(6)
    y = module.apply({"params": params}, x)
    assert np.abs(y - x * np.sqrt(0.5)).max() > 0.01
    permuted = module.apply({"params": params}, x[:, order])
    np.testing.assert_allclose(permuted, y[:, order], atol=1e-5)


def test_attention_is_softmax_of_scaled_products():
    x = normals(1, (1, 5, 4))
    module = layers.Attention(init_scale=1.0, skip_rescale=False)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * normals(leaf.size, leaf.shape), initial(module, x))
    h = layers.GroupNorm().apply({"params": params["norm"]}, x)[0]
    q, k, v = (h @ params[n]["kernel"] + params[n]["bias"][None] for n in ("query", "key", "value"))
    weights = jax.nn.softmax(q @ k.T / np.sqrt(4), axis=-1)
    want = x[0] + weights @ v @ params["out"]["kernel"] + params["out"]["bias"][None]
    np.testing.assert_allclose(module.apply({"params": params}, x)[0], want, atol=1e-5)


def test_positional_embedding():
    embedding = layers.positional_embedding(jnp.array([0.0, 1.0, 999.0]), 8)
    np.testing.assert_allclose(embedding[0], [0, 0, 0, 0, 1, 1, 1, 1], atol=0)
    frequencies = 1e4 ** -(np.arange(4) / 3)
    np.testing.assert_allclose(embedding[1, :4], np.sin(frequencies), atol=1e-6)
    np.testing.assert_allclose(embedding[2, 4:], np.cos(999 * frequencies), atol=1e-4)


def test_fourier_embedding_frequencies_receive_no_gradient():
    module, c = layers.FourierEmbedding(16, 4.0), jnp.array([0.3, -2.0])
    params = initial(module, c)
    y = module.apply({"params": params}, c)
    angle = 2 * np.pi * np.asarray(c)[:, None] * np.asarray(params["frequencies"])[None]
    np.testing.assert_allclose(y, np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-4)
    gradient = jax.grad(lambda p: module.apply({"params": p}, c).sum())(params)
    assert not np.any(gradient["frequencies"])


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0])
def test_kernels_have_the_fan_average_variance(scale):
    x = jnp.zeros((1, 4, 4, 32))
    kernel = np.asarray(initial(layers.Conv(96, scale), x)["kernel"])
    variance = max(scale, 1e-10) / (9 * (32 + 96) / 2)
    np.testing.assert_allclose(kernel.var(), variance, rtol=0.03)
    np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(3 * variance), rtol=0.01)


def test_frequencies_are_normal_with_the_scale():
    frequencies = initial(layers.FourierEmbedding(4000, 16.0), jnp.zeros(1))["frequencies"]
    np.testing.assert_allclose(np.std(frequencies), 16.0, rtol=0.05)
    np.testing.assert_allclose(np.mean(frequencies**4), 3 * 16.0**4, rtol=0.2)


def test_draw_gives_every_parameter_its_own_values():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.Dense(4, name="a")(x) + layers.Dense(4, name="b")(x)

    params = initial(Pair(), jnp.zeros((1, 4)))
    values = np.concatenate([np.ravel(params[name]["kernel"]) for name in "ab"])
    assert len(np.unique(values)) == 32
    assert not np.any(params["a"]["bias"])


@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_residual_block_starts_as_its_shortcut(resample):
    """With init_scale 0 the residual branch is silent: the block is the shortcut / sqrt(2)."""
    x = normals(0, (2, 4, 4, 8))
    block = layers.ResBlock(8, resample, (1, 3, 3, 1))
    params = initial(block, x, None, False)
    y = block.apply({"params": params}, x, None, False)
    want = layers.RESAMPLERS[resample](x, (1, 3, 3, 1))
    if resample != "none":
        want = want @ params["shortcut"]["kernel"]
    np.testing.assert_allclose(y, want / np.sqrt(2), atol=1e-3)


def test_combine_puts_the_pyramid_first():
    pyramid, h = normals(0, (1, 4, 2)), normals(1, (1, 4, 3))
    params = initial(layers.Combine(), pyramid, h)
    affine = pyramid @ params["conv"]["kernel"]
    summed, stacked = (
        layers.Combine(method).apply({"params": params}, pyramid, h) for method in ("sum", "cat")
    )
    np.testing.assert_allclose(summed, affine + h, atol=1e-6)
    np.testing.assert_allclose(stacked, np.concatenate([affine, h], axis=-1), atol=1e-6)


@pytest.mark.parametrize("kernel", [None, (1, 3, 3, 1)])
@pytest.mark.parametrize("kind", [layers.Downsample, layers.Upsample])
def test_resampling_with_a_one_point_convolution_is_resampling(kind, kernel):
    """Where the convolution only copies, the layer is its filter."""
    x = normals(0, (1, 8, 8, 3))
    module = kind(3, kernel)
    copy = np.zeros((3, 3, 3, 3), np.float32)
    copy[1, 1] = np.eye(3)
    y = module.apply({"params": {"conv": {"kernel": copy, "bias": np.zeros(3, np.float32)}}}, x)
    if kind is layers.Upsample:
        want = layers.upsample(x, kernel or (1, 1))
    elif kernel is None:
        want = x[:, 1::2, 1::2]
    else:
        want = layers.smooth(x, kernel, margin=1)[:, 1::2, 1::2]
    np.testing.assert_allclose(y, want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "below", "above"),
    [
        ("swish", -1 / (1 + np.e), 1 / (1 + np.exp(-1))),
        ("elu", np.expm1(-1), 1.0),
        ("relu", 0.0, 1.0),
        ("lrelu", -0.2, 1.0),
    ],
)
def test_activations_at_minus_one_and_one(name, below, above):
    np.testing.assert_allclose(layers.ACTIVATIONS[name](jnp.array([-1.0, 1.0])), [below, above], rtol=1e-6)

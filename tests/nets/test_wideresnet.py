"""The classifier against Flax's own layers, which also say what its released parameters are called."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import CLASSIFIERS, Net, parameter_count
from score_sde.nets.official import from_flax_names, to_flax_names
from tests.nets.test_layers import normals
from tests.nets.test_ncsnpp import FAST, apply, arbitrary

TINY = {"num_classes": 3, "blocks": 2, "widen": 1}


def norm(x, name):
    return nn.relu(nn.GroupNorm(min(x.shape[-1] // 4, 32), epsilon=1e-5, name=name)(x))


def conv(features, stride, name):
    return nn.Conv(features, (3, 3), stride, use_bias=False, name=name)


class GaussianFourierProjection(nn.Module):
    @nn.compact
    def __call__(self, level):
        angle = 2 * np.pi * level[:, None] * self.param("W", nn.initializers.normal(16.0), (128,))[None]
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class WideResnetBlock(nn.Module):
    """Zagoruyko and Komodakis 2016, figure 1 (d), without dropout and with a noise level."""

    features: int
    stride: int
    first: bool

    @nn.compact
    def __call__(self, x, time):
        h = norm(x, "init_bn")
        x = h if self.first else x
        h = conv(self.features, self.stride, "conv1")(h)
        h = h + nn.Dense(self.features)(nn.swish(time))[:, None, None]
        h = conv(self.features, 1, "conv2")(norm(h, "bn_2"))
        if h.shape != x.shape:
            x = nn.avg_pool(x, (self.stride,) * 2, (self.stride,) * 2)
        return h + jnp.pad(x, [(0, 0)] * 3 + [(0, h.shape[-1] - x.shape[-1])])


class WideResnetGroup(nn.Module):
    features: int
    stride: int
    first: bool
    blocks: int

    @nn.compact
    def __call__(self, x, time):
        for i in range(self.blocks):
            x = WideResnetBlock(self.features, self.stride if i == 0 else 1, self.first and i == 0)(x, time)
        return x


class WideResnet(nn.Module):
    """In the words of Flax, so that it names its parameters as the released code does."""

    @nn.compact
    def __call__(self, x, level, blocks, widen, classes):
        time = GaussianFourierProjection()(level)
        time = nn.Dense(512)(time)
        time = nn.Dense(512)(nn.swish(time))
        x = conv(16, 1, "init_conv")(x)
        for group, stride in enumerate((1, 2, 2)):
            x = WideResnetGroup(16 * 2**group * widen, stride, group == 0, blocks)(x, time)
        return nn.Dense(classes)(norm(x, "pre-pool-bn").mean((1, 2)))


def test_output_and_names():
    net = Net(CLASSIFIERS["wideresnet"](**TINY))
    x, level = normals(0, (2, 8, 8, 3)), jnp.array([-2.0, 1.0])
    mean, std = np.array(net.module.mean), np.array(net.module.std)
    clean = (np.asarray(x, np.float64) - mean) / std
    clean = clean - clean.mean((1, 2, 3), keepdims=True)
    clean = (clean / clean.std((1, 2, 3), keepdims=True)).astype(np.float32)
    params = arbitrary(net, (8, 8, 3))
    theirs = to_flax_names(params, net, (8, 8, 3))
    run = functools.partial(WideResnet().apply, blocks=2, widen=1, classes=3)
    arguments = ({"params": theirs}, clean, level)
    want = jax.jit(run).lower(*arguments).compile(FAST)(*arguments)
    assert np.abs(want[0] - want[1]).max() > 0.1
    np.testing.assert_allclose(apply(net, params, x, level), want, atol=2e-5)
    jax.tree.map(np.testing.assert_array_equal, from_flax_names(theirs, net, (8, 8, 3)), params)


def test_size_of_the_released_classifier():
    """WRN-28-10: its convolutions and biasless shortcuts, and what the noise level adds."""
    shapes = Net(CLASSIFIERS["wideresnet"]()).shapes((32, 32, 3))
    widths = [16, *[160] * 4, *[320] * 4, *[640] * 4]
    blocks = sum(9 * i * o + 9 * o * o + 2 * i + 2 * o + 512 * o + o for i, o in itertools.pairwise(widths))
    time = 128 + 256 * 512 + 512 + 512 * 512 + 512
    assert parameter_count(shapes) == 27 * 16 + blocks + 2 * 640 + 640 * 10 + 10 + time


def test_brightness_and_contrast_do_not_matter_where_channels_are_alike():
    net = Net(CLASSIFIERS["wideresnet"](**TINY, mean=(0.5,), std=(0.2,)))
    params = arbitrary(net, (8, 8, 3))
    x, level = normals(1, (2, 8, 8, 3)), jnp.zeros(2)
    np.testing.assert_allclose(apply(net, params, 3 * x - 1, level), apply(net, params, x, level), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"std": (0.0,)}, (8, 8, 3), r"std=\(0.0,\): must be positive"),
        ({}, (8, 8, 1), r"mean=\(0.49.*\): must be one number or 1"),
        ({}, (8, 6, 3), "divisible by 4"),
        ({"blocks": 0}, (8, 8, 3), "blocks=0: must be at least 1"),
    ],
)
def test_fields_are_checked(options, shape, message):
    with pytest.raises(ValueError, match=message):
        Net(CLASSIFIERS["wideresnet"](**(TINY | options))).shapes(shape)

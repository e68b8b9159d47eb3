"""Laws of codecs and of pixels: exact round trips, the volume it reports, uniform noise, fair mirrors."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.codecs import Pixels, picture_values
from score_sde.data import random_flip
from score_sde.data.base import Spec

RANGES = [(-1.0, 1.0), (0.0, 1.0), (-0.5, 2.5)]
LEVELS = [2, 3, 17, 100, 255, 256]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_every_level_comes_back(levels, low, high, dequantize, transform):
    scaling = Pixels(grey_levels=levels, low=low, high=high, dequantize=dequantize)
    raw = np.broadcast_to(np.arange(levels, dtype=np.uint8)[:, None], (levels, 2000))
    x = transform(scaling.encode)({}, raw, jax.random.key(0))
    assert x.dtype == jnp.float32
    assert low - 1e-6 < x.min() and x.max() < high + 1e-6
    back = transform(scaling.decode)({}, x)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, raw)


@pytest.mark.parametrize("levels", [17, 256])
def test_extreme_noise_comes_back(levels, monkeypatch):
    # Random draws may miss the cells next to a border, where rounding would hurt.
    raw = np.arange(levels, dtype=np.uint8)
    for bits in (0, 2**16 - 1):
        monkeypatch.setattr(jax.random, "bits", lambda _, shape, kind, bits=bits: jnp.full(shape, bits, kind))
        for low, high in RANGES:
            scaling = Pixels(grey_levels=levels, low=low, high=high, dequantize=True)
            np.testing.assert_array_equal(scaling.decode({}, scaling.encode({}, raw, 0)), raw)


def test_end_points():
    scaling = Pixels(grey_levels=256)
    np.testing.assert_array_equal(scaling.encode({}, np.array([0, 255], np.uint8)), [-1.0, 1.0])


def test_decode_rounds_and_clips_rather_than_truncating():
    scaling = Pixels(grey_levels=256, low=0.0, high=1.0)
    x = np.array([-0.2, 99.4 / 255, 99.6 / 255, 1.3], np.float32)
    np.testing.assert_array_equal(scaling.decode({}, x), [0, 99, 100, 255])


@pytest.mark.parametrize(("levels", "picture"), [(256, [0, 1, 255]), (17, [0, 16, 255])])
def test_pictures_use_the_whole_range(levels, picture):
    scaling = Pixels(grey_levels=levels)
    x = scaling.encode({}, np.array([0, 1, levels - 1], np.uint8))
    np.testing.assert_array_equal(picture_values(scaling.decode({}, x), levels), picture)


def test_dequantised_data_are_uniform_within_a_level():
    scaling = Pixels(grey_levels=256, low=0.0, high=256.0, dequantize=True)
    raw = np.full((400_000,), 37, np.uint8)
    noise = np.asarray(scaling.encode({}, raw, jax.random.key(1)), np.float64) - 37
    standard_error = 1 / math.sqrt(len(raw))
    for power in (1, 2, 3, 4):
        assert abs(np.mean(noise**power) - 1 / (power + 1)) < 5 * standard_error * 0.3
    count = np.histogram(noise, 64, (0, 1))[0]
    expected = len(raw) / 64
    assert np.sum((count - expected) ** 2 / expected) < 115  # 63 degrees of freedom, 99.99 %


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("levels", [17, 256])
def test_log_volume_is_the_slope_of_encode(levels, low, high):
    scaling = Pixels(grey_levels=levels, low=low, high=high, dequantize=True)
    key = jax.random.key(0)
    raw = np.full((50,), 3, np.uint8)
    rise = scaling.encode({}, raw + np.uint8(10), key) - scaling.encode({}, raw, key)
    np.testing.assert_allclose(np.log(rise / 10), scaling.log_volume(), atol=1e-5)


def test_continuous_data():
    scaling = Pixels(grey_levels=None, shift=3.0, scale=2.5)
    raw = np.random.default_rng(0).normal(3, 2.5, (100, 7)).astype(np.float32)
    x = scaling.encode({}, raw)
    np.testing.assert_allclose(x, (raw - 3) / 2.5, rtol=1e-6)
    np.testing.assert_allclose(scaling.decode({}, x), raw, rtol=1e-6, atol=1e-6)
    slope = (scaling.encode({}, raw + 1) - scaling.encode({}, raw - 1)) / 2
    np.testing.assert_allclose(np.log(slope), scaling.log_volume(), atol=1e-5)


def test_dequantisation_does_not_depend_on_the_devices():
    devices = jax.devices()
    raw = np.full((16, 4), 9, np.uint8)
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    encode = jax.jit(Pixels(grey_levels=256, dequantize=True).encode)
    key = jax.random.key(5)
    np.testing.assert_array_equal(encode({}, jax.device_put(raw, split), key), encode({}, raw, key))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grey_levels": 1}, "data.source.grey_levels = 1"),
        ({"grey_levels": 2**16 + 1}, "data.source.grey_levels = 65537"),
        ({"grey_levels": 256, "low": 1.0, "high": 1.0}, "codec.low = 1.0"),
        ({"grey_levels": 256, "scale": 2.0}, "codec.scale = 2.0"),
        ({"grey_levels": None, "scale": 0.0}, "codec.scale = 0.0"),
        ({"grey_levels": None, "dequantize": True}, "codec.dequantize = True"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        Pixels(**options)


def test_refuses_inputs():
    raw = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="needs a key"):
        Pixels(grey_levels=256, dequantize=True).encode({}, raw)
    with pytest.raises(ValueError, match="already encoded"):
        Pixels(grey_levels=256).encode({}, raw.astype(np.float32))
    with pytest.raises(ValueError, match="data.random_flip"):
        random_flip(jnp.zeros((2, 3, 1)), jax.random.key(0))


def test_flips_mirror_about_half_of_the_images():
    x = jax.random.randint(jax.random.key(0), (1000, 3, 4, 2), 0, 255).astype(jnp.uint8)
    flipped = jax.jit(random_flip)(x, jax.random.key(1))
    same = np.all(flipped == x, axis=(1, 2, 3))
    mirrored = np.all(flipped == x[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert abs(mirrored.sum() - 500) < 5 * math.sqrt(250)
    assert flipped.dtype == x.dtype


class Normal:
    spec = Spec((3,), grey_levels=None)

    def __init__(self, deviation):
        self.deviation = deviation

    def __len__(self):
        return 5000

    def read(self, indices):
        x = np.random.default_rng(0).normal(7, self.deviation, (len(indices), 3))
        return {"x": x.astype(np.float32)}


def test_warns_of_unscaled_data():
    for deviation in (0.01, 40.0):
        with pytest.warns(UserWarning, match="codec.scale = 1.*try codec.scale"):
            Pixels(grey_levels=None).examine(Normal(deviation))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pixels(grey_levels=None).examine(Normal(1.0))
        Pixels(grey_levels=None, scale=40.0).examine(Normal(40.0))

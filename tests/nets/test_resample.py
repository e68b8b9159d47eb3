"""Filters: the released code's numbers, and laws for every spatial rank."""

from functools import reduce
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets.resample import BOX, downsample, smooth, upsample

RECORDED = np.load(Path(__file__).parents[1] / "data/nets/fir_ops.npz")
KERNELS = {"k1331": (1, 3, 3, 1), "k11": (1, 1), "knone": BOX, "k121": (1, 2, 1)}
EVEN = [(1, 3, 3, 1), BOX, (1, 5, 10, 10, 5, 1)]
SHAPES = [(2, 8, 3), (2, 4, 6, 3), (1, 4, 2, 6, 2)]


def normals(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


OPERATIONS = {
    "upsample_2d": upsample,
    "downsample_2d": downsample,
    "upsample_conv_2d": lambda x, k: conv(upsample(x, k, margin=1), RECORDED["w_hwio"], 1),
    "conv_downsample_2d": lambda x, k: conv(smooth(x, k, margin=1), RECORDED["w_hwio"], 2),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_matches_released_code(name, kernel):
    ours = OPERATIONS[name](RECORDED["x_nhwc"], KERNELS[kernel])
    np.testing.assert_allclose(ours, RECORDED[f"{name}|{kernel}"], atol=1e-5)


def test_box_is_the_naive_pair():
    x = RECORDED["x_nhwc"]
    np.testing.assert_array_equal(upsample(x), RECORDED["naive_upsample_2d"])
    np.testing.assert_allclose(downsample(x), RECORDED["naive_downsample_2d"], atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", EVEN)
def test_up_is_adjoint_to_down(shape, kernel):
    """<up(x), y> = 2^rank <x, down(y)> for symmetric kernels with an even number of taps."""
    rank = len(shape) - 2
    x = normals(0, shape)
    y = normals(1, shape[:1] + tuple(2 * size for size in shape[1:-1]) + shape[-1:])
    left = np.vdot(upsample(x, kernel), y)
    right = 2**rank * np.vdot(x, downsample(y, kernel))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("apply", [upsample, downsample, smooth])
def test_filters_are_separable(apply, rank):
    """The filter of an outer product is the outer product of the filtered factors."""
    rows = [normals(seed, (1, 6, 1)) for seed in range(rank)]
    grid = reduce(np.multiply.outer, [row[0, :, 0] for row in rows])
    filtered = [np.asarray(apply(row, (1, 3, 3, 1)))[0, :, 0] for row in rows]
    want = reduce(np.multiply.outer, filtered)
    got = np.asarray(apply(grid[None, ..., None], (1, 3, 3, 1)))[0, ..., 0]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("kernel", EVEN)
@pytest.mark.parametrize("apply", [upsample, downsample])
def test_mirror_image(apply, kernel):
    x = normals(2, (2, 8, 3))
    np.testing.assert_allclose(apply(x[:, ::-1], kernel), apply(x, kernel)[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("apply", [upsample, downsample])
def test_constant_survives_away_from_the_border(apply):
    y = np.asarray(apply(np.ones((1, 8, 8, 1), np.float32), (1, 3, 3, 1)))
    np.testing.assert_allclose(y[0, 1:-1, 1:-1], 1.0, atol=1e-6)
    assert y[0, 0, 0, 0] < 0.8  # zeros beyond the border darken the corner, as released


def test_lopsided_kernel_is_convolved():
    """The response to an impulse is the kernel itself, not its mirror image (StyleGAN2)."""
    kernel = np.array([1.0, 2.0, 3.0, 4.0])
    impulse = np.zeros((1, 9, 1), np.float32)
    impulse[0, 4] = 1
    response = np.asarray(smooth(impulse, kernel))[0, :, 0]
    np.testing.assert_allclose(response[2:6], kernel / 10, atol=1e-6)
    response = np.asarray(upsample(impulse, kernel))[0, :, 0]
    np.testing.assert_allclose(response[response != 0], kernel / 5, atol=1e-6)


def test_margin_extends_without_changing_the_interior():
    x, kernel = normals(3, (2, 5, 3)), (1, 3, 3, 1)
    wide = upsample(x, kernel, margin=1)
    assert wide.shape == (2, 12, 3)
    np.testing.assert_array_equal(wide[:, 1:-1], upsample(x, kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_second_smoothed_value_is_the_downsampled(kernel):
    x = normals(4, (2, 8, 3))
    kept = smooth(x, KERNELS[kernel])[:, ::2]
    np.testing.assert_allclose(kept, downsample(x, KERNELS[kernel]), atol=1e-6)


@pytest.mark.parametrize("kernel", [(1,), (), (1, -1)])
@pytest.mark.parametrize("apply", [upsample, downsample])
def test_bad_kernel(apply, kernel):
    with pytest.raises(ValueError, match=r"fir_kernel=.*two or more taps with a nonzero sum"):
        apply(jnp.ones((1, 4, 1)), kernel)

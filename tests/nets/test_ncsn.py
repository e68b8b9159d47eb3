"""Laws of the RefineNets and their layers; outputs are compared in test_official.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import NETS, Net
from score_sde.nets.unets import refinenet
from score_sde.nets.unets.ncsn import NCSN, NCSNv2
from tests.nets.test_layers import initial, normals
from tests.nets.test_ncsnpp import FAST, apply, arbitrary, lifted

TINY = {"nf": 4, "ch_mult": (1, 2, 2), "dilations": (1, 1, 2), "refine_mult": (1, 1, 2)}

POOLS = (refinenet.max_pool, refinenet.mean_pool)


def tiny(kind=NCSNv2, **changes):
    return Net(kind(**(TINY | changes)))


@pytest.mark.parametrize(("ours", "theirs"), [("half_pixel", "bilinear"), ("nearest", "nearest")])
@pytest.mark.parametrize("sizes", [(8, 8), (10, 15), (4, 5)])
def test_resize_is_that_of_jax(ours, theirs, sizes):
    x = normals(0, (2, 4, 5, 3))
    want = jax.image.resize(x, (2, *sizes, 3), theirs)
    np.testing.assert_allclose(refinenet.resize(x, sizes, ours), want, atol=1e-6)


def test_aligned_corners_are_linear_interpolation_between_the_ends():
    x = normals(1, (1, 5, 2))
    y = refinenet.resize(x, (11,), "align_corners")[0]
    where = np.linspace(0, 4, 11)
    want = np.stack([np.interp(where, np.arange(5), x[0, :, c]) for c in (0, 1)], -1)
    np.testing.assert_allclose(y, want, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 6, 3), (1, 9, 2)])
def test_pools_are_those_of_flax(shape):
    x = normals(2, shape)
    window = (5,) * (len(shape) - 2)
    np.testing.assert_allclose(refinenet.max_pool(x), nn.max_pool(x, window, padding="SAME"))
    mean = nn.avg_pool(x, window, padding="SAME")
    np.testing.assert_allclose(refinenet.mean_pool(x), mean, atol=1e-6)


def test_pools_have_gradients():
    """The maximum's goes to the largest of the neighbours, the mean's to all of them."""
    x = jnp.array([0.0, 3.0, 1.0, 2.0, -1.0]).reshape(1, 5, 1)
    top, mean = (jax.jit(jax.grad(lambda x, p=p: p(x)[0, 2, 0]))(x) for p in POOLS)
    np.testing.assert_allclose(top[0, :, 0], [0, 1, 0, 0, 0])
    np.testing.assert_allclose(mean[0, :, 0], [0.2] * 5)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_convolution_is_that_of_flax(width, dilation):
    x = normals(3, (2, 8, 6, 3))
    ours = refinenet.Conv(5, width, dilation)
    params = initial(ours, x)
    theirs = nn.Conv(5, (width, width), padding="SAME", kernel_dilation=dilation)
    want = theirs.apply({"params": params}, x)
    np.testing.assert_allclose(ours.apply({"params": params}, x), want, atol=1e-5)
    bound = 1 / np.sqrt(width**2 * 3)
    for leaf in params.values():
        assert 0.5 * bound < np.abs(leaf).max() <= bound


@pytest.mark.parametrize("unbiased", [True, False])
def test_instance_norm_plus(unbiased):
    """Unit variance about alpha times the standardised means, per example and channel."""
    x = 2 + 3 * normals(4, (2, 6, 5, 4)) + 10 * normals(5, (2, 1, 1, 4))
    norm = refinenet.InstanceNormPlus(unbiased=unbiased)
    params = {"alpha": jnp.arange(4.0), "gamma": 1 + jnp.arange(4.0), "beta": -jnp.arange(4.0)}
    y = np.asarray(norm.apply({"params": params}, x, jnp.zeros(2, jnp.int32)))
    means = np.asarray(x).mean((1, 2))
    again = (means - means.mean(1, keepdims=True)) / means.std(1, ddof=int(unbiased), keepdims=True)
    k = np.arange(4)
    np.testing.assert_allclose(y.mean((1, 2)), (1 + k) * k * again - k, atol=1e-4)
    np.testing.assert_allclose(y.std((1, 2)), np.broadcast_to(1 + k, (2, 4)), atol=1e-4)


def test_levels_choose_rows_and_wrong_ones_show():
    x = normals(6, (4, 3, 3, 2))
    norm = refinenet.InstanceNormPlus(levels=3)
    level = jnp.array([2, 0, 3, -1])
    params = jax.tree.map(lambda leaf: leaf + normals(7, leaf.shape), initial(norm, x, level))
    assert {name: leaf.shape for name, leaf in params.items()} == dict.fromkeys(
        ("alpha", "gamma", "beta"), (3, 2)
    )
    y = norm.apply({"params": params}, x, level)
    for i in (0, 1):
        row = jax.tree.map(lambda leaf, i=i: leaf[level[i]], params)
        alone = refinenet.InstanceNormPlus().apply({"params": row}, x[i : i + 1], level[:1])
        np.testing.assert_allclose(y[i : i + 1], alone, atol=1e-6)
    assert np.all(np.isnan(y[2:]))


def test_initial_values_are_near_the_identity():
    params = initial(refinenet.InstanceNormPlus(levels=400), jnp.zeros((1, 2, 2, 9)), jnp.zeros(1, int))
    for name, mean, std in (("alpha", 1.0, 0.02), ("gamma", 1.0, 0.02), ("beta", 0.0, 0.0)):
        np.testing.assert_allclose(params[name].mean(), mean, atol=0.002)
        np.testing.assert_allclose(params[name].std(), std, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_one_axis_is_two_axes_with_nothing_along_the_second(kind):
    """The same weights on a signal and on an image that repeats it; mean pools see the border."""
    net = tiny(kind)
    line = normals(8, (2, 8, 3))
    params = arbitrary(net, (8, 3))
    if kind is NCSN:  # zeros beyond the border are counted in, which a repeated image does not have
        for i in range(3):
            for conv in ("conv_0", "conv_1"):
                params[f"refine_{i}"]["pool"][conv]["kernel"][:] = 0.0
    image = jnp.broadcast_to(line[:, :, None], (2, 8, 4, 3))
    c_noise = jnp.array([1.0, 9.0])
    widened = jax.tree.map(lambda k: k[:, None] if k.ndim == 3 and k.shape[0] == 1 else lifted(k), params)
    want = apply(net, params, line, c_noise)
    got = apply(net, widened, image, c_noise)
    np.testing.assert_allclose(got, np.broadcast_to(want[:, :, None], got.shape), atol=2e-5)


@pytest.mark.slow
def test_only_the_first_sees_the_noise_level():
    x = normals(9, (1, 8, 8, 2)).repeat(2, 0)
    for kind in (NCSN, NCSNv2):
        net = tiny(kind)
        y = apply(net, arbitrary(net, (8, 8, 2)), x, jnp.array([0.0, 3.0]))
        assert (np.abs(y[0] - y[1]).max() > 1e-3) == (kind is NCSN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_every_parameter_receives_a_gradient(kind):
    """In bfloat16, whose output stays close; a row of a level that is not there receives none."""
    params = arbitrary(tiny(kind), (4, 4, 2))
    x, c_noise = normals(10, (2, 4, 4, 2)), jnp.array([0.0, 7.0])
    half = tiny(kind, dtype="bfloat16")

    def loss(params):
        y = half(params, x, c_noise)
        return jnp.mean(y**2), y

    run = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(FAST)
    gradient, y = run(params)
    want = apply(tiny(kind), params, x, c_noise)
    assert 0 < np.abs(y - want).max() < 0.1 * np.abs(want).max()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        seen = np.any(leaf.reshape(leaf.shape[0], -1), axis=1) if leaf.ndim == 2 else np.any(leaf)
        rows = np.isin(np.arange(10), [0, 7]) if leaf.ndim == 2 else True
        np.testing.assert_array_equal(seen, rows, jax.tree_util.keystr(path))


def test_resolutions_of_the_published_sizes():
    """Dilated levels keep the resolution: a quarter of the sizes below has none to spare."""
    for name, divisor in (("ncsn", 2), ("ncsnv2_64", 2), ("ncsnv2_128", 4), ("ncsnv2_256", 8)):
        net = Net(NETS[name](nf=4))
        net.shapes((divisor, divisor, 3))
        with pytest.raises(ValueError, match=f"divisible by {divisor}"):
            net.shapes((divisor // 2, divisor, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, r"interpolation='cubic': must be one of \('align_corners', "),
        ({"nonlinearity": "gelu"}, "nonlinearity='gelu': must be one of"),
        ({"nf": 1}, "nf=1: must be at least 2"),
        ({"dilations": (1, 1)}, r"dilations=\(1, 1\): must be of length 3, as ch_mult is"),
        ({"dilations": (1, 1, 0)}, r"dilations=\(1, 1, 0\): must be one or more positive"),
        ({"refine_mult": (1, 1, 1)}, r"refine_mult=\(1, 1, 1\): must be 2 at the last level"),
        ({"num_scales": 0}, "num_scales=0: must be at least 1"),
        ({"input_range": (0.0, float("inf"))}, "input_range=.*low < high"),
    ],
)
def test_fields_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(NCSN, **options).shapes((8, 8, 2))


def test_a_condition_is_refused():
    with pytest.raises(ValueError, match="cond label: must be left out: the network takes no condition"):
        tiny()({}, jnp.zeros((2, 8, 8, 2)), 0.0, {"label": jnp.zeros(2, jnp.int32)})

"""Laws of the whole network and of the seam around it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import Net, check_spec, parameter_count
from score_sde.nets.unets.ncsnpp import NCSNpp
from tests.conditioned import conditions

TINY = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "init_scale": 1.0}
KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}  # each program runs once: compile it cheaply


def tiny(**changes):
    return Net(NCSNpp(**(TINY | changes)))


def normals(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def arbitrary(net, shape):
    """Parameters of ordinary size, none of them trivial; NumPy, hence nothing to compile."""
    shapes = jax.eval_shape(lambda: net.init(KEY, shape))
    rng = np.random.default_rng(0)

    def values(path, leaf):
        name = path[-1].key
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 100
        draw = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return (draw + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(values, shapes)


@partial(jax.jit, static_argnums=0, compiler_options=FAST)
def call(net, params, x, c_noise, cond, key):
    return net(params, x, c_noise, cond, key=key)


def apply(net, params, x, c_noise, cond={}, key=None):  # noqa: B006
    return np.asarray(call(net, params, x, c_noise, cond, key))


@pytest.fixture(scope="module")
def labelled():
    net = tiny(conditions=conditions(3), dropout=0.3)
    return net, arbitrary(net, (8, 8, 2))


def lifted(leaf):
    """A kernel for one axis as a kernel for two that looks straight along the second."""
    if leaf.ndim != 3:
        return leaf
    return jnp.zeros((3, 3, *leaf.shape[1:])).at[:, 1].set(leaf)


def test_shapes_and_values_of_parameters_come_from_one_trace():
    net, calls = tiny(nf=12), []  # a width that no other test has asked for

    def watch(call, args, kwargs, context):
        calls.append(not context.module.path and context.method_name == "__call__")
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        params = net.init(KEY, (8, 8, 3))
        shapes = net.shapes((8, 8, 3))
        jax.eval_shape(lambda: net.init(KEY, (8, 8, 3)))
        assert sum(calls) == 1
        net.shapes((4, 4, 3))
        assert sum(calls) == 2
    check_spec(params, shapes)
    shapes.clear()  # is the caller's own
    check_spec(params, net.shapes((8, 8, 3)))


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"resblock_type": "ddpm"}, marks=pytest.mark.slow)],
    ids=["biggan", "ddpm"],
)
def test_one_axis_is_two_axes_with_nothing_along_the_second(options):
    """The same weights on a signal and on an image that repeats it."""
    net = tiny(**options)
    line = normals(1, (2, 8, 3))
    params = arbitrary(net, (8, 3))
    image = jnp.broadcast_to(line[:, :, None], (2, 8, 4, 3))
    c_noise = jnp.array([1.0, 500.0])
    want = apply(net, params, line, c_noise)
    got = apply(net, jax.tree.map(lifted, params), image, c_noise)
    np.testing.assert_allclose(got, np.broadcast_to(want[:, :, None], got.shape), atol=2e-5)


def test_transposed_kernels_on_a_transposed_image():
    """Non-square images, filters and pyramids treat both axes alike."""
    net = tiny(fir=True, progressive_input="residual", progressive="residual", attn_resolutions=())
    params = arbitrary(net, (8, 16, 1))
    x, c_noise = normals(2, (2, 8, 16, 1)), jnp.array([1.0, 500.0])
    swapped = jax.tree.map(lambda k: k.swapaxes(0, 1) if k.ndim == 4 else k, params)
    got = apply(net, swapped, x.swapaxes(1, 2), c_noise)
    want = apply(net, params, x, c_noise)
    assert want.shape == x.shape
    np.testing.assert_allclose(got, want.swapaxes(1, 2), atol=2e-5)


@pytest.mark.slow
def test_three_axes():
    net = tiny(fir=True, ch_mult=(1, 1), attn_resolutions=())
    x = normals(3, (2, 4, 4, 2, 1))
    params = arbitrary(net, x.shape[1:])
    order = lambda a: jnp.moveaxis(a, (1, 2, 3), (2, 1, 3))  # noqa: E731
    swapped = jax.tree.map(lambda k: k.swapaxes(0, 1) if k.ndim == 5 else k, params)
    c_noise = jnp.zeros(2)
    want = order(apply(net, params, x, c_noise))
    np.testing.assert_allclose(apply(net, swapped, order(x), c_noise), want, atol=2e-5)


def test_examples_of_a_batch_do_not_meet(labelled):
    net, params = labelled
    x, c_noise, cond = normals(4, (2, 8, 8, 2)), jnp.array([10.0, 900.0]), jnp.array([0, 2])
    together = apply(net, params, x, c_noise, {"label": cond})
    alone = np.concatenate(
        [apply(net, params, x[i : i + 1], c_noise[i], {"label": cond[i : i + 1]}) for i in range(2)]
    )
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_labels(labelled):
    net, params = labelled
    x, c_noise = normals(5, (1, 8, 8, 2)).repeat(5, 0), jnp.full(5, 10.0)
    y = apply(net, params, x, c_noise, {"label": jnp.array([0, 1, 2, -1, -1])})
    np.testing.assert_allclose(y[3], y[4], atol=1e-5)
    np.testing.assert_allclose(y[3:], apply(net, params, x, c_noise)[3:], atol=1e-5)
    for i in range(4):
        for j in range(i):
            assert np.abs(y[i] - y[j]).max() > 1e-3


def test_dropout_acts_with_a_key_only(labelled):
    net, params = labelled
    x, c_noise = normals(6, (2, 8, 8, 2)), jnp.zeros(2)
    first, again, other = (apply(net, params, x, c_noise, key=jax.random.key(seed)) for seed in (1, 1, 2))
    without = apply(net, params, x, c_noise)
    np.testing.assert_array_equal(without, apply(net, params, x, c_noise))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    assert np.abs(first - without).max() > 1e-2


@pytest.mark.slow
def test_no_dropout_with_a_key_is_the_same_network(labelled):
    _, params = labelled
    net = tiny(conditions=conditions(3), dropout=0.0)
    x, c_noise = normals(6, (2, 8, 8, 2)), jnp.zeros(2)
    with_key = apply(net, params, x, c_noise, key=KEY)
    np.testing.assert_allclose(with_key, apply(net, params, x, c_noise), atol=1e-5)


def test_noise_level_matters_only_if_conditional():
    x = normals(7, (1, 8, 8, 2)).repeat(2, 0)
    for conditional in (True, False):
        net = tiny(noise_conditional=conditional)
        y = apply(net, arbitrary(net, (8, 8, 2)), x, jnp.array([0.0, 500.0]))
        assert (np.abs(y[0] - y[1]).max() > 1e-3) == conditional


def test_input_range_is_an_affine_change_of_data(labelled):
    _, params = labelled
    x, c_noise = normals(8, (2, 8, 8, 2)), jnp.zeros(2)
    unit = apply(tiny(conditions=conditions(3), input_range=(0.0, 1.0)), params, (x + 1) / 2, c_noise)
    np.testing.assert_allclose(unit, apply(tiny(conditions=conditions(3)), params, x, c_noise), atol=1e-4)


def test_bfloat16_is_close_and_leaves_parameters_alone(labelled):
    full, params = labelled
    half = tiny(conditions=conditions(3), dtype="bfloat16")
    check_spec(half.init(KEY, (8, 8, 2)), params)
    x, c_noise = normals(9, (2, 8, 8, 2)), jnp.array([1.0, 500.0])
    y, want = apply(half, params, x, c_noise), apply(full, params, x, c_noise)
    assert y.dtype == np.float32
    relative = np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2))
    # Some 30 layers in a row, each rounding input, kernel and output by up to 2^-9, give about
    # 2 percent; below the lower bound it would not have computed in bfloat16.
    assert 1e-4 < relative < 0.05


@pytest.mark.parametrize(
    "options",
    [
        {
            "embedding_type": "fourier",
            "fir": True,
            "progressive_input": "residual",
            "progressive": "residual",
        },
        {
            "resblock_type": "ddpm",
            "progressive_input": "input_skip",
            "progressive": "output_skip",
            "progressive_combine": "cat",
            "fir": True,
            "conditions": conditions(2),
        },
    ],
    ids=["ncsnpp", "ddpm"],
)
def test_every_parameter_receives_a_gradient(options):
    """All but the Fourier frequencies; the bias of the keys, too, cancels in the softmax."""
    net = tiny(**options)
    params = arbitrary(net, (4, 4, 1))
    x, c_noise = normals(10, (2, 4, 4, 1)), jnp.array([0.1, 0.7])
    cond = {"label": jnp.array([0, 1])} if net.conditions else {}

    def loss(params):
        return jnp.mean(net(params, x, c_noise, cond) ** 2)

    gradient = jax.jit(jax.grad(loss)).lower(params).compile(FAST)(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.endswith("key/bias"):
            assert np.any(leaf) == (name != "time_embedding/frequencies"), name


def test_starts_almost_silent():
    net = tiny(init_scale=0.0)
    y = apply(net, net.init(KEY, (8, 8, 2)), normals(11, (2, 8, 8, 2)), jnp.zeros(2))
    assert 0 < np.abs(y).max() < 1e-3


@pytest.mark.parametrize(("block", "shortcut"), [("biggan", 1.0), ("ddpm", 0.1)])
def test_initial_variances(block, shortcut):
    """The released scales: 0.1 for q, k, v and DDPM shortcuts, init_scale where branches end."""
    net = tiny(resblock_type=block, init_scale=0.01, progressive="residual")
    params = jax.jit(net.init, static_argnums=1)(KEY, (8, 8, 2))
    block = params["up_0_block_0"]
    scales = [
        (params["stem"], 1.0),
        (params["out_conv"], 0.01),
        (params["pyramid_up_1_conv"], 1.0),
        (block["conv_0"], 1.0),
        (block["conv_1"], 0.01),
        (block["time"], 1.0),
        (block["shortcut"], shortcut),
        (params["mid_attention"]["query"], 0.1),
        (params["mid_attention"]["value"], 0.1),
        (params["mid_attention"]["out"], 0.01),
    ]
    for layer, scale in scales:
        kernel = np.asarray(layer["kernel"])
        fan = np.prod(kernel.shape[:-2]) * sum(kernel.shape[-2:]) / 2
        np.testing.assert_allclose(kernel.var(), scale / fan, rtol=0.25)
        assert not np.any(layer["bias"])


def test_init_is_a_function_of_the_key():
    net = tiny()
    shape = (8, 8, 2)
    params = net.init(KEY, shape)
    jitted = jax.jit(net.init, static_argnums=1)(KEY, shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, jitted)
    check_spec(params, jax.eval_shape(lambda: net.init(KEY, shape)))
    other = net.init(jax.random.key(1), shape)
    assert np.abs(params["stem"]["kernel"] - other["stem"]["kernel"]).max() > 0.01
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert {type(node) for node in (params, params["stem"])} == {dict}


def test_net_is_a_static_value():
    assert tiny() == tiny()
    assert hash(tiny()) == hash(tiny())
    assert tiny() != tiny(nf=16)
    assert hash(tiny(ch_mult=[1, 2])) == hash(tiny())  # lists, as configurations have them


def test_names_are_readable():
    net = tiny(progressive="output_skip", progressive_input="residual", conditions=conditions(2))
    names = jax.eval_shape(lambda: net.init(KEY, (8, 8, 2)))
    assert set(names) == {
        "time_dense_0",
        "time_dense_1",
        "label",
        "stem",
        "down_0_block_0",
        "down_0_resample",
        "pyramid_down_0",
        "down_1_block_0",
        "down_1_attention_0",
        "mid_block_0",
        "mid_attention",
        "mid_block_1",
        "up_1_block_0",
        "up_1_block_1",
        "up_1_attention",
        "pyramid_up_1_norm",
        "pyramid_up_1_conv",
        "up_1_resample",
        "up_0_block_0",
        "up_0_block_1",
        "pyramid_up_0_norm",
        "pyramid_up_0_conv",
    }
    assert set(names["down_0_resample"]) == {"norm_0", "conv_0", "time", "norm_1", "conv_1", "shortcut"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resblock_type": "resnet"}, r"resblock_type='resnet': must be one of \('biggan', 'ddpm'"),
        ({"progressive": "skip"}, "progressive='skip': must be one of"),
        ({"progressive_input": "skip"}, "progressive_input='skip': must be one of"),
        ({"progressive_combine": "add"}, "progressive_combine='add': must be one of"),
        ({"embedding_type": "sine"}, "embedding_type='sine': must be one of"),
        ({"nonlinearity": "gelu"}, "nonlinearity='gelu': must be one of"),
        ({"dtype": "float16"}, "dtype='float16': must be one of"),
        ({"nf": 7}, "nf=7: must be even"),
        ({"ch_mult": ()}, r"ch_mult=\(\): must be one or more"),
        ({"num_res_blocks": 0}, "num_res_blocks=0: must be at least 1"),
        ({"dropout": 1.0}, r"dropout=1.0: must be in \[0, 1\)"),
        ({"fir": True, "fir_kernel": (1,)}, "fir_kernel=.*two or more taps"),
        ({"input_range": (1.0, 1.0)}, r"input_range=\(1.0, 1.0\): must be \(low, high\)"),
        (
            {"noise_conditional": False, "conditions": conditions(2)},
            "conditions=.*images only when noise_cond",
        ),
        ({"ch_mult": (1, 1, 1, 1, 1)}, r"x=\(1, 8, 8, 2\): .* divisible by 16"),
    ],
)
def test_fields_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options).init(KEY, (8, 8, 2))


@pytest.mark.parametrize(
    ("shape", "c_noise", "cond", "message"),
    [
        ((2, 8), (2,), {}, r"x=\(2, 8\): must be \(B, \*S, C\)"),
        ((2, 8, 7, 1), (2,), {}, r"spatial sizes divisible by 2"),
        ((2, 8, 8, 1), (3,), {}, r"c_noise=\(3,\): must be of shape \(2,\)"),
        ((2, 8, 8, 1), (2,), {"label": jnp.zeros(2, int)}, "cond label: .*: the network takes no condition"),
    ],
)
def test_shapes_are_checked(shape, c_noise, cond, message):
    with pytest.raises(ValueError, match=message):
        tiny()({}, jnp.zeros(shape), jnp.zeros(c_noise), cond)


def test_labels_need_one_per_example():
    with pytest.raises(ValueError, match=r"cond label has shape \(3,\): must be \(2,\)"):
        tiny(conditions=conditions(2))({}, jnp.zeros((2, 8, 8, 1)), 0.0, {"label": jnp.zeros(3, jnp.int32)})


def test_a_condition_that_the_network_cannot_use_is_refused():
    with pytest.raises(ValueError, match="cond augment: must be left out: the network takes"):
        tiny()({}, jnp.zeros((2, 8, 8, 1)), 0.0, {"augment": jnp.zeros((2, 9))})


def test_check_spec_shows_both_directions():
    want = {"a": {"kernel": np.zeros((2, 3), np.float32)}, "b": np.zeros(1, np.float32)}
    check_spec(want, jax.eval_shape(lambda: want))
    with pytest.raises(ValueError, match="3 parameters differ") as error:
        check_spec({"a": {"kernel": np.zeros((3, 2), np.float32)}, "c": np.zeros(1)}, want)
    assert str(error.value).splitlines() == [
        "3 parameters differ:",
        "  a/kernel: got float32[3, 2], want float32[2, 3]",
        "  b: got nothing, want float32[1]",
        "  c: got float64[1], want nothing",
    ]


def test_check_spec_shortens_long_lists():
    with pytest.raises(ValueError, match="12 parameters differ") as error:
        check_spec({}, {f"p{i}": np.zeros(1) for i in range(12)})
    assert len(str(error.value).splitlines()) == 12


def test_parameter_count():
    assert parameter_count({"a": np.zeros((2, 3)), "b": [np.zeros(()), np.zeros(4)]}) == 11

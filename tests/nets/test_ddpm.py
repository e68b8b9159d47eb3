"""Laws of the DDPM network; its output is compared in test_official.py and test_diffusers_names.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import Net, layers
from score_sde.nets.unets.ddpm import DDPM
from tests.nets.test_layers import initial, normals
from tests.nets.test_ncsnpp import FAST, apply, arbitrary

TINY = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "norm_num_groups": 4}
SHAPE = (8, 8, 2)


def tiny(**changes):
    return Net(DDPM(**(TINY | changes)))


def test_attention_after_every_block_or_once_per_level():
    level, block = (tiny(up_attention=choice).shapes(SHAPE) for choice in ("level", "block"))
    assert block.keys() - level.keys() == {"up_1_attention_0"}
    assert level.keys() < block.keys()


def test_attention_that_adds_nothing_is_no_attention():
    block, level = tiny(up_attention="block"), tiny()
    params = arbitrary(block, SHAPE)
    silent = params["up_1_attention_0"]
    silent["out"] = jax.tree.map(np.zeros_like, silent["out"])
    x, c_noise = normals(0, (2, *SHAPE)), jnp.array([1.0, 500.0])
    rest = {name: tree for name, tree in params.items() if name != "up_1_attention_0"}
    np.testing.assert_allclose(apply(block, params, x, c_noise), apply(level, rest, x, c_noise), atol=1e-5)


def test_unconditional_has_no_layer_for_the_noise_level():
    net = tiny(noise_conditional=False)
    params = arbitrary(net, SHAPE)
    assert not [name for name in params if name.startswith("time")]
    assert "time" not in params["mid_block_0"]
    y = apply(net, params, normals(1, (1, *SHAPE)).repeat(2, 0), jnp.array([0.0, 500.0]))
    np.testing.assert_allclose(y[0], y[1], atol=1e-6)


@pytest.mark.slow
def test_every_parameter_receives_a_gradient():
    """In bfloat16, whose output stays close; all but the bias of the keys, which cancels in the softmax."""
    options = {"up_attention": "block", "attention_head_dim": 4, "dropout": 0.0}
    params = arbitrary(tiny(**options), SHAPE)
    x, c_noise = normals(4, (2, *SHAPE)), jnp.array([1.0, 500.0])
    half = tiny(**options, dtype="bfloat16")

    def loss(params):
        y = half(params, x, c_noise)
        return jnp.mean(y**2), y

    gradient, y = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(FAST)(params)
    want = apply(tiny(**options), params, x, c_noise)
    assert 0 < np.abs(y - want).max() < 0.1 * np.abs(want).max()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.any(leaf) or name.endswith("key/bias"), name


def test_heads_see_their_channels_only():
    """Two heads are two attentions of half the width, side by side."""
    x = normals(2, (1, 5, 8))
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * normals(leaf.size, leaf.shape), initial(layers.Attention(1.0), x)
    )
    got = layers.Attention(1.0, skip_rescale=False, head_channels=4).apply({"params": params}, x)[0]
    h = layers.GroupNorm().apply({"params": params["norm"]}, x)[0]
    q, k, v = (h @ params[n]["kernel"] + params[n]["bias"][None] for n in ("query", "key", "value"))
    halves = [slice(0, 4), slice(4, 8)]
    mixed = [jax.nn.softmax(q[:, i] @ k[:, i].T / 2, axis=-1) @ v[:, i] for i in halves]
    want = jnp.concatenate(mixed, -1) @ params["out"]["kernel"] + params["out"]["bias"][None]
    np.testing.assert_allclose(got, x[0] + want, atol=1e-5)


def test_embeddings_of_the_two_traditions():
    c = jnp.array([3.0])
    k = np.arange(4)
    for shift in (0.0, 1.0):
        angle = 3.0 * 1e4 ** (-k / (4 - shift))
        want = np.concatenate([np.cos(angle), np.sin(angle)])[None]
        np.testing.assert_allclose(layers.positional_embedding(c, 8, shift, True), want, atol=1e-6)


@pytest.mark.parametrize(("padding", "first"), [((0, 1), 0), ((1, 1), -1)])
def test_strided_convolution_starts_where_its_padding_says(padding, first):
    """A kernel that copies its first tap shows where the window lies."""
    x = normals(3, (1, 8, 1))
    kernel = np.zeros((3, 1, 1), np.float32)
    kernel[0] = 1.0
    params = {"conv": {"kernel": kernel, "bias": np.zeros(1, np.float32)}}
    y = layers.Downsample(1, None, padding=padding).apply({"params": params}, x)[0, :, 0]
    padded = np.concatenate([[0.0], x[0, :, 0]])
    np.testing.assert_allclose(y, padded[np.arange(4) * 2 + 1 + first], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"up_attention": "none"}, r"up_attention='none': must be one of \('level', 'block'\)"),
        ({"downsample_padding": 2}, "downsample_padding=2: must be one of"),
        ({"nf": 7}, "nf=7: must be even"),
        ({"ch_mult": ()}, r"ch_mult=\(\): must be one or more"),
        ({"norm_num_groups": 3}, r"norm_num_groups=3: must be a divisor of the widths \[8, 16\]"),
        ({"attention_head_dim": 5}, r"attention_head_dim=5: must be 0, or a divisor"),
        ({"freq_shift": 4.0}, "freq_shift=4.0: must be less than nf / 2"),
        ({"dropout": 1.0}, r"dropout=1.0: must be in \[0, 1\)"),
        ({"input_range": (1.0, 0.0)}, r"input_range=\(1.0, 0.0\): must be \(low, high\)"),
        ({"ch_mult": (1,) * 5}, r"x=\(1, 8, 8, 2\): .* divisible by 16"),
    ],
)
def test_fields_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options).shapes(SHAPE)


def test_a_condition_is_refused():
    with pytest.raises(ValueError, match="cond label: must be left out: the network takes no condition"):
        tiny()({}, jnp.zeros((2, *SHAPE)), 0.0, {"label": jnp.zeros(2, jnp.int32)})

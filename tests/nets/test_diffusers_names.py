"""Networks of diffusers under our names (see tests/data/nets/README.md)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import NETS, Net, layers
from score_sde.nets.diffusers_names import from_diffusers_names, to_diffusers_names
from tests.nets.test_layers import normals
from tests.nets.test_ncsnpp import apply, arbitrary

RECORDED = np.load(Path(__file__).parents[1] / "data/nets/diffusers_ddpm.npz")
DDPM = Net(NETS["ddpm"](nf=16, norm_num_groups=8, up_attention="block"))
SHAPE = (32, 32, 3)
SMALL = {"nf": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,)}


@pytest.fixture(scope="module")
def tensors():
    """Weights to eight bits, each tensor in steps of its own."""
    shapes = [tuple(json.loads(shape)) for shape in RECORDED["shapes"]]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    values = np.split(RECORDED["values"], ends[:-1])
    rows = zip(RECORDED["names"], shapes, RECORDED["scales"], values, strict=True)
    return {str(name): (value * scale).reshape(shape) for name, shape, scale, value in rows}


def test_output_of_ddpm(tensors):
    """Rounding the weights moves the output by 2.5 %; the smallest wrong option moves it by 9 %."""
    params = from_diffusers_names(tensors, DDPM, SHAPE)
    y = apply(DDPM, params, np.moveaxis(RECORDED["x"], 1, -1), RECORDED["t"])
    for got, want in zip(np.moveaxis(y, -1, 1), RECORDED["out"], strict=True):
        assert np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)) < 0.04


def test_round_trip(tensors):
    back = to_diffusers_names(from_diffusers_names(tensors, DDPM, SHAPE), DDPM, SHAPE)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_names_of_early_files(tensors):
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    early = {}
    for name, array in tensors.items():
        for now, then in former.items():
            name = name.replace(f".{now}.", f".{then}.")
        early[name] = array
    assert early.keys() != tensors.keys()
    params = from_diffusers_names(early, DDPM, SHAPE)
    jax.tree.map(np.testing.assert_array_equal, params, from_diffusers_names(tensors, DDPM, SHAPE))


def test_names_of_ncsnpp():
    """The parts that DDPM does not have, at the size of google/ncsnpp-church-256."""
    net = Net(NETS["ncsnpp_diffusers"]())
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), net.shapes((256, 256, 3)))
    got = {name: array.shape for name, array in to_diffusers_names(params, net, (256, 256, 3)).items()}
    assert len(got) == 645  # as many as the PyTorch code of Song et al. has for this size
    wanted = {
        "time_proj.weight": (128,),
        "time_embedding.linear_1.weight": (512, 256),
        "down_blocks.0.skip_conv.weight": (128, 3, 1, 1),
        "down_blocks.1.resnet_down.conv_shortcut.weight": (128, 128, 1, 1),
        "down_blocks.2.resnets.0.conv_shortcut.weight": (256, 128, 1, 1),
        "down_blocks.4.attentions.1.to_out.0.weight": (256, 256),
        "up_blocks.0.skip_norm.weight": (256,),
        "up_blocks.0.skip_conv.weight": (3, 256, 3, 3),
        "up_blocks.2.attentions.0.group_norm.bias": (256,),
        "up_blocks.5.resnet_up.time_emb_proj.weight": (128, 512),
        "up_blocks.6.resnets.2.conv1.weight": (128, 256, 3, 3),
        "conv_norm_out.weight": (128,),
        "conv_out.weight": (3, 128, 3, 3),
    }
    assert {name: got.get(name) for name in wanted} == wanted
    assert not [name for name in got if name.startswith(("down_blocks.6.skip", "up_blocks.6.skip"))]


def test_ncsnpp_is_ours_where_groups_agree():
    """From 128 channels on, the numbers of groups of the two rules are the same everywhere."""
    options = {
        "ch_mult": (1, 1),
        "num_res_blocks": 1,
        "attn_resolutions": (2,),
        "fir": True,
        "progressive": "output_skip",
        "progressive_input": "input_skip",
        "embedding_type": "fourier",
    }
    theirs, ours = (Net(NETS[name](nf=128, **options)) for name in ("ncsnpp_diffusers", "ncsnpp"))
    params = arbitrary(ours, (4, 4, 1))
    x, c_noise = normals(0, (1, 4, 4, 1)), jnp.array([0.1])
    np.testing.assert_allclose(apply(theirs, params, x, c_noise), apply(ours, params, x, c_noise), atol=1e-5)
    rows = to_diffusers_names(params, ours, (4, 4, 1))
    jax.tree.map(np.testing.assert_array_equal, from_diffusers_names(rows, theirs, (4, 4, 1)), params)


def test_groups_of_small_ncsnpp(monkeypatch):
    """32 in the attention of levels and before that on the way up; a quarter of the channels elsewhere."""
    seen = {}
    call = layers.GroupNorm.__call__

    def watch(self, x):
        seen["/".join(self.path)] = (self.groups or min(x.shape[-1] // 4, 32), x.shape[-1])
        return call(self, x)

    monkeypatch.setattr(layers.GroupNorm, "__call__", watch)
    Net(NETS["ncsnpp_diffusers"](**SMALL)).shapes((8, 8, 3))
    wanted = {
        "down_0_block_0/norm_0": (8, 32),
        "down_1_attention_0/norm": (32, 64),
        "mid_block_0/norm_0": (16, 64),
        "mid_attention/norm": (16, 64),
        "up_1_block_0/norm_0": (32, 128),
        "up_1_block_0/norm_1": (16, 64),
        "up_1_attention/norm": (32, 64),
        "up_1_resample/norm_0": (16, 64),
        "up_0_block_1/norm_0": (16, 64),
        "pyramid_up_1_norm": (16, 64),
        "pyramid_up_0_norm": (8, 32),
    }
    assert {name: seen[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NETS["ddpm"](), "up_attention='level': must be 'block', as in diffusers"),
        (NETS["ncsnpp"](), "fir=False: must be True, as in diffusers"),
        (NETS["ncsnpp_diffusers"](progressive="none"), "progressive='none': must be 'output_skip'"),
        (NETS["ncsnpp"](nf=32), "nf=32: below 128 channels use NCSNppDiffusers"),
        (NETS["ncsnv2_64"](), "NCSNv2: not a network that diffusers has"),
    ],
)
def test_refuses_networks_that_diffusers_does_not_have(net, message):
    with pytest.raises(ValueError, match=message):
        from_diffusers_names({}, Net(net), SHAPE)


def test_refuses_other_tensors(tensors):
    wrong = {name: array for name, array in tensors.items() if name != "conv_in.bias"}
    with pytest.raises(ValueError, match=r"conv_in.bias: got nothing, want \[16\]"):
        from_diffusers_names(wrong, DDPM, SHAPE)

"""Names of the networks of the library diffusers, ``UNet2DModel``, in terms of ours."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from score_sde.arrays import HostParams, Params
from score_sde.nets import Net
from score_sde.nets.official.rows import Row, flatten, read, write
from score_sde.nets.unets.ddpm import DDPM
from score_sde.nets.unets.ncsnpp import NCSNpp
from score_sde.nets.unets.ncsnpp_diffusers import NCSNppDiffusers

TOPS = {
    "time_embedding": "time_proj",
    "time_dense_0": "time_embedding.linear_1",
    "time_dense_1": "time_embedding.linear_2",
    "label": "class_embedding",
    "stem": "conv_in",
    "mid_block_0": "mid_block.resnets.0",
    "mid_attention": "mid_block.attentions.0",
    "mid_block_1": "mid_block.resnets.1",
    "out_norm": "conv_norm_out",
    "out_conv": "conv_out",
    "pyramid_up_0_norm": "conv_norm_out",
    "pyramid_up_0_conv": "conv_out",
}
# Ours with the level L; theirs behind ``down_blocks.<n>`` or ``up_blocks.<n>``, both counted from the start.
LEVELS = {
    "down_L_block_": "resnets.",
    "down_L_attention_": "attentions.",
    "down_L_resample": "resnet_down",
    "down_L": "downsamplers.0",
    "pyramid_down_L": "skip_conv",
    "up_L_block_": "resnets.",
    "up_L_attention_": "attentions.",
    "up_L_attention": "attentions.0",
    "up_L_resample": "resnet_up",
    "up_L": "upsamplers.0",
    "pyramid_up_L_norm": "skip_norm",
    "pyramid_up_L_conv": "skip_conv",
}
CHILDREN = {
    "norm_0": "norm1",
    "conv_0": "conv1",
    "time": "time_emb_proj",
    "norm_1": "norm2",
    "conv_1": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out.0",
    "conv": "conv",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "frequencies": "weight"}
# Names of files written before 2023.
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def from_diffusers_names(
    state_dict: Mapping[str, np.ndarray], net: Net, shape: tuple[int, ...]
) -> HostParams:
    """Parameters from the arrays of a ``UNet2DModel``.

    Args:
      state_dict: name to array, from a present or an early file.
      net: around ``DDPM(up_attention="block")`` for ``DownBlock2D``, ``AttnDownBlock2D`` and their
        counterparts; around ``NCSNppDiffusers``, or ``NCSNpp`` with the same options and 128
        channels or more, for ``SkipDownBlock2D``, ``AttnSkipDownBlock2D`` and their counterparts.
      shape: of one example, ``(*S, C)``; it decides where attention is.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: a network that is none of theirs; or the arrays are not exactly those of ``net``:
        shows the first that differs, with both shapes.
    """
    return read(_rows(net, shape), _present(state_dict))


def to_diffusers_names(
    params: Params | HostParams, net: Net, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """The inverse of ``from_diffusers_names``: present name to float32 array.

    Raises:
      ValueError: as there.
    """
    return write(_rows(net, shape), params)


def _present(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the names of today; what early files have twice, once."""
    tensors = {}
    for name, array in state_dict.items():
        former = re.fullmatch(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", name)
        if former:
            name = f"{former[1]}.{FORMER[former[2]]}.{former[3]}"
        tensors[{"time_proj.W": "time_proj.weight"}.get(name, name)] = array
    return tensors


def _rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    module: Any = net.module
    _check(module)
    top = len(module.ch_mult) - 1
    rows = []
    for path, leaf in flatten(net.shapes(shape), "/").items():
        ours, *children, last = path.split("/")
        matrix = len(leaf.shape) == 2 and (children == ["shortcut"] or ours.startswith("pyramid_down"))
        rows.append(
            Row(
                path=(ours, *children, last),
                shape=tuple(leaf.shape),
                name=".".join([_layer(ours, children, top), LEAVES[last]]),
                units=len(shape) - 1 if matrix else 0,  # convolutions of width one
                output_first=last == "kernel" and ours != "label",  # a row for each class
            )
        )
    return rows


def _layer(ours: str, children: list[str], top: int) -> str:
    """Their layer for the keys of ours."""
    inner = [CHILDREN[child] for child in children]
    if ours in TOPS:
        return ".".join([TOPS[ours], *inner])
    level = re.search(r"(down|up)_(\d+)", ours)
    assert level is not None, ours
    number = int(level[2]) if level[1] == "down" else top - int(level[2])
    block = f"{level[1]}_blocks.{number}"
    if ours.startswith("pyramid_down"):
        inner = []  # the layer is the convolution
    pattern = ours.replace(level[0], f"{level[1]}_L", 1)
    stem = re.sub(r"\d+$", "", pattern)
    return ".".join([block, LEVELS[stem] + pattern[len(stem) :], *inner])


def _check(module: nn.Module) -> None:
    """Refuse networks that ``UNet2DModel`` cannot be."""
    if isinstance(module, DDPM):
        wanted = {"up_attention": "block", "resamp_with_conv": True, "noise_conditional": True}
    elif type(module) in (NCSNpp, NCSNppDiffusers):
        wanted = {
            "resblock_type": "biggan",
            "fir": True,
            "fir_kernel": (1, 3, 3, 1),
            "skip_rescale": True,
            "progressive": "output_skip",
            "progressive_input": "input_skip",
            "progressive_combine": "sum",
            "noise_conditional": True,
        }
        if type(module) is NCSNpp and module.nf < 128:
            raise ValueError(f"nf={module.nf}: below 128 channels use NCSNppDiffusers, which has its groups")
    else:
        raise ValueError(f"{type(module).__name__}: not a network that diffusers has")
    foreign = [name for name, _ in module.conditions if name not in TOPS]
    if foreign:
        raise ValueError(f"conditions: {', '.join(foreign)}: diffusers has none but a class, the label")
    for field, value in wanted.items():
        if getattr(module, field) != value:
            raise ValueError(f"{field}={getattr(module, field)!r}: must be {value!r}, as in diffusers")

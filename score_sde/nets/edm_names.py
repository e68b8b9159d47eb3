"""Names of the networks released with Karras et al. 2022 (arXiv:2206.00364), in terms of ours."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from score_sde.arrays import HostParams, Params, Tree
from score_sde.nets import Net, check_spec
from score_sde.nets.official.rows import flatten, unflatten
from score_sde.nets.unets.adm import ADM

LAYERS = {
    "norm_0": "norm0",
    "conv_0": "conv0",
    "time": "affine",
    "norm_1": "norm1",
    "conv_1": "conv1",
    "shortcut": "skip",
    "norm": "norm2",
    "out": "proj",
    "query": "qkv",
    "key": "qkv",
    "value": "qkv",
}
TOPS = {
    "time_dense_0": "map_layer0",
    "time_dense_1": "map_layer1",
    "label": "map_label",
    "augment": "map_augment",
    "time_embedding": "map_noise",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "frequencies": "freqs"}
SLOTS = ("query", "key", "value")


def _their_name(path: tuple[str, ...], net: Net, side: int) -> str:
    """``("down_1_block_0", "conv_0", "kernel")`` as ``enc.16x16_block0.conv0.weight``."""
    top, *inner, leaf = path
    module: Any = net.module

    def at(level: int) -> str:
        return f"{side >> level}x{side >> level}"

    tail = [LAYERS[part] for part in inner if part in LAYERS] + [LEAVES[leaf]]
    last = len(module.ch_mult) - 1
    fixed = {
        "stem": f"enc.{at(0)}_conv",
        "mid_block_0": f"dec.{at(last)}_in0",
        "mid_attention": f"dec.{at(last)}_in0",
        "mid_block_1": f"dec.{at(last)}_in1",
        "out_norm": "out_norm" if isinstance(module, ADM) else f"dec.{at(0)}_aux_norm",
        "out_conv": "out_conv" if isinstance(module, ADM) else f"dec.{at(0)}_aux_conv",
    } | TOPS
    if top in fixed:
        return ".".join([fixed[top], *tail])
    match = re.fullmatch(
        r"(pyramid_down|pyramid_up|down|up)_(\d+)(?:_(block|attention|resample|norm|conv)(?:_(\d+))?)?", top
    )
    if match is None:
        raise ValueError(f"{top}: the released networks have no such layer")
    way, level, kind, number = match[1], int(match[2]), match[3], match[4]
    number = module.num_res_blocks if number is None else int(number)
    if way == "pyramid_down":
        name = f"enc.{at(level + 1)}_aux_{'skip' if module.progressive_input == 'input_skip' else 'residual'}"
    elif way == "pyramid_up":
        name = f"dec.{at(level)}_aux_{kind}"
    elif kind == "resample":
        name = f"enc.{at(level + 1)}_down" if way == "down" else f"dec.{at(level - 1)}_up"
    else:
        name = f"{'enc' if way == 'down' else 'dec'}.{at(level)}_block{number}"
    return ".".join([name, *tail])


def _places(net: Net, shape: tuple[int, ...]) -> tuple[Tree, dict[tuple[str, ...], str]]:
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    flat = jax.tree_util.tree_flatten_with_path(shapes)[0]
    paths = [tuple(str(key.key) for key in path) for path, _ in flat]  # type: ignore[attr-defined]
    return shapes, {path: _their_name(path, net, shape[0]) for path in paths}


def from_edm_names(state_dict: Mapping[str, np.ndarray], net: Net, shape: tuple[int, ...]) -> HostParams:
    """Parameters from the arrays of a released network.

    Args:
      state_dict: name to array; a ``model.`` prefix and the buffers ``resample_filter`` are ignored.
      net: a network around ``SongUNet`` or ``ADM`` with the same options.
      shape: of one example, ``(S, S, C)``.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: a name is unknown, or the parameters are not exactly those of ``net``.
    """
    shapes, places = _places(net, shape)
    arrays = {
        name.removeprefix("model."): array
        for name, array in state_dict.items()
        if not name.endswith("resample_filter")
    }
    unknown = sorted(arrays.keys() - set(places.values()))
    if unknown:
        raise ValueError(f"{unknown[0]}: no such tensor in this network ({len(unknown)} unknown)")
    ours: dict[str, np.ndarray] = {}
    for path, name in places.items():
        if name not in arrays:
            continue
        array = np.asarray(arrays[name], np.float32)
        if path[-2] in SLOTS:  # query, key and value alternate
            array = array.reshape(-1, 3, *array.shape[1:])[:, SLOTS.index(path[-2])]
        if array.ndim > 1:  # output-first to output-last
            array = np.moveaxis(array, (0, 1), (-1, -2))
            array = array.reshape(array.shape[-2:]) if set(array.shape[:-2]) <= {1} else array
        ours["/".join(path)] = array
    params = unflatten(ours, "/")
    check_spec(params, shapes)
    return params


def to_edm_names(params: Params | HostParams, net: Net, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The inverse of ``from_edm_names``: every tensor under its released name, with ``model.``.

    Raises:
      ValueError: the parameters are not exactly those of ``net``.
    """
    shapes, places = _places(net, shape)
    check_spec(params, shapes)
    flat = flatten(params, "/")
    parts: dict[str, list[np.ndarray]] = {}
    for path, name in places.items():
        array = np.asarray(flat["/".join(path)])
        if (
            path[-1] == "kernel"
            and not name.startswith("map_")
            and ".affine." not in name
            and array.ndim == 2
        ):
            array = array[None, None]  # a convolution of width one
        array = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
        slot = SLOTS.index(path[-2]) if path[-2] in SLOTS else 0
        held = parts.setdefault(name, [array] * (3 if path[-2] in SLOTS else 1))
        held[slot] = array
    return {
        f"model.{name}": held[0] if len(held) == 1 else np.stack(held, 1).reshape(-1, *held[0].shape[1:])
        for name, held in parts.items()
    }

"""Names of the released score_sde networks, in terms of ours.

The released PyTorch code keeps its layers in one list, ``all_modules``, so that a tensor is
called ``all_modules.<i>.<layer>.<leaf>``; the released JAX code numbers them per class.  Both
number in the order in which the forward pass uses the layers.  ``module_order`` recovers that
order by watching our network run on shapes alone, so the topology is written down once.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from score_sde.nets import Net, check_spec, layers

CLASSES = {
    layers.FourierEmbedding: "GaussianFourierProjection",
    layers.Dense: "Linear",
    layers.Conv: "Conv2d",
    layers.GroupNorm: "GroupNorm",
    layers.Attention: "AttnBlockpp",
    layers.Combine: "Combine",
    layers.Downsample: "Downsample",
    layers.Upsample: "Upsample",
}
RESBLOCKS = {"biggan": "ResnetBlockBigGANpp", "ddpm": "ResnetBlockDDPMpp"}
CHILDREN = {
    layers.ResBlock: {
        "GroupNorm_0": "norm_0",
        "Conv_0": "conv_0",
        "Dense_0": "time",
        "GroupNorm_1": "norm_1",
        "Conv_1": "conv_1",
        "Conv_2": "shortcut",
        "NIN_0": "shortcut",
    },
    layers.Attention: {
        "GroupNorm_0": "norm",
        "NIN_0": "query",
        "NIN_1": "key",
        "NIN_2": "value",
        "NIN_3": "out",
    },
    layers.Combine: {"Conv_0": "conv"},
    layers.Downsample: {"Conv_0": "conv", "Conv2d_0": "conv"},
    layers.Upsample: {"Conv_0": "conv", "Conv2d_0": "conv"},
}


@functools.lru_cache(maxsize=4)
def _traced(net: Net, shape: tuple[int, ...]) -> tuple[list[tuple[str, type[nn.Module]]], Any]:
    """Name and class of every top-level layer in the order of the forward pass; and all shapes."""
    visited: list[tuple[str, type[nn.Module]]] = []

    def watch(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if len(module.path) == 1 and context.method_name == "__call__":
            visited.append((module.path[0], type(module)))
        return next_call(*args, **kwargs)

    with nn.intercept_methods(watch):
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    return [(name, kind) for name, kind in visited if name != "label"], shapes


def module_order(net: Net, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """``(our name, official class)`` in the order of the official ``all_modules``.

    Args:
      net: a network around ``NCSNpp``.
      shape: of one example, ``(*S, C)``; it decides where attention is.
    """
    classes = CLASSES | {layers.ResBlock: RESBLOCKS[net.module.resblock_type]}
    return [(name, classes[kind]) for name, kind in _traced(net, shape)[0]]


def from_torch_names(
    state_dict: Mapping[str, np.ndarray], net: Net, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Parameters from the arrays of a released PyTorch ``score_model``.

    Args:
      state_dict: name to array; a ``module.`` prefix and the buffer ``sigmas`` are ignored.
      net: a network around ``NCSNpp`` with the same options.
      shape: of one example, ``(*S, C)``.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: a name is unknown, or the parameters are not exactly those of ``net``.
    """
    order, shapes = _traced(net, shape)
    params: dict[str, Any] = {}
    for full_name, array in state_dict.items():
        name = full_name.removeprefix("module.")
        if name == "sigmas":
            continue
        path = _our_path(name, order)
        if path is None:
            raise ValueError(f"{full_name}: no such tensor in this network")
        if path[1] == "time" and not net.module.conditional:
            continue  # the released unconditional blocks carry a layer that nothing uses
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = _our_layout(np.asarray(array, np.float32), name)
    check_spec(params, shapes)
    return params


def _our_path(name: str, order: list[tuple[str, type[nn.Module]]]) -> list[str] | None:
    """``all_modules.4.Conv_0.weight`` as ``["down_0_block_0", "conv_0", "kernel"]``."""
    match name.split("."):
        case ["all_modules", index, *children, leaf] if index.isdigit() and int(index) < len(order):
            top, kind = order[int(index)]
        case _:
            return None
    norm = kind is layers.GroupNorm or any(child.startswith("GroupNorm") for child in children)
    leaves = {"weight": "scale" if norm else "kernel", "bias": "bias", "W": "kernel", "b": "bias"}
    if kind is layers.FourierEmbedding:
        leaves = {"W": "frequencies"}
    names = CHILDREN.get(kind, {})
    if leaf not in leaves or not all(child in names for child in children):
        return None
    return [top, *(names[child] for child in children), leaves[leaf]]


def _our_layout(array: np.ndarray, name: str) -> np.ndarray:
    """Output-first to output-last; kernels of width one lose their spatial axes."""
    if not name.endswith(".weight") or array.ndim < 2:
        return array
    array = np.moveaxis(array, (0, 1), (-1, -2))
    return array.reshape(array.shape[-2:]) if set(array.shape[:-2]) <= {1} else array

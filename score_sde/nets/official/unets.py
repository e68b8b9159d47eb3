"""Names of the U-Nets, NCSN++ with DDPM++ and DDPM.

The released PyTorch code keeps its layers in one list, ``all_modules``, so that an array is
called ``all_modules.<i>.<layer>.<leaf>``; the released JAX code numbers them per class.  Both
number in the order in which the forward pass uses the layers.  That order is recovered by
watching our network run on shapes alone, so the topology is written down once.
"""

import functools
from collections.abc import Callable

import flax.linen as nn

from score_sde.arrays import Tree
from score_sde.nets import Net, initial, layers
from score_sde.nets.official.rows import Row, flatten
from score_sde.nets.unets.ddpm import DDPM

# Their class of our layers, where it does not depend on the network.
CLASSES = {
    layers.FourierEmbedding: "GaussianFourierProjection",
    layers.Dense: "Linear",
    layers.Conv: "Conv2d",
    layers.GroupNorm: "GroupNorm",
    layers.Combine: "Combine",
    layers.Downsample: "Downsample",
    layers.Upsample: "Upsample",
}
# Their layer inside a block for ours.  A number after the underscore counts the layers of a class.
CHILDREN = {
    layers.ResBlock: {
        "norm_0": "GroupNorm_0",
        "conv_0": "Conv_0",
        "time": "Dense_0",
        "norm_1": "GroupNorm_1",
        "conv_1": "Conv_1",
    },
    layers.Attention: {
        "norm": "GroupNorm_0",
        "query": "NIN_0",
        "key": "NIN_1",
        "value": "NIN_2",
        "out": "NIN_3",
    },
    layers.Combine: {"conv": "Conv_0"},
}
# Their leaf for ours, by the class of the layer that holds it; the others are under "".
SHARED_LEAVES = {
    "NIN": {"kernel": "W", "bias": "b"},
    "GaussianFourierProjection": {"frequencies": "W"},
}
TORCH_LEAVES = SHARED_LEAVES | {
    "GroupNorm": {"scale": "weight", "bias": "bias"},
    "": {"kernel": "weight", "bias": "bias"},
}
FLAX_LEAVES = SHARED_LEAVES | {
    "Conv2d": {"kernel": "weight", "bias": "bias"},  # with a filter
    "": {"kernel": "kernel", "bias": "bias", "scale": "scale"},
}
FLAX_CLASSES = {"Linear": "Dense", "Conv2d": "Conv"}


@functools.lru_cache(maxsize=32)
def traced(net: Net, shape: tuple[int, ...]) -> tuple[list[tuple[str, type[nn.Module]]], Tree]:
    """Name and class of every top-level layer in the order of the forward pass; and all shapes."""
    visited: list[tuple[str, type[nn.Module]]] = []

    def watch(
        next_call: Callable[..., object], args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> object:
        module = context.module
        if len(module.path) == 1 and context.method_name == "__call__":
            visited.append((module.path[0], type(module)))
        return next_call(*args, **kwargs)

    with nn.intercept_methods(watch):
        shapes = initial.shapes(net.describe(shape))
    order = [(name, kind) for name, kind in visited if name not in dict(net.conditions)]
    if _idle_embedding(net):
        order.insert(0, ("", layers.FourierEmbedding))
    return order, shapes


def _idle_embedding(net: Net) -> bool:
    """Whether the released code has an embedding that its unconditional network does not use."""
    return not net.module.noise_conditional and getattr(net.module, "embedding_type", "") == "fourier"


def module_order(net: Net, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """``(our name, official class)`` in the order of the official ``all_modules``.

    Args:
      net: a network around ``NCSNpp`` or ``DDPM``.
      shape: of one example, ``(*S, C)``; it decides where attention is.
    """
    if isinstance(net.module, DDPM):
        block, attention = "ResnetBlockDDPM", "AttnBlock"
    else:
        block = {"biggan": "ResnetBlockBigGANpp", "ddpm": "ResnetBlockDDPMpp"}[net.module.resblock_type]
        attention = "AttnBlockpp"
    classes = CLASSES | {layers.ResBlock: block, layers.Attention: attention}
    return [(name, classes[kind]) for name, kind in traced(net, shape)[0]]


def _child(net: Net, kind: type[nn.Module], child: str) -> str:
    """Their layer inside a block, such as ``Conv_0``."""
    if kind in (layers.Downsample, layers.Upsample):
        return "Conv2d_0" if getattr(net.module, "fir", False) else "Conv_0"
    if child == "shortcut":
        return "Conv_2" if getattr(net.module, "resblock_type", "ddpm") == "biggan" else "NIN_0"
    return CHILDREN[kind][child]


def torch_rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    """One row for each parameter, in the order of the released PyTorch code."""
    tops = [(f"all_modules.{i}", kind) for i, (_, kind) in enumerate(module_order(net, shape))]
    return _rows(net, shape, tops, ".", TORCH_LEAVES)


def flax_rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    """One row for each parameter, in the order of the released JAX code."""
    kinds = [FLAX_CLASSES.get(kind, kind) for _, kind in module_order(net, shape)]
    tops = [(f"{kind}_{kinds[:i].count(kind)}", kind) for i, kind in enumerate(kinds)]
    return _rows(net, shape, tops, "/", FLAX_LEAVES)


def _rows(
    net: Net,
    shape: tuple[int, ...],
    tops: list[tuple[str, str]],
    separator: str,
    leaves: dict[str, dict[str, str]],
) -> list[Row]:
    """Rows from the name and class of every top-level layer of theirs."""
    order, shapes = traced(net, shape)
    for name in shapes.keys() - {name for name, _ in order}:
        raise ValueError(f"{name}: the released network has no such layer")
    rows = []
    for (ours, kind), (theirs, class_name) in zip(order, tops, strict=True):
        for path, leaf in flatten(shapes.get(ours, {}), "/").items():
            *children, last = path.split("/")
            inner = [_child(net, kind, child) for child in children]
            holder = inner[-1].partition("_")[0] if inner else class_name
            matrix = holder.startswith("Conv") and last == "kernel" and len(leaf.shape) == 2
            rows.append(
                Row(
                    path=(ours, *children, last),
                    shape=tuple(leaf.shape),
                    name=separator.join([theirs, *inner, leaves.get(holder, leaves[""])[last]]),
                    units=len(shape) - 1 if matrix else 0,  # convolutions of width one
                    output_first=leaves is TORCH_LEAVES and last == "kernel" and holder != "NIN",
                )
            )
    return rows


def unused(net: Net, name: str) -> bool:
    """Whether an array of the released code is one that nothing uses.

    Unconditional networks have the frequencies of the embedding all the same, and in PyTorch the
    layers of the noise level in every block.
    """
    if _idle_embedding(net) and name in ("all_modules.0.W", "GaussianFourierProjection_0/W"):
        return True
    return not net.module.noise_conditional and ".Dense_0." in name

"""A released state dict from our parameters: the inverse of the names under test, written apart from them."""

import numpy as np

from score_sde.nets.official import module_order

BLOCK = {
    "norm_0": "GroupNorm_0",
    "conv_0": "Conv_0",
    "time": "Dense_0",
    "norm_1": "GroupNorm_1",
    "conv_1": "Conv_1",
    "shortcut": "Conv_2",
}
ATTENTION = {"norm": "GroupNorm_0", "query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}


def state_dict(net, shape, params):
    """Name to array, for DDPM++ and networks with the same layers."""
    tensors = {}
    for i, (ours, _) in enumerate(module_order(net, shape)):
        for path, array in walk(params[ours]):
            *children, leaf = path
            names = [({**BLOCK, **ATTENTION})[child] for child in children]
            name, array = one(children, leaf, np.asarray(array))
            tensors[".".join(["all_modules", str(i), *names, name])] = array
    return tensors


def one(children, leaf, array):
    if leaf == "frequencies":
        return "W", array
    if leaf != "kernel":
        nin = children and children[-1] in ("query", "key", "value", "out")
        return {"scale": "weight", "bias": "b" if nin else "bias"}[leaf], array
    if children and children[-1] in ("query", "key", "value", "out"):
        return "W", array
    if children and children[-1] == "shortcut":
        return "weight", array.T[:, :, None, None]
    return "weight", array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)


def walk(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from walk(value, (*path, name))
        else:
            yield (*path, name), value

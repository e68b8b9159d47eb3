"""The Inception graph of 2015-12-05 as TensorFlow released it: its tensors by the names of the PyTorch port.

The file is ``classify_image_graph_def.pb``, which the evaluation code of guided-diffusion reads too.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from score_sde.convert import graph_def
from score_sde.convert.errors import CheckpointError

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")  # "mixed", "mixed_1", ...
_POOL = {"tower_2": ("branch_pool",)}

# Scope to the names of its convolutions, which are "conv", "conv_1", ...; "" is the block itself.
_A = {
    "": ("branch1x1",),
    "tower": ("branch5x5_1", "branch5x5_2"),
    "tower_1": ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    **_POOL,
}
_SIX_A = {"": ("branch3x3",), "tower": ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")}
_C = {
    "": ("branch1x1",),
    "tower": ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    "tower_1": tuple(f"branch7x7dbl_{i}" for i in range(1, 6)),
    **_POOL,
}
_SEVEN_A = {
    "tower": ("branch3x3_1", "branch3x3_2"),
    "tower_1": tuple(f"branch7x7x3_{i}" for i in range(1, 5)),
}
_E = {
    "": ("branch1x1",),
    "tower": ("branch3x3_1",),
    "tower/mixed": ("branch3x3_2a", "branch3x3_2b"),
    "tower_1": ("branch3x3dbl_1", "branch3x3dbl_2"),
    "tower_1/mixed": ("branch3x3dbl_3a", "branch3x3dbl_3b"),
    **_POOL,
}
_LAYOUT = (_A, _A, _A, _SIX_A, _C, _C, _C, _C, _SEVEN_A, _E, _E)

_LEAVES = {
    "conv2d_params": "conv.weight",
    "batchnorm/gamma": "bn.weight",
    "batchnorm/beta": "bn.bias",
    "batchnorm/moving_mean": "bn.running_mean",
    "batchnorm/moving_variance": "bn.running_var",
}


def _indexed(name: str, i: int) -> str:
    return f"{name}_{i}" if i else name


def names() -> dict[str, str]:
    """Names of the PyTorch port by those of the graph."""
    units = {_indexed("conv", i): unit for i, unit in enumerate(_STEM)}
    for i, (block, scopes) in enumerate(zip(_BLOCKS, _LAYOUT, strict=True)):
        for scope, inside in scopes.items():
            for j, unit in enumerate(inside):
                path = (_indexed("mixed", i), scope, _indexed("conv", j))
                units["/".join(filter(None, path))] = f"Mixed_{block}.{unit}"
    found = {f"{ours}/{a}": f"{unit}.{b}" for ours, unit in units.items() for a, b in _LEAVES.items()}
    return {**found, "softmax/weights": "fc.weight", "softmax/biases": "fc.bias"}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the file, in PyTorch's layout.

    Raises:
      CheckpointError: not this graph; does not name the file.
    """
    return torch_tensors(graph_def.read(path))


def torch_tensors(constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Constants of the graph as tensors of the port: convolutions ``(out, in, H, W)``, weights ``(out, in)``.

    Raises:
      CheckpointError: one is missing.
    """
    wanted = names()
    missing = [name for name in wanted if name not in constants]
    if missing:
        raise CheckpointError(
            f"not the Inception graph of 2015-12-05: it lacks {missing[0]!r} and {len(missing) - 1} more"
        )
    return {
        ours: np.transpose(array, (3, 2, 0, 1)) if array.ndim == 4 else array.T
        for ours, array in ((ours, constants[name]) for name, ours in wanted.items())
    }

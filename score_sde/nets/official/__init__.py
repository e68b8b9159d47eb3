"""Parameters of the networks released with Song et al. 2021 (arXiv:2011.13456), and back.

The PyTorch code, github.com/yang-song/score_sde_pytorch, has flat names; the JAX code,
github.com/yang-song/score_sde, has trees.  Every array has a row that says where it is in ours.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from score_sde.arrays import HostParams, Params, Tree
from score_sde.nets import Net
from score_sde.nets.official import refinenets, unets, wideresnet
from score_sde.nets.official.rows import Row, flatten, read, unflatten, write
from score_sde.nets.official.unets import module_order
from score_sde.nets.unets.ddpm import DDPM
from score_sde.nets.unets.ncsn import NCSN, NCSNv2, NCSNv2For128, NCSNv2For256
from score_sde.nets.unets.ncsnpp import NCSNpp
from score_sde.nets.wideresnet import WideResNet

__all__ = ["from_flax_names", "from_torch_names", "module_order", "to_flax_names", "to_torch_names"]

Rows = Callable[[Net, tuple[int, ...]], Sequence[Row]]

TORCH: dict[type, Rows] = {
    NCSNpp: unets.torch_rows,
    DDPM: unets.torch_rows,
    NCSN: refinenets.torch_rows,
    NCSNv2: refinenets.torch_rows,
    NCSNv2For128: refinenets.torch_rows,
    NCSNv2For256: refinenets.torch_rows,
}
FLAX: dict[type, Rows] = {
    NCSNpp: unets.flax_rows,
    DDPM: unets.flax_rows,
    NCSNv2: refinenets.flax_rows,
    NCSNv2For128: refinenets.flax_rows,
    NCSNv2For256: refinenets.flax_rows,
    WideResNet: wideresnet.flax_rows,
}


def _rows(table: Mapping[type, Rows], net: Net, shape: tuple[int, ...]) -> Sequence[Row]:
    kind = type(net.module)
    if kind not in table:
        known = ", ".join(other.__name__ for other in table)
        raise ValueError(f"{kind.__name__}: no such network was released; there are {known}")
    return _made(table[kind], net, tuple(shape))


@functools.lru_cache(maxsize=32)
def _made(make: Rows, net: Net, shape: tuple[int, ...]) -> Sequence[Row]:
    return make(net, shape)


def _used(net: Net, tensors: dict[str, Tree]) -> dict[str, Tree]:
    """Without the arrays that the released code has and does not use."""
    if not isinstance(net.module, NCSNpp | DDPM):
        return tensors
    return {name: array for name, array in tensors.items() if not unets.unused(net, name)}


def from_torch_names(state_dict: Mapping[str, np.ndarray], net: Net, shape: tuple[int, ...]) -> HostParams:
    """Parameters from the arrays of a released PyTorch ``score_model``.

    Args:
      state_dict: name to array; a ``module.`` prefix and the buffer ``sigmas`` are ignored.
      net: a network with the same options.
      shape: of one example, ``(*S, C)``; it decides where attention is.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: a network that was not released; or the arrays are not exactly those of ``net``:
        shows the first that differs, with both shapes.
    """
    tensors = {name.removeprefix("module."): array for name, array in state_dict.items()}
    tensors.pop("sigmas", None)
    return read(_rows(TORCH, net, shape), _used(net, tensors))


def to_torch_names(params: Params | HostParams, net: Net, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The inverse of ``from_torch_names``: name to float32 array, without prefix and buffers.

    Raises:
      ValueError: as there.
    """
    return write(_rows(TORCH, net, shape), params)


def from_flax_names(params: Mapping[str, Tree], net: Net, shape: tuple[int, ...]) -> HostParams:
    """Parameters from those of a released JAX network.

    Args:
      params: the tree, or a flat dictionary with names such as ``Conv_0/kernel``.
      net: a network with the same options.
      shape: of one example, ``(*S, C)``; it decides where attention is.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: a network that was not released; or the arrays are not exactly those of ``net``:
        shows the first that differs, with both shapes.
    """
    return read(_rows(FLAX, net, shape), _used(net, flatten(params, "/")))


def to_flax_names(params: Params | HostParams, net: Net, shape: tuple[int, ...]) -> HostParams:
    """The inverse of ``from_flax_names``: a nested dictionary of float32 arrays.

    Raises:
      ValueError: as there.
    """
    return unflatten(write(_rows(FLAX, net, shape), params), "/")

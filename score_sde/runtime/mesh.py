"""Devices as a mesh with two axes, and how arrays are placed on it.

``data`` splits the batch; ``fsdp`` splits it too, and parameters, averages and optimizer state besides.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.arrays import Tree

BATCH = ("data", "fsdp")
_SMALLEST_SPLIT = 2**14  # below this many entries, splitting an array costs more than it saves


def make_mesh(fsdp: int = 1, devices: Sequence[object] | None = None) -> Mesh:
    """All devices as ``(data, fsdp)``.

    Raises:
      ValueError: the number of devices is not a multiple of ``fsdp``.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"config.mesh.fsdp = {fsdp}: must divide the number of devices, {len(devices)}")
    return Mesh(np.asarray(devices).reshape(-1, fsdp), BATCH)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, shapes: Tree) -> Tree:
    """Where each array of a state is placed: its largest axis that ``fsdp`` divides is split, if it is large.

    Args:
      shapes: pytree of ``jax.ShapeDtypeStruct``.
    """
    ways = mesh.shape["fsdp"]

    def rule(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = sorted(range(len(leaf.shape)), key=lambda i: -leaf.shape[i])
        axis = next((i for i in axes if leaf.shape[i] % ways == 0), None)
        if ways == 1 or axis is None or math.prod(leaf.shape) < _SMALLEST_SPLIT:
            return replicated(mesh)
        return NamedSharding(
            mesh, PartitionSpec(*("fsdp" if i == axis else None for i in range(len(leaf.shape))))
        )

    return jax.tree.map(rule, shapes)


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest multiple of the device count that is at least ``batch_size``."""
    return -(-batch_size // mesh.size) * mesh.size

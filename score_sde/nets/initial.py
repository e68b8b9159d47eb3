"""Initial values.

A random draw costs the same to compile whether it makes ten numbers or a million, and a network has
hundreds of parameters.  So initializers draw nothing: they describe their values in a box, and
``draw`` makes all of them from one uniform and one normal sample.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.core import meta
from jax import Array, lax

from score_sde.arrays import Params, Tree

Initializer = Callable[..., Any]  # of an ``Initial``; ``nn.Module.param`` hands out what it holds


class Initial(struct.PyTreeNode, meta.AxisMetadata[Array]):
    """A parameter before its values are drawn: zeros of its shape, and how to draw them.

    ``kind`` is ``"constant"``, ``"uniform"`` on [-1, 1] or ``"normal"``, multiplied by ``scale``;
    ``mean`` is added.
    """

    value: Array
    kind: str = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False)
    mean: float = struct.field(pytree_node=False, default=0.0)

    def unbox(self) -> Array:
        return self.value

    def replace_boxed(self, val: Tree) -> "Initial":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[object, object]) -> "Initial":
        raise NotImplementedError("lifted transforms are not used")

    def remove_axis(self, index: int, params: dict[object, object]) -> "Initial":
        raise NotImplementedError("lifted transforms are not used")


def described(kind: str, scale: float, mean: float = 0.0) -> Initializer:
    """An initializer that returns an ``Initial``; ``nn.Module.param`` hands out what it holds."""

    def initializer(key: Array, shape: Sequence[int]) -> Initial:
        return Initial(jnp.zeros(shape, jnp.float32), kind, scale, mean)

    return initializer


def fan_average(scale: float) -> Initializer:
    """Uniform with variance ``scale / mean(fan_in, fan_out)``, for kernels ``(..., in, out)``.

    A scale of 0 means 1e-10: the layer starts as good as silent, and still has a gradient
    (Song et al. 2021, released code).
    """

    def initializer(key: Array, shape: Sequence[int]) -> Initial:
        fan = math.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
        bound = math.sqrt(3 * max(scale, 1e-10) / fan)
        return described("uniform", bound)(key, shape)

    return initializer


# How a layer's values are drawn: a scale and the shape of the kernel to initializers of kernel and bias.
Law = Callable[[float, tuple[int, ...]], tuple[Initializer, Initializer]]


def averaged(scale: float, shape: tuple[int, ...]) -> tuple[Initializer, Initializer]:
    """``fan_average`` and no bias (Song et al. 2021, released code)."""
    return fan_average(scale), described("constant", 0.0)


def standard(scale: float, shape: tuple[int, ...]) -> tuple[Initializer, Initializer]:
    """Normal with standard deviation ``scale`` whatever the shape, and no bias."""
    return described("normal", scale), described("constant", 0.0)


def inward(scale: float, shape: tuple[int, ...]) -> tuple[Initializer, Initializer]:
    """Both uniform within ``scale / sqrt(fan_in)``; exactly zero for a scale of 0 (EDM's ADM)."""
    initializer = described("uniform", scale / math.sqrt(math.prod(shape[:-1])))
    return initializer, initializer


def shapes(tree: Tree) -> Tree:
    """What the boxes of a described tree hold, in a new tree."""
    return meta.unbox(tree)


def draw(key: Array, tree: Tree) -> Params:
    """Replace every ``Initial`` of a tree by its float32 values, deterministically in ``key``."""
    boxes, structure = jax.tree.flatten(tree, is_leaf=lambda node: isinstance(node, Initial))
    sizes = {"uniform": 0, "normal": 0, "constant": 0}
    starts = []
    for box in boxes:
        starts.append(sizes[box.kind])
        sizes[box.kind] += box.value.size
    uniform_key, normal_key = jax.random.split(key)
    pools = {
        "uniform": jax.random.uniform(uniform_key, (sizes["uniform"],), jnp.float32, -1.0, 1.0),
        "normal": jax.random.normal(normal_key, (sizes["normal"],), jnp.float32),
    }

    def values(box: Initial, start: int) -> Array:
        shape = box.value.shape
        if box.kind == "constant":
            return jnp.full(shape, box.scale + box.mean, jnp.float32)
        stop = start + box.value.size
        drawn = box.scale * lax.slice(pools[box.kind], (start,), (stop,)).reshape(shape)
        return drawn + box.mean if box.mean else drawn

    drawn = [values(box, start) for box, start in zip(boxes, starts, strict=True)]
    return jax.tree.unflatten(structure, drawn)

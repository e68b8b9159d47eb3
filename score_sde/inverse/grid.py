"""Means of entries: of the channels of a pixel (colourisation), of the pixels of a box (super-resolution)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class ChannelMean(LinearOperator):
    """The mean of the channels: ``(B, *S, C) -> (B, *S, 1)``.

    Attributes:
      channels: C.
    """

    channels: int = 3

    def apply(self, x: Array, given: Cond) -> Array:
        return jnp.mean(x, axis=-1, keepdims=True)

    def adjoint(self, y: Array, given: Cond) -> Array:
        return jnp.repeat(y / self.channels, self.channels, axis=-1)

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        return function(jnp.full((1,) * y.ndim, 1.0 / self.channels)) * y


@dataclass(frozen=True, kw_only=True)
class BoxDown(LinearOperator):
    """Means of boxes of ``factor`` pixels a side: ``(B, *S, C) -> (B, *(S / factor), C)``.

    Attributes:
      factor: by which every spatial size is divided.

    Raises:
      ValueError (when it is applied): a size that the factor does not divide.
    """

    factor: int = 2

    def apply(self, x: Array, given: Cond) -> Array:
        sizes = x.shape[1:-1]
        if any(size % self.factor for size in sizes):
            raise ValueError(f"factor = {self.factor}: must divide the sizes {sizes}")
        split = [part for size in sizes for part in (size // self.factor, self.factor)]
        boxes = x.reshape(x.shape[0], *split, x.shape[-1])
        return jnp.mean(boxes, axis=tuple(range(2, 2 * len(sizes) + 1, 2)))

    def adjoint(self, y: Array, given: Cond) -> Array:
        axes = y.ndim - 2
        for axis in range(1, axes + 1):
            y = jnp.repeat(y, self.factor, axis=axis)
        return y / self.factor**axes

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        eigenvalue = 1.0 / math.pow(self.factor, y.ndim - 2)
        return function(jnp.full((1,) * y.ndim, eigenvalue)) * y

"""Sums along parallel rays, as in computed tomography."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class Radon(LinearOperator):
    """Sums along rays at some angles: ``(B, H, W, C) -> (B, angles, detectors, C)``.

    A pixel at (column, row) ``(u, v)`` from the middle meets the detector at ``u cos(a) + v sin(a)``, whose
    two nearest cells, one pixel wide, share it linearly.  Sums are divided by ``max(H, W)``, so that they
    are near the range of the pictures.

    Attributes:
      size: ``(H, W)``.
      angles: views, evenly from 0 up to a half turn.
    """

    size: tuple[int, int]
    angles: int = 12

    def __post_init__(self) -> None:
        if self.angles < 1:
            raise ValueError(f"angles = {self.angles}: must be positive")

    @property
    def detectors(self) -> int:
        """Cells of a view; they cover the diagonal."""
        return math.ceil(math.hypot(*self.size)) + 2

    def _rays(self) -> tuple[Array, Array]:
        """For every view and pixel the first cell that it meets, and the share of the one after it:
        ``(angles, H W)`` each."""
        height, width = self.size
        v, u = jnp.meshgrid(
            jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
        )
        angle = (jnp.arange(self.angles) * (jnp.pi / self.angles))[:, None]
        u, v = u.reshape(1, -1), v.reshape(1, -1)
        place = jnp.cos(angle) * u + jnp.sin(angle) * v + (self.detectors - 1) / 2
        first = jnp.floor(place)
        return first.astype(jnp.int32), place - first

    def apply(self, x: Array, given: Cond) -> Array:
        if x.shape[1:3] != self.size:
            raise ValueError(f"size = {self.size}: must be that of the states, {x.shape[1:3]}")
        first, share = self._rays()
        values = jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 0) / max(self.size)

        def view(first: Array, share: Array) -> Array:
            share = share[:, None, None]
            cells = jnp.zeros((self.detectors, *values.shape[1:]), x.dtype)
            return cells.at[first].add((1 - share) * values).at[first + 1].add(share * values)

        return jnp.moveaxis(jax.vmap(view)(first, share), 2, 0)

    def adjoint(self, y: Array, given: Cond) -> Array:
        first, share = self._rays()

        def spread(view: Array, first: Array, share: Array) -> Array:  # (B, detectors, C) -> (B, H W, C)
            share = share[None, :, None]
            return (1 - share) * view[:, first] + share * view[:, first + 1]

        pixels = jnp.sum(jax.vmap(spread, in_axes=(1, 0, 0))(y, first, share), axis=0) / max(self.size)
        return pixels.reshape(y.shape[0], *self.size, y.shape[-1])

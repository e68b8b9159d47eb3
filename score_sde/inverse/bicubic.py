"""Bicubic down-sampling, axis by axis, so that its singular values are products of those of two matrices."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class BicubicDown(LinearOperator):
    """Antialiased bicubic interpolation at a lower resolution: ``(B, *S, C) -> (B, *(S / factor), C)``.

    The kernel is that of Keys (1981, eq. 4 with a = -1/2), widened by the factor as image libraries do;
    borders are reflected.

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
        return _along(x, [bicubic_matrix(size, self.factor) for size in sizes])

    def adjoint(self, y: Array, given: Cond) -> Array:
        return _along(y, [bicubic_matrix(size * self.factor, self.factor).T for size in y.shape[1:-1]])

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        squares, bases = zip(*(_eigen(size, self.factor) for size in y.shape[1:-1]), strict=True)
        values = functools.reduce(np.multiply.outer, squares)[None, ..., None]
        turned = function(jnp.asarray(values, y.dtype)) * _along(y, [basis.T for basis in bases])
        return _along(turned, bases)


def _along(x: Array, matrices: Sequence[np.ndarray]) -> Array:
    """A matrix for every spatial axis: ``(B, *S, C) -> (B, *T, C)``, each ``(T_i, S_i)``."""
    for axis, matrix in zip(itertools.count(1), matrices, strict=False):
        made = jnp.tensordot(
            jnp.asarray(matrix, x.dtype), x, axes=((1,), (axis,)), precision=jax.lax.Precision.HIGHEST
        )
        x = jnp.moveaxis(made, 0, axis)
    return x


@functools.lru_cache
def bicubic_matrix(size: int, factor: int) -> np.ndarray:
    """Weights of ``size`` pixels of a row in each of ``size / factor``: float64, rows of sum one."""
    rows = np.zeros((size // factor, size))
    for i, row in enumerate(rows):
        center = (i + 0.5) * factor - 0.5
        places = np.arange(np.floor(center - 2 * factor), np.ceil(center + 2 * factor) + 1).astype(int)
        around = places % (2 * size)  # the row, and behind it its mirror image
        np.add.at(row, np.minimum(around, 2 * size - 1 - around), _keys((places - center) / factor))
    return rows / rows.sum(axis=1, keepdims=True)


def _keys(u: np.ndarray) -> np.ndarray:
    """The kernel of Keys with a = -1/2."""
    u = abs(u)
    near = 1.5 * u**3 - 2.5 * u**2 + 1.0
    far = -0.5 * u**3 + 2.5 * u**2 - 4.0 * u + 2.0
    return np.where(u <= 1, near, np.where(u < 2, far, 0.0))


@functools.lru_cache
def _eigen(size: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Of ``A A^T`` along an axis of ``size`` results: eigenvalues ``(size,)`` and vectors in columns."""
    matrix = bicubic_matrix(size * factor, factor)
    values, basis = np.linalg.eigh(matrix @ matrix.T)
    return values, basis

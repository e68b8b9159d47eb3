"""Blur by a Gaussian, with borders that wrap around, so that it is diagonal in Fourier space."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class Blur(LinearOperator):
    """Circular convolution of every channel with a Gaussian of sum one: ``(B, *S, C) -> (B, *S, C)``.

    Attributes:
      blur_sigma: its standard deviation in pixels.
    """

    blur_sigma: float = 1.0

    def __post_init__(self) -> None:
        if not self.blur_sigma > 0:
            raise ValueError(f"blur_sigma = {self.blur_sigma}: must be positive")

    def _response(self, shape: tuple[int, ...]) -> Array:
        """Real and symmetric, so that the operator is its own adjoint: ``(*S, 1)`` of the whole transform."""
        response = jnp.ones(())
        for size in shape[1:-1]:
            place = jnp.minimum(jnp.arange(size), size - jnp.arange(size))
            kernel = jnp.exp(-0.5 * (place / self.blur_sigma) ** 2)
            response = jnp.multiply.outer(response, jnp.fft.fft(kernel / kernel.sum()).real)
        return response[..., None]

    def _filtered(self, x: Array, response: Array) -> Array:
        axes = tuple(range(1, x.ndim - 1))
        return jnp.fft.ifftn(response[None] * jnp.fft.fftn(x, axes=axes), axes=axes).real.astype(x.dtype)

    def apply(self, x: Array, given: Cond) -> Array:
        return self._filtered(x, self._response(x.shape))

    def adjoint(self, y: Array, given: Cond) -> Array:
        return self.apply(y, given)

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array | None:
        # A number for each sample enters ``function`` with the shape (B, 1, ...): so do the eigenvalues.
        axes = tuple(range(1, y.ndim - 1))
        values = function(self._response(y.shape)[None] ** 2)
        return jnp.fft.ifftn(values * jnp.fft.fftn(y, axes=axes), axes=axes).real.astype(y.dtype)

"""Some frequencies are seen, as in accelerated magnetic resonance imaging."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator

FREQUENCIES = "frequencies"  # entry of ``cond``: 1 where a frequency is seen, 0 where not, ``(B, *S, 1)``


@dataclass(frozen=True, kw_only=True)
class Fourier(LinearOperator):
    """Frequencies of every channel, zero where none is seen: ``(B, *S, C) -> (B, *S, 2 C)``.

    The transform is orthonormal, frequency zero comes first, and the real parts come before the imaginary
    ones.  States are real, so that frequency k and -k say the same: an eigenvalue of ``A A^T`` is 1/2 where
    one of the two is seen; where both are, it is 1 for what they agree in and 0 for what they do not.
    """

    needs: ClassVar[tuple[str, ...]] = (FREQUENCIES,)

    def apply(self, x: Array, given: Cond) -> Array:
        z = jnp.fft.fftn(x, axes=_axes(x), norm="ortho")
        return given[FREQUENCIES] * jnp.concatenate([z.real, z.imag], axis=-1).astype(x.dtype)

    def adjoint(self, y: Array, given: Cond) -> Array:
        real, imaginary = jnp.split(given[FREQUENCIES] * y, 2, axis=-1)
        return jnp.fft.ifftn(real + 1j * imaginary, axes=_axes(y), norm="ortho").real.astype(y.dtype)

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        seen = given[FREQUENCIES] > 0
        both = seen & (_opposite(seen))
        real, imaginary = jnp.split(_opposite(y), 2, axis=-1)
        conjugate = jnp.concatenate([real, -imaginary], axis=-1)
        zero, half, one = (function(jnp.full((1,) * y.ndim, value, y.dtype)) for value in (0.0, 0.5, 1.0))
        agreed = one * 0.5 * (y + conjugate) + zero * 0.5 * (y - conjugate)
        return jnp.where(both, agreed, jnp.where(seen, half, zero) * y)


def _axes(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _opposite(z: Array) -> Array:
    """The entry of frequency ``-k`` at ``k``."""
    return jnp.roll(jnp.flip(z, _axes(z)), 1, _axes(z))

"""Convolution, with a gradient for the kernel that is fast on CPUs.

XLA's CPU backend contracts forward convolutions and gradients for the input at about twice the rate of those
for the kernel: the window of these is the whole image, and their innermost axis the batch, which is short.
A convolution is also a sum, over the rows of its kernel, of one-dimensional convolutions whose images are the
rows of the batch.  The gradient of such a sum has the rows of all images as its innermost axis, and contracts
faster.
"""

import functools
from typing import Any

import jax
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero


def convolve(x: Array, kernel: Array, stride: int, padding: tuple[int, int], dilation: int = 1) -> Array:
    """``(B, *S, I)`` with a kernel ``(*K, I, O)``, every spatial axis alike, padded with zeros."""
    simple = x.ndim == 4 and stride == 1 and dilation == 1 and x.shape[-1] >= _FEWEST_CHANNELS
    if simple and jax.default_backend() == "cpu":
        return _with_row_gradient(x, kernel, padding)
    return plain(x, kernel, stride, padding, dilation)


_FEWEST_CHANNELS = 64  # below, the copies cost more than the contraction gains


def plain(x: Array, kernel: Array, stride: int, padding: tuple[int, int], dilation: int = 1) -> Array:
    """``convolve`` by XLA alone, gradients included."""
    rank = x.ndim - 2
    last = rank + 1
    spatial = tuple(range(1, last))
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,) * rank,
        padding=(padding,) * rank,
        rhs_dilation=(dilation,) * rank,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, last, *spatial), (last, rank, *range(rank)), (0, last, *spatial)
        ),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _with_row_gradient(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    return plain(x, kernel, 1, padding)


@functools.partial(_with_row_gradient.defjvp, symbolic_zeros=True)
def _tangent(padding: tuple[int, int], primals: Any, tangents: Any) -> tuple[Array, Any]:
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(plain(dx, kernel, 1, padding))
    if not isinstance(dkernel, SymbolicZero):
        terms.append(by_rows(x, dkernel, padding))
    out = plain(x, kernel, 1, padding)
    return out, sum(terms[1:], start=terms[0]) if terms else SymbolicZero.from_primal_value(out)


def by_rows(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    """The same for two spatial axes and stride 1, as one-dimensional convolutions with the kernel's rows."""
    batch, height, width, channels = x.shape
    rows = height + sum(padding) - kernel.shape[0] + 1
    x = lax.pad(x, x.dtype.type(0), [(0, 0, 0), (*padding, 0), (0, 0, 0), (0, 0, 0)])
    total = None
    for i in range(kernel.shape[0]):
        lines = x[:, i : i + rows].reshape(batch * rows, width, channels)
        term = plain(lines, kernel[i], 1, padding)
        total = term if total is None else total + term
    assert total is not None
    return total.reshape(batch, rows, -1, kernel.shape[-1])

"""Convolution of any number of spatial axes, and by fewer multiplications where that is faster."""

import jax
from jax import Array, lax

from score_sde.cpu import winograd


def convolve(x: Array, kernel: Array, stride: int, padding: tuple[int, int], dilation: int = 1) -> Array:
    """``(B, *S, I)`` with a kernel ``(*K, I, O)``, every spatial axis alike, padded with zeros.

    On a CPU those that ``winograd.pays`` names, in float32, are computed by it, which rounds to about 3e-6 of
    the largest value (XLA's own convolution to 1e-6).
    """
    fits = stride == dilation == 1 and padding == (1, 1) and winograd.pays(x, kernel)
    if fits and jax.default_backend() == "cpu" and winograd.understands(x, kernel):
        return winograd.convolve(x, kernel)
    return plain(x, kernel, stride, padding, dilation)


def plain(x: Array, kernel: Array, stride: int, padding: tuple[int, int], dilation: int = 1) -> Array:
    """``convolve`` by XLA alone."""
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

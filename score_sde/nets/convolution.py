"""Convolution of any number of spatial axes."""

from jax import Array, lax

from score_sde.cpu import winograd

PRIMITIVES = (lax.conv_general_dilated_p, winograd.CONVOLUTION)
"""What ``convolve`` is in a program: one of these."""


def convolve(x: Array, kernel: Array, stride: int, padding: tuple[int, int], dilation: int = 1) -> Array:
    """``(B, *S, I)`` with a kernel ``(*K, I, O)``, every spatial axis alike, padded with zeros.

    Where ``winograd`` takes them, on a CPU, numbers differ by rounding from those of ``plain``.
    """
    if stride == dilation == 1 and padding == (1, 1) and winograd.takes(x, kernel):
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

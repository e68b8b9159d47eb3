"""Up- and down-sampling by two, for channels-last arrays of any spatial rank.

A finite impulse response (FIR) filter is a short kernel such as ``(1, 3, 3, 1)``.  Up-sampling
inserts zeros and filters, down-sampling filters and keeps every second value; the same kernel
acts along every spatial axis, and the border is padded with zeros (Karras et al. 2020,
arXiv:1912.04958, section 4 and appendix B; used in NCSN++ by Song et al. 2021,
arXiv:2011.13456, section 4.4 and appendix H).

The box ``(1, 1)`` gives the naive pair: nearest-neighbour up-sampling and the mean of 2 x ... x 2
cells.  Hence no function here needs to know whether a network "uses FIR".

Every filter is a sum of shifted copies, one axis after the other, and only the values that are
kept are computed.  A grouped convolution would say the same in one call and is far slower on CPU.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

BOX = (1.0, 1.0)


def upsample(x: Array, kernel: Sequence[float] = BOX, margin: int = 0) -> Array:
    """Double every spatial size, keeping the mean brightness of the interior.

    Args:
      x: ``(B, *S, C)``.
      kernel: at least two filter taps; any scale, they are normalised to sum to one.
      margin: how many values to compute beyond each border, as if zeros continued there.

    Returns:
      ``(B, *(2 S + 2 margin), C)``.

    Raises:
      ValueError: the kernel is too short or sums to zero.
    """
    taps = _normalised(kernel)
    for axis in range(1, x.ndim - 1):
        x = _interpolate(x, taps, axis, margin)
    return x


def downsample(x: Array, kernel: Sequence[float] = BOX) -> Array:
    """Halve every (even) spatial size: ``(B, *S, C)`` to ``(B, *(S / 2), C)``.

    Args:
      x: ``(B, *S, C)``.
      kernel: as in ``upsample``.

    Raises:
      ValueError: the kernel is too short or sums to zero.
    """
    taps = _normalised(kernel)
    for axis in range(1, x.ndim - 1):
        x = _filter(x, taps, axis, margin=0, stride=2)
    return x


def smooth(x: Array, kernel: Sequence[float], margin: int = 0) -> Array:
    """Filter without resampling: ``(B, *S, C)`` to ``(B, *(S - 1 + 2 margin), C)``.

    The points of the output are between those of the input, so that one of every two values is exactly
    ``downsample``.  With ``margin=1`` and a 3-wide convolution of stride 2 and no padding behind
    it, this is StyleGAN2's fused filter-and-convolve.
    """
    taps = _normalised(kernel)
    for axis in range(1, x.ndim - 1):
        x = _filter(x, taps, axis, margin, stride=1)
    return x


def _normalised(kernel: Sequence[float]) -> list[float]:
    """Taps that sum to one, last first: sliding them over x is a convolution."""
    total = float(sum(kernel))
    if len(kernel) < 2 or total == 0.0:
        raise ValueError(f"fir_kernel={tuple(kernel)}: needs two or more taps with a nonzero sum")
    return [float(tap) / total for tap in reversed(kernel)]


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])


def _sum(terms: list[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _filter(x: Array, taps: list[float], axis: int, margin: int, stride: int) -> Array:
    """Zero-padded filter along one axis; for 4 taps and no margin the padding is (1, 1)."""
    excess = len(taps) - 2
    x = _pad(x, axis, (excess + 1) // 2 + margin, excess // 2 + margin)
    last = (x.shape[axis] - len(taps)) // stride * stride
    return _sum([tap * lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i, tap in enumerate(taps)])


def _interpolate(x: Array, taps: list[float], axis: int, margin: int) -> Array:
    """Insert zeros, pad and filter along one axis; for 4 taps the padding is (2, 1).

    Output ``2 q + phase`` sees input ``q + shift`` through tap ``i`` only where
    ``phase + i - before = 2 shift``; the other taps meet inserted zeros.
    """
    before = (len(taps) - 1) // 2 + 1 + margin
    size = x.shape[axis] + margin
    first = -((before + 1) // 2)
    x = _pad(x, axis, -first, len(taps))
    phases = []
    for phase in (0, 1):
        terms = [
            2.0 * tap * lax.slice_in_dim(x, shift - first, shift - first + size, 1, axis)
            for i, tap in enumerate(taps)
            for shift, odd in [divmod(phase + i - before, 2)]
            if not odd
        ]
        phases.append(_sum(terms))
    shape = (*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)

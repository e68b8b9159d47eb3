"""Pictures of any size to the 299x299 of Inception: the conventions of published numbers, by name.

The convention changes a score by more than many a paper improves it (Parmar et al. 2022, arXiv:2104.11222),
so it is part of every protocol.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from PIL import Image

from score_sde.nets.inception import SIDE


def bilinear_matrix(size: int, side: int, *, half_pixel: bool) -> np.ndarray:
    """``(side, size)`` float32: linear interpolation of ``size`` pixels at ``side`` places, not antialiased.

    Args:
      half_pixel: pixel ``i`` has its centre at ``i + 1/2`` (PyTorch with ``align_corners=False``); else at
        ``i`` (TensorFlow 1).
    """
    offset = 0.5 if half_pixel else 0.0
    # In float32, as the networks' own preprocessing does it.
    place = (np.arange(side, dtype=np.float32) + np.float32(offset)) * np.float32(size / side)
    place = np.maximum(place - np.float32(offset), 0)
    low = np.minimum(np.floor(place).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    part = (place - low).astype(np.float32)
    matrix = np.zeros((side, size), np.float32)
    rows = np.arange(side)
    np.add.at(matrix, (rows, low), 1 - part)
    np.add.at(matrix, (rows, high), part)
    return matrix


def _bilinear(x: Array, half_pixel: bool) -> Array:
    """``(B, H, W, C)`` to ``(B, 299, 299, C)``."""
    rows, columns = (bilinear_matrix(n, SIDE, half_pixel=half_pixel) for n in x.shape[1:3])
    x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("jw,biwc->bijc", columns, x, precision=lax.Precision.HIGHEST)


def tensorflow(x: Array) -> Array:
    """As TensorFlow 1 and torch-fidelity, ``(x - 128) / 128``: ``(B, H, W, 3)`` to ``(B, 299, 299, 3)``."""
    return (_bilinear(x, half_pixel=False) - 128) / 128


def pytorch_fid(x: Array) -> Array:
    """As pytorch-fid, ``2 x / 255 - 1``: ``(B, H, W, 3)`` to ``(B, 299, 299, 3)``."""
    return 2 * _bilinear(x / 255, half_pixel=True) - 1


def clean(x: Array) -> Array:
    """As clean-fid, after ``bicubic``: ``(x - 128) / 128``."""
    return (x - 128) / 128


def bicubic(x: np.ndarray) -> np.ndarray:
    """Pillow's antialiased bicubic filter on each channel in floating point, neither rounded nor clipped.

    ``(B, H, W, C)`` to ``(B, 299, 299, C)`` float32, on the host.
    """
    x = np.asarray(x, np.float32)
    if x.shape[1:3] == (SIDE, SIDE):
        return x
    out = np.empty((len(x), SIDE, SIDE, x.shape[-1]), np.float32)
    for i, image in enumerate(x):
        for c in range(x.shape[-1]):
            channel = Image.fromarray(np.ascontiguousarray(image[..., c]))  # mode "F"
            out[i, ..., c] = np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return out


def unchanged(x: np.ndarray) -> np.ndarray:
    """For what the device does by itself."""
    return x


# name -> on the host (uint8 pictures), then on the device (float32 in 0..255)
RESIZES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[Array], Array]]] = {
    "clean": (bicubic, clean),
    "tensorflow": (unchanged, tensorflow),
    "pytorch_fid": (unchanged, pytorch_fid),
}

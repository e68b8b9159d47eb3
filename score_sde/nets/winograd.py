"""Convolution with 3x3 kernels by half the multiplications, for CPUs.

The product of polynomials of degrees 3 and 2 is determined by its values at six points, and read backwards
this gives four outputs of a filter of three taps for six multiplications in place of twelve (Winograd 1980;
Lavin and Gray, arXiv:1509.09308, F(4, 3) in their notation, at the points 0, 1, -1, 2, -2 and infinity).
Here that is done along the width: six convolutions with columns of three, of images a quarter as wide.  Along
both axes it would save a factor of four, for six times as many small operations and thrice the rounding.

XLA's own convolution runs on CPUs at close to the rate of their multipliers, so that half the multiplications
are nearly half the time; accelerators' libraries do such things themselves.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

OUTPUTS, TAPS = 4, 3
# Below, the transforms cost more than they save, and compiling them too.
_FEWEST_CHANNELS, _NARROWEST, _LEAST_PRODUCTS = 32, 8, 2**22

# Outputs are FROM_PRODUCTS @ ((OF_KERNEL @ taps) * (OF_INPUT @ inputs)).
OF_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
OF_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
FROM_PRODUCTS = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)


def pays(x: Array, kernel: Array) -> bool:
    """Whether ``convolve`` takes these and is faster than XLA's convolution, by measurement."""
    return (
        x.ndim == 4
        and kernel.shape[:2] == (TAPS, TAPS)
        and x.dtype == kernel.dtype == jnp.float32
        and min(kernel.shape[2:]) >= _FEWEST_CHANNELS
        and x.shape[2] >= _NARROWEST
        and math.prod((*x.shape[1:3], *kernel.shape[2:])) >= _LEAST_PRODUCTS
    )


@jax.jit  # traced once for all layers of a size, for it is many operations
def convolve(x: Array, kernel: Array) -> Array:
    """``(B, H, W, I)`` with ``(3, 3, I, O)``, padded by one zero at each side: ``(B, H, W, O)``, float32."""
    inputs, taps = _segments(x), [kernel[:, i] for i in range(TAPS)]
    products = [
        _columns(_combined(of_input, inputs), _combined(of_kernel, taps))
        for of_input, of_kernel in zip(OF_INPUT, OF_KERNEL, strict=True)
    ]
    outputs = [_combined(weights, products) for weights in FROM_PRODUCTS]
    batch, height, _, channels = outputs[0].shape
    return jnp.stack(outputs, axis=3).reshape(batch, height, -1, channels)[:, :, : x.shape[2]]


def _segments(x: Array) -> list[Array]:
    """Elements 0 to 5 of the overlapping segments that every fourth column begins: ``(B, H, W / 4, I)`` each.

    By one split of each array, so that the gradient of all of them is one concatenation.
    """
    batch, height, width, channels = x.shape
    count = -(-width // OUTPUTS)
    right = OUTPUTS * (count + 1) - width - 1
    x = lax.pad(x, x.dtype.type(0), [(0, 0, 0), (0, 0, 0), (1, right, 0), (0, 0, 0)])
    x = x.reshape(batch, height, count + 1, OUTPUTS, channels)
    own = lax.split(x[:, :, :count], (1,) * OUTPUTS, axis=3)
    of_next = lax.split(x[:, :, 1:, : TAPS - 1], (1,) * (TAPS - 1), axis=3)
    return [element.squeeze(3) for element in (*own, *of_next)]


def _combined(weights: np.ndarray, arrays: list[Array]) -> Array:
    """The sum of some arrays, each times a number that is mostly 0, 1 or -1."""
    terms = [
        array if weight == 1 else np.float32(weight) * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return functools.reduce(jnp.add, terms)


@jax.custom_jvp
def _columns(x: Array, taps: Array) -> Array:
    """``(B, H, W, I)`` along the height with ``(3, I, O)``.

    XLA computes the gradient of the taps as a convolution whose window is the whole image, at half the rate
    of matrix products; written as a sum over the taps it is these.
    """
    return lax.conv_general_dilated(
        x, taps[:, None], (1, 1), ((1, 1), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(_columns.defjvp, symbolic_zeros=True)
def _tangent(primals: Any, tangents: Any) -> tuple[Array, Any]:
    (x, taps), (dx, dtaps) = primals, tangents
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_columns(dx, taps))
    if not isinstance(dtaps, SymbolicZero):
        height = x.shape[1]
        padded = lax.pad(x, x.dtype.type(0), [(0, 0, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0)])
        terms += [padded[:, i : i + height] @ dtaps[i] for i in range(TAPS)]
    out = _columns(x, taps)
    return out, functools.reduce(jnp.add, terms) if terms else SymbolicZero.from_primal_value(out)

"""Convolution with 3x3 kernels by a quarter of the multiplications, for CPUs.

The product of polynomials of degrees 3 and 2 is determined by its values at six points, and read backwards
this gives four outputs of a filter of three taps for six multiplications in place of twelve (Winograd 1980;
Lavin and Gray, arXiv:1509.09308, F(4, 3) in their notation).  Along both axes a square of 4x4 pixels takes 36
products for each pair of channels in place of 144:

    y = FROM_PRODUCTS ((OF_KERNEL g) * (OF_INPUT d))

where each matrix acts along both axes, and for all squares and channels ``*`` is 36 matrix products.  What
the other matrices do to squares is a sum of shifted images, along one axis and then the other, in half the
time of a matrix product and of the copies that it would need.  The points are 0, 3/4, -3/4, 3/2, -3/2 and
infinity: with 0, 1, -1, 2 and -2 rounding errors are thrice as large.  Accelerators' libraries do such things
themselves.

``convolve`` rounds to about 3e-6 of the largest value, XLA's own convolution to 1e-6.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from score_sde.cpu import switch

OUTPUTS, TAPS = 4, 3
INPUTS = OUTPUTS + TAPS - 1
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

# Below, the transforms cost more than they save.  Tiles of one image: by those of the batch an example's
# rounding would depend on what it is computed with.
_FEWEST_CHANNELS, _FEWEST_TILES, _LEAST_USE = 32, 4, 0.75


def matrices(points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``a, g, b`` with ``a @ ((g @ taps) * (b @ inputs))`` the filter's outputs, by five points and infinity.

    Returns:
      ``(4, 6)``, ``(6, 3)`` and ``(6, 6)``, float64: values of the taps' polynomial at the points, each over
      its Lagrange denominator, and the transposes of evaluation and of interpolation.
    """
    others = [[q for q in points if q != p] for p in points]
    powers = np.vander(points, increasing=True)
    at_infinity = np.eye(INPUTS)[-1:]
    denominators = np.array([np.prod(np.subtract(p, rest)) for p, rest in zip(points, others, strict=True)])
    of_kernel = np.vstack([powers[:, :TAPS] / denominators[:, None], at_infinity[:, -TAPS:]])
    from_products = np.vstack([powers[:, :OUTPUTS], at_infinity[:, -OUTPUTS:]]).T
    rows = [np.append(np.poly(rest)[::-1], 0.0) for rest in others]
    return from_products, of_kernel, np.vstack([*rows, np.poly(points)[::-1]])


FROM_PRODUCTS, OF_KERNEL, OF_INPUT = (matrix.astype(np.float32) for matrix in matrices(POINTS))


def takes(x: Array, kernel: Array) -> bool:
    """Whether ``convolve`` is the one to use: on a CPU, by ``switch``, where it can be and is faster."""
    return pays(x, kernel) and switch.acts() and understands(x, kernel)


def pays(x: Array, kernel: Array) -> bool:
    """Whether ``convolve`` takes these and is faster than XLA's convolution, by measurement."""
    if x.ndim != 4 or kernel.shape[:2] != (TAPS, TAPS) or not x.dtype == kernel.dtype == np.float32:
        return False
    height, width = x.shape[1:3]
    tiles = _count(height) * _count(width)
    return (
        min(kernel.shape[2:]) >= _FEWEST_CHANNELS
        and tiles >= _FEWEST_TILES
        and height * width >= _LEAST_USE * OUTPUTS**2 * tiles
    )


def understands(x: Array, kernel: Array) -> bool:
    """Whether their types, as JAX prints them, are shapes alone.

    Others say how a value is split over a mesh or along which of its axes it varies (inside a ``shard_map``
    that checks this), from which JAX concludes where gradients are summed; ``convolve`` would drop that.
    """
    return all(str(jax.typeof(a)) == f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in (x, kernel))


def convolve(x: Array, kernel: Array) -> Array:
    """``(B, H, W, I)`` with ``(3, 3, I, O)``, padded by one zero at each side: ``(B, H, W, O)``, float32."""
    return CONVOLUTION.bind(x, kernel)


@jax.jit  # traced once for all layers of a size
def _convolve(x: Array, kernel: Array) -> Array:
    batch, height, width, fewer = x.shape
    rows, columns, more = _count(height), _count(width), kernel.shape[-1]
    taps = _times(OF_KERNEL, kernel.reshape(TAPS**2, fewer, more))
    products = _inputs(x).reshape(INPUTS**2, -1, fewer) @ taps
    y = products.reshape(INPUTS, INPUTS, batch, rows, columns, 1, more)
    y = _from_points(FROM_PRODUCTS, jnp.split(y, INPUTS, 1), 5)
    y = y.reshape(INPUTS, batch, rows, 1, columns, OUTPUTS, more)
    y = _from_points(FROM_PRODUCTS, jnp.split(y, INPUTS, 0), 3)
    return y.reshape(batch, OUTPUTS * rows, OUTPUTS * columns, more)[:, :height, :width]


@functools.partial(jax.jit, static_argnames="groups")
def _correlate(x: Array, y: Array, groups: int = 1) -> Array:
    """What ``y``, a cotangent of the outputs, says of the kernel: the transposes of the three matrices.

    Args:
      groups: of examples, whose products are summed last.  Where the examples are split over so many devices
        these then sum 9 numbers for a pair of channels and not the 36 products.
    """
    groups = groups if x.shape[0] % groups == 0 else 1
    inputs = _inputs(x).reshape(INPUTS**2, groups, -1, x.shape[-1])
    y = _at_points(FROM_PRODUCTS.T, _shifted(_padded(y), OUTPUTS, 3), 0)
    y = _at_points(FROM_PRODUCTS.T, _shifted(y, OUTPUTS, 4), 1)
    outputs = y.reshape(INPUTS**2, groups, -1, y.shape[-1])
    products = lax.dot_general(inputs, outputs, (((2,), (2,)), ((0, 1), (0, 1))))  # (36, groups, I, O)
    taps = jnp.sum(_times(OF_KERNEL.T, products), 1)
    return taps.reshape(TAPS, TAPS, *taps.shape[1:])


def _turned(kernel: Array) -> Array:
    """The kernel that takes cotangents of the outputs to those of the inputs."""
    return lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)


def _bilinear(name: str, function: Callable[..., Array], in_groups: bool = False) -> Primitive:
    """``function`` as one step of a program, whose derivatives are those that are given for it.

    Args:
      in_groups: a program for several devices calls it with ``groups`` of their number.
    """
    primitive = Primitive(name)
    primitive.def_impl(function)

    def shape(a: ShapedArray, b: ShapedArray) -> ShapedArray:
        result = jax.eval_shape(function, a, b)
        return ShapedArray(result.shape, result.dtype)

    def batched(args: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
        return jax.vmap(function, axes)(*args), 0

    def lower(context: mlir.LoweringRuleContext, *args):
        over = context.module_context.axis_context  # another inside a ``shard_map``, where a device is alone
        devices = over.num_devices if isinstance(over, mlir.ShardingContext) else 1
        one = functools.partial(function, groups=devices) if in_groups and devices > 1 else function
        return mlir.lower_fun(one, multiple_results=False)(context, *args)

    primitive.def_abstract_eval(shape)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, lower)
    return primitive


# The gradients of a convolution are a convolution and a correlation, whose gradients are such again.  JAX's
# own, transposes of the products, are the same sums in orders that take a CPU longer, and keep what is
# transformed, which is larger than what it is of.
CONVOLUTION = _bilinear("winograd", _convolve)
CORRELATION = _bilinear("winograd_correlation", _correlate, in_groups=True)
ad.defbilinear(
    CONVOLUTION,
    lambda out, x, kernel: CONVOLUTION.bind(out, _turned(kernel)),
    lambda out, x, kernel: CORRELATION.bind(x, out),
)
ad.defbilinear(
    CORRELATION,
    lambda out, x, y: CONVOLUTION.bind(y, _turned(out)),
    lambda out, x, y: CONVOLUTION.bind(x, out),
)


def _count(size: int) -> int:
    """Tiles along an axis."""
    return -(-size // OUTPUTS)


def _inputs(x: Array) -> Array:
    """``OF_INPUT d`` for the squares of 6x6 that begin at every fourth row and column of the padded image:
    ``(6, 6, B, rows, columns, I)``."""
    x = _at_points(OF_INPUT, _shifted(_padded(x, 1, 1), INPUTS, 3), 0)
    return _at_points(OF_INPUT, _shifted(x, INPUTS, 4), 1)


def _padded(x: Array, before: int = 0, after: int = 0) -> Array:
    """``(1, 1, B, H, W, C)``: zeros until the sizes are multiples of four, then ``before`` and ``after``."""
    sides = [(before, OUTPUTS * _count(size) - size + after, 0) for size in x.shape[1:3]]
    return lax.pad(x, x.dtype.type(0), [(0, 0, 0), *sides, (0, 0, 0)])[None, None]


def _shifted(x: Array, parts: int, axis: int) -> list[Array]:
    """Every fourth along ``axis``, from the first on, from the second on and so forth."""
    reach = x.shape[axis] - parts + 1
    return [lax.slice_in_dim(x, i, i + reach, OUTPUTS, axis) for i in range(parts)]


def _at_points(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """``matrix @ parts``, the results side by side along ``axis``, where the parts have one.

    The matrix has a row for each point.  Those of a point and of its negative differ in the signs of every
    second number, so that both are made of two sums.
    """
    values = [_sum(matrix[0], parts)]
    for row in matrix[1:-1:2]:
        even, odd = (_sum(np.where(np.arange(len(row)) % 2 == i, row, 0), parts) for i in (0, 1))
        values += [even + odd, even - odd]
    return lax.concatenate([*values, _sum(matrix[-1], parts)], axis)


def _from_points(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """The same for a matrix that has a column for each point."""
    zero, *pairs, infinity = parts
    even = [p + q for p, q in zip(pairs[::2], pairs[1::2], strict=True)]
    odd = [p - q for p, q in zip(pairs[::2], pairs[1::2], strict=True)]
    one_of_a_pair = matrix[:, [0, 1, 3, 5]]
    rows = [_sum(row, [zero, *(odd if i % 2 else even), infinity]) for i, row in enumerate(one_of_a_pair)]
    return lax.concatenate(rows, axis)


def _sum(weights: np.ndarray, parts: list[Array]) -> Array:
    """Weighted; nothing is left of what has none."""
    terms = [x if w == 1 else w * x for w, x in zip(weights, parts, strict=True) if w]
    return functools.reduce(jnp.add, terms)


def _times(matrix: np.ndarray, x: Array) -> Array:
    """``matrix`` along both of two axes, which are the first of ``x`` as one."""
    return lax.dot_general(np.kron(matrix, matrix), x, (((1,), (0,)), ((), ())))

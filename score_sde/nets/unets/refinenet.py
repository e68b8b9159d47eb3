"""The layers of RefineNet (Lin et al. 2017, arXiv:1611.06612) as NCSN and NCSNv2 use them.

Arrays are ``(B, *S, C)`` for any number of spatial axes S.  Parameters are float32.  Convolutions
and sums run in each layer's ``dtype``, statistics in float32.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from score_sde.nets.initial import described
from score_sde.nets.layers import convolve
from score_sde.nets.resample import downsample

# How a coarse feature map meets a fine one: positions of the fine samples on the coarse grid.
INTERPOLATIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    # The first and last samples of both grids coincide.
    "align_corners": lambda i, coarse, fine: i * ((coarse - 1) / max(fine - 1, 1)),
    # The outer edges of the first and last cells of both grids coincide.
    "half_pixel": lambda i, coarse, fine: (i + 0.5) * (coarse / fine) - 0.5,
    "nearest": lambda i, coarse, fine: np.floor((i + 0.5) * (coarse / fine)),
}


def resize(x: Array, sizes: tuple[int, ...], interpolation: str) -> Array:
    """Multilinear interpolation of ``(B, *S, C)`` to the spatial ``sizes``, which are not smaller."""
    for axis, fine in enumerate(sizes, start=1):
        coarse = x.shape[axis]
        if coarse == fine:
            continue
        where = INTERPOLATIONS[interpolation](np.arange(fine), coarse, fine)
        where = np.clip(where, 0, coarse - 1)
        left = np.minimum(where.astype(np.int64), max(coarse - 2, 0))
        right = np.minimum(left + 1, coarse - 1)
        along = [-1 if i == axis else 1 for i in range(x.ndim)]
        share = jnp.asarray((where - left).reshape(along), x.dtype)
        x = jnp.take(x, left, axis) * (1 - share) + jnp.take(x, right, axis) * share
    return x


def _window(x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A 5-wide window at every position."""
    return (1, *(5,) * (x.ndim - 2), 1), (1,) * x.ndim


def max_pool(x: Array) -> Array:
    """Maximum over the 5 x ... x 5 neighbours that exist."""
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *_window(x), "SAME")


def mean_pool(x: Array) -> Array:
    """Mean over 5 x ... x 5 neighbours, zeros beyond the border counted in."""
    total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, *_window(x), "SAME")
    return total / 5 ** (x.ndim - 2)


@dataclass(frozen=True)
class Style:
    """What all the blocks of one network have in common.

    Attributes:
      norm: makes the normalisation of the residual blocks, called with a ``name``.
      refine_norm: the same for the refinement blocks; None for none there.
      pool: of the chained pooling, ``max_pool`` or ``mean_pool``.
      interpolation: a key of ``INTERPOLATIONS``.
      act: the nonlinearity.
      dtype: of the computation.
    """

    norm: Callable[..., nn.Module]
    refine_norm: Callable[..., nn.Module] | None
    pool: Callable[[Array], Array]
    interpolation: str
    act: Callable[[Array], Array]
    dtype: str

    def refine_normed(self, x: Array, level: Array, name: str) -> Array:
        """Normalised where refinement blocks are."""
        return x if self.refine_norm is None else self.refine_norm(name=name)(x, level)


class Conv(nn.Module):
    """A convolution of odd ``width``, drawn uniformly within ``1 / sqrt(fan_in)``, its bias too."""

    features: int
    width: int = 3
    dilation: int = 1
    bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.width,) * (x.ndim - 2) + (x.shape[-1], self.features)
        initial = described("uniform", 1 / math.sqrt(math.prod(shape[:-1])))
        kernel = self.param("kernel", initial, shape).astype(self.dtype)
        margin = self.dilation * (self.width // 2)
        y = convolve(x.astype(self.dtype), kernel, 1, (margin, margin), self.dilation)
        if not self.bias:
            return y
        bias = self.param("bias", initial, (self.features,)).astype(self.dtype)
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ (Song and Ermon 2019, arXiv:1907.05600, appendix A), in float32.

    Instance normalisation that gives back the means it took away, standardised over the channels
    and times ``alpha``; then scaled by ``gamma`` and shifted by ``beta``.

    Attributes:
      levels: if positive, the three depend on the noise level, one row for each.
      unbiased: whether the variance of the means of C channels divides by ``C - 1``, not by C.
    """

    levels: int = 0
    unbiased: bool = False

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        """``x``: ``(B, *S, C)``; ``level``: ``(B,)`` integers, of which a wrong one gives NaN."""
        near_one, zero = described("normal", 0.02, 1.0), described("constant", 0.0)
        shape = (self.levels, x.shape[-1]) if self.levels else x.shape[-1:]
        alpha, gamma, beta = (
            self._row(self.param(name, initial, shape), level, x)
            for name, initial in (("alpha", near_one), ("gamma", near_one), ("beta", zero))
        )
        y = x.astype(jnp.float32)
        space = tuple(range(1, x.ndim - 1))
        means = jnp.mean(y, axis=space, keepdims=True)
        variance = jnp.var(y, axis=space, keepdims=True)
        spread = jnp.var(means, axis=-1, keepdims=True, ddof=int(self.unbiased))
        means_again = (means - jnp.mean(means, axis=-1, keepdims=True)) * lax.rsqrt(spread + 1e-5)
        y = (y - means) * lax.rsqrt(variance + 1e-5) + alpha * means_again
        return (gamma * y + beta).astype(x.dtype)

    def _row(self, table: Array, level: Array, x: Array) -> Array:
        """The parameters of each example, ``(B or 1, 1, ..., 1, C)``."""
        if self.levels:
            known = jnp.where(level < 0, self.levels, level)  # a negative index would count backwards
            table = table.at[known].get(mode="fill", fill_value=jnp.nan)
        return table.reshape((-1,) + (1,) * (x.ndim - 2) + x.shape[-1:])


class InstanceNorm(nn.Module):
    """Zero mean and unit variance of every example and channel, in float32; no parameters."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        """``x``: ``(B, *S, C)``; ``level``: unused."""
        y = x.astype(jnp.float32)
        space = tuple(range(1, x.ndim - 1))
        y = y - jnp.mean(y, axis=space, keepdims=True)
        variance = jnp.mean(jnp.square(y), axis=space, keepdims=True)
        return (y * lax.rsqrt(variance + self.epsilon)).astype(x.dtype)


class VarianceNorm(nn.Module):
    """Unit variance of every example and channel, the means kept, times ``alpha``; in float32.

    Attributes:
      unbiased: whether the variance of P pixels divides by ``P - 1``, not by P.
    """

    unbiased: bool = False

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        """``x``: ``(B, *S, C)``; ``level``: unused."""
        alpha = self.param("alpha", described("normal", 0.02, 1.0), x.shape[-1:])
        y = x.astype(jnp.float32)
        space = tuple(range(1, x.ndim - 1))
        variance = jnp.var(y, axis=space, keepdims=True, ddof=int(self.unbiased))
        y = y * lax.rsqrt(variance + 1e-5)
        return (y * alpha.reshape((1,) * (x.ndim - 1) + alpha.shape)).astype(x.dtype)


class ResidualBlock(nn.Module):
    """Norm, activation, convolution, twice.

    ``down`` halves the resolution by 2 x 2 means; where the block is dilated it does not, and
    dilation widens the field of view instead (Song and Ermon 2019, appendix A).
    """

    features: int
    down: bool
    dilation: int
    style: Style

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        style, channels = self.style, x.shape[-1]
        conv = functools.partial(Conv, dilation=self.dilation, dtype=style.dtype)
        h = style.act(style.norm(name="norm_0")(x, level))
        h = conv(channels if self.down else self.features, name="conv_0")(h)
        h = style.act(style.norm(name="norm_1")(h, level))
        h = conv(self.features, name="conv_1")(h)
        if self.down or channels != self.features:
            x = conv(self.features, width=1 if self.dilation == 1 else 3, name="shortcut")(x)
        if self.down and self.dilation == 1:
            return downsample(x) + downsample(h)
        return x + h


class ResidualUnits(nn.Module):
    """Units of twice an activation and a convolution, each with a shortcut."""

    units: int
    style: Style

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        style = self.style
        for unit in range(self.units):
            h = x
            for i in (2 * unit, 2 * unit + 1):
                h = style.act(style.refine_normed(h, level, f"norm_{i}"))
                h = Conv(x.shape[-1], bias=False, dtype=style.dtype, name=f"conv_{i}")(h)
            x = x + h
        return x


class Fusion(nn.Module):
    """The sum of feature maps, converted to the wanted channels and resolution."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, maps: list[Array], sizes: tuple[int, ...], level: Array) -> Array:
        style = self.style
        total = None
        for i, h in enumerate(maps):
            h = style.refine_normed(h, level, f"norm_{i}")
            h = Conv(self.features, dtype=style.dtype, name=f"conv_{i}")(h)
            h = resize(h, sizes, style.interpolation)
            total = h if total is None else total + h
        assert total is not None
        return total


class ChainedPooling(nn.Module):
    """An activation, to which a chain of two poolings and convolutions adds its every link."""

    style: Style

    @nn.compact
    def __call__(self, x: Array, level: Array) -> Array:
        style = self.style
        x = link = style.act(x)
        for i in range(2):
            link = style.pool(style.refine_normed(link, level, f"norm_{i}"))
            link = Conv(x.shape[-1], bias=False, dtype=style.dtype, name=f"conv_{i}")(link)
            x = x + link
        return x


class Refinement(nn.Module):
    """One step from coarse to fine: units for every input, fusion, chained pooling, units.

    Attributes:
      features: channels of the output.
      units: residual units at the end.
    """

    features: int
    units: int
    style: Style

    @nn.compact
    def __call__(self, maps: list[Array], level: Array) -> Array:
        """``(B, *S, C)`` feature maps, the finest first, to ``(B, *S, features)`` of the finest."""
        style = self.style
        maps = [ResidualUnits(2, style, name=f"adapt_{i}")(h, level) for i, h in enumerate(maps)]
        h = maps[0]
        if len(maps) > 1:
            h = Fusion(self.features, style, name="fuse")(maps, h.shape[1:-1], level)
        h = ChainedPooling(style, name="pool")(h, level)
        return ResidualUnits(self.units, style, name="output")(h, level)

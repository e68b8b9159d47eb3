"""The layers of the U-Nets.  Arrays are ``(B, *S, C)`` for any number of spatial axes S.

Parameters are float32.  Convolutions, products and sums run in each layer's ``dtype``; group
statistics, the softmax and the noise embeddings are float32 always.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from score_sde.nets.convolution import convolve
from score_sde.nets.initial import Law, averaged, described
from score_sde.nets.resample import BOX, downsample, smooth, upsample

# Called with ``name``; what it makes is a layer, or chooses one when it sees its input.
MakeNorm = Callable[..., Callable[[Array], Array]]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "swish": jax.nn.swish,
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "lrelu": lambda x: jax.nn.leaky_relu(x, 0.2),
}
RESAMPLERS: dict[str, Callable[..., Array]] = {
    "none": lambda x, kernel: x,
    "up": upsample,
    "down": downsample,
}


def _along_channels(vector: Array, x: Array) -> Array:
    """A ``(C,)`` vector as ``(1, ..., 1, C)``; explicit, since rank promotion hides mistakes."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


class Dense(nn.Module):
    """An affine map of the last axis; on images, a convolution of width one."""

    features: int
    scale: float = 1.0
    bias: bool = True
    dtype: str = "float32"
    law: Law = averaged

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        initial, initial_bias = self.law(self.scale, shape)
        kernel = self.param("kernel", initial, shape)
        flat = x.astype(self.dtype).reshape(-1, x.shape[-1])  # one contracted axis in its gradients
        y = (flat @ kernel.astype(self.dtype)).reshape(*x.shape[:-1], self.features)
        if not self.bias:
            return y
        bias = self.param("bias", initial_bias, (self.features,))
        return y + _along_channels(bias.astype(self.dtype), y)


class ClassEmbedding(nn.Module):
    """A class, ``(B,)`` integers, as a vector: ``(B, features)``.

    A number outside ``0 ... classes - 1`` has an all-zero code, so it adds nothing: exactly the network
    without a class.  There is no bias, for that reason.
    """

    features: int
    classes: int
    dtype: str = "float32"
    law: Law = averaged

    @nn.compact
    def __call__(self, number: Array) -> Array:
        shape = (self.classes, self.features)
        kernel = self.param("kernel", self.law(1.0, shape)[0], shape)
        return jax.nn.one_hot(number, self.classes, dtype=self.dtype) @ kernel.astype(self.dtype)


class Conv(nn.Module):
    """A 3-wide convolution over as many spatial axes as ``x`` has.

    ``padding`` is the number of zeros before and after every spatial axis.
    """

    features: int
    scale: float = 1.0
    stride: int = 1
    padding: tuple[int, int] = (1, 1)
    dtype: str = "float32"
    law: Law = averaged

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (3,) * (x.ndim - 2) + (x.shape[-1], self.features)
        initial, initial_bias = self.law(self.scale, shape)
        kernel = self.param("kernel", initial, shape)
        bias = self.param("bias", initial_bias, (self.features,))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.padding)
        return y + _along_channels(bias.astype(self.dtype), y)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494), in float32.

    Without ``groups`` there are ``min(C // 4, 32)``, or the next smaller number that divides C.
    """

    epsilon: float = 1e-6
    groups: int | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        scale = self.param("scale", described("constant", 1.0), (channels,))
        bias = self.param("bias", described("constant", 0.0), (channels,))
        groups = self.groups
        if groups is None:
            groups = max(1, min(channels // 4, 32))
            while channels % groups:
                groups -= 1
        elif channels % groups:
            raise ValueError(f"groups={groups}: must divide the number of channels, {channels}")
        y = x.astype(jnp.float32).reshape(x.shape[0], -1, channels)
        y = y - _mean_of_groups(y, groups)
        variance = _mean_of_groups(y * y, groups)  # tangents of jnp.square are summed far slower on a CPU
        scale = _along_channels(scale, y) * lax.rsqrt(variance + self.epsilon)
        return (y * scale + _along_channels(bias, y)).reshape(x.shape).astype(x.dtype)


def _mean_of_groups(x: Array, groups: int) -> Array:
    """``(B, N, C)`` averaged over its positions and over each group of channels: ``(B, 1, C)``.

    First over the positions, all channels side by side, and then by a small product, so that a CPU works
    with whole vectors in both and in what follows.
    """
    size = x.shape[-1] // groups
    means = jnp.mean(x, axis=1).reshape(-1, size)
    every = jnp.full((size, size), 1 / size, x.dtype)
    return lax.dot(means, every, precision=lax.Precision.HIGHEST).reshape(-1, 1, x.shape[-1])


class Attention(nn.Module):
    """Residual self-attention over all spatial positions.

    Ho et al. 2020, arXiv:2006.11239, appendix B.  One head, or as many as there are full groups of
    ``head_channels`` (Dhariwal and Nichol 2021, arXiv:2105.05233, section 3).
    """

    init_scale: float = 0.0
    skip_rescale: bool = True
    dtype: str = "float32"
    head_channels: int = 0  # of each head; 0: there is one
    norm: MakeNorm | None = GroupNorm  # None: there is none
    law: Law = averaged
    scale: float = 0.1  # of query, key and value at the start

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        heads = max(1, channels // self.head_channels) if self.head_channels else 1
        h = x if self.norm is None else self.norm(name="norm")(x)
        h = h.reshape(x.shape[0], -1, channels)
        dense = functools.partial(Dense, channels, dtype=self.dtype, law=self.law)
        query, key, value = (
            dense(self.scale, name=name)(h).reshape(*h.shape[:2], heads, -1)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        h = dense(self.init_scale, name="out")(h)
        return join(x, h, self.skip_rescale)


class ResBlock(nn.Module):
    """Norm, activation, convolution, noise level; then norm, activation, dropout, convolution.

    With ``resample`` both branches change resolution inside the block (BigGAN, Brock et al. 2019,
    arXiv:1809.11096, figure 15; the filter as in Song et al. 2021, appendix H).  The shortcut is
    affine where the number of channels or the resolution changes, and the identity elsewhere.
    The block of Ho et al. 2020 is the same without resampling and with a small initial shortcut.
    With ``scale_shift`` the noise level multiplies and shifts the second normalised map instead of
    adding to its input (Dhariwal and Nichol 2021, arXiv:2105.05233, eq. 3); without
    ``project_resampled`` a shortcut that only changes resolution has no parameters.
    """

    features: int
    resample: str = "none"
    kernel: tuple[float, ...] = BOX
    shortcut_scale: float = 1.0
    nonlinearity: str = "swish"
    dropout: float = 0.0
    init_scale: float = 0.0
    skip_rescale: bool = True
    dtype: str = "float32"
    norm: MakeNorm = GroupNorm
    scale_shift: bool = False
    project_resampled: bool = True
    law: Law = averaged

    @nn.compact
    def __call__(self, x: Array, time: Array | None, train: bool) -> Array:
        """``x``: ``(B, *S, C)``; ``time``: ``(B, E)`` or None; gives ``(B, *S', features)``."""
        dense = functools.partial(Dense, dtype=self.dtype, law=self.law)
        conv = functools.partial(Conv, dtype=self.dtype, law=self.law)
        act = ACTIVATIONS[self.nonlinearity]
        resample = RESAMPLERS[self.resample]
        h = resample(act(self.norm(name="norm_0")(x)), self.kernel)
        h = conv(self.features, name="conv_0")(h)
        norm = self.norm(name="norm_1")
        if time is None:
            h = norm(h)
        else:
            width = self.features * (2 if self.scale_shift else 1)
            shift = dense(width, name="time")(act(time))
            shift = shift.reshape(shift.shape[:1] + (1,) * (h.ndim - 2) + shift.shape[1:])
            if self.scale_shift:
                scale, shift = jnp.split(shift, 2, axis=-1)
                h = norm(h) * (1.0 + scale) + shift
            else:
                h = norm(h + shift)
        h = act(h)
        h = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(h)
        h = conv(self.features, self.init_scale, name="conv_1")(h)
        projected = self.resample != "none" and self.project_resampled
        affine = projected or x.shape[-1] != self.features
        x = resample(x, self.kernel)
        if affine:
            x = dense(self.features, self.shortcut_scale, name="shortcut")(x)
        return join(x, h, self.skip_rescale)


class Downsample(nn.Module):
    """Half the resolution: a filter, then, where ``features`` is given, a convolution.

    ``kernel=None`` is the naive form: the mean of neighbours, or with features a plain strided
    convolution with ``padding``, by default at the far end only.
    """

    features: int | None
    kernel: tuple[float, ...] | None
    dtype: str = "float32"
    padding: tuple[int, int] = (0, 1)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.features is None:
            return downsample(x, self.kernel or BOX)
        padding = self.padding
        if self.kernel is not None:
            x, padding = smooth(x, self.kernel, margin=1), (0, 0)
        return Conv(self.features, 1.0, 2, padding, self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Twice the resolution: a filter, then, where ``features`` is given, a convolution.

    ``kernel=None`` is the naive form, nearest neighbours.
    """

    features: int | None
    kernel: tuple[float, ...] | None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.kernel or BOX
        if self.features is None:
            return upsample(x, kernel)
        # The convolution sees the filter's tail beyond the border, not zeros.
        x = upsample(x, kernel, margin=1)
        return Conv(self.features, padding=(0, 0), dtype=self.dtype, name="conv")(x)


class Combine(nn.Module):
    """Bring a pyramid into the feature map: affine to its channels, then ``sum`` or ``cat``."""

    method: str = "sum"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pyramid: Array, h: Array) -> Array:
        pyramid = Dense(h.shape[-1], dtype=self.dtype, name="conv")(pyramid)
        return pyramid + h if self.method == "sum" else jnp.concatenate([pyramid, h], axis=-1)


class FourierEmbedding(nn.Module):
    """Random Fourier features of the noise level: ``(B,)`` to ``(B, 2 features)`` float32.

    ``sin(2 pi w c), cos(2 pi w c)`` with ``w ~ N(0, scale^2)`` (Tancik et al. 2020,
    arXiv:2006.10739).  The frequencies are stored as a parameter but receive no gradient.  With
    ``frequencies_first`` they are multiplied by 2 pi before they meet c, which rounds otherwise: of
    thousands of turns, float32 keeps the last of them to a hundredth only.
    """

    features: int
    scale: float = 16.0
    frequencies_first: bool = False

    @nn.compact
    def __call__(self, c_noise: Array) -> Array:
        frequencies = self.param("frequencies", described("normal", self.scale), (self.features,))
        frequencies = lax.stop_gradient(frequencies)
        if self.frequencies_first:
            angle = c_noise[:, None] * (frequencies * (2 * math.pi))[None, :]
        else:
            angle = c_noise[:, None] * frequencies[None, :] * (2 * math.pi)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def positional_embedding(
    c_noise: Array, features: int, shift: float = 1.0, cosines_first: bool = False
) -> Array:
    """Sines, then cosines, of geometric frequencies: ``(B,)`` to ``(B, features)``.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in the arrangement of Ho et al. 2020.
    Frequency k of n is ``1e4 ** (-k / (n - shift))``: it ends at 1e-4 for the shift of Ho et al.,
    one, and one step before for zero, as in Vaswani et al.
    """
    half = features // 2
    frequencies = np.exp(np.arange(half) * (-math.log(1e4) / (half - shift))).astype(np.float32)
    angle = c_noise[:, None] * frequencies[None, :]
    waves = [jnp.sin(angle), jnp.cos(angle)]
    return jnp.concatenate(waves[::-1] if cosines_first else waves, axis=-1)


def join(x: Array, h: Array, rescale: bool) -> Array:
    """The sum of two branches, over sqrt(2) if ``rescale`` to keep the variance."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h

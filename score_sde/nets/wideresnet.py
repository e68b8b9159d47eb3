"""A classifier of noisy images: Wide ResNet (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

Song et al. 2021 (arXiv:2011.13456), appendix I, guide class-conditional sampling with one.
"""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.nets import checks, layers
from score_sde.nets.initial import described
from score_sde.nets.resample import downsample

EMBEDDING = 128  # Fourier frequencies; the noise level's vector is four times as wide
# Mean and standard deviation of the CIFAR-10 training set, for data in [0, 1].
CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)


class WideResNet(nn.Module):
    """Logits of every class from a noisy example and its noise level.

    The defaults are WRN-28-10 for CIFAR-10 as released, with group in place of batch
    normalisation.

    Attributes:
      num_classes: number of classes.
      blocks: residual blocks in each of the three groups; the depth is ``6 blocks + 4``.
      widen: channels are 16, 32 and 64 times this.
      mean, std: of the clean data for every channel, or one for all: the first operation takes
        them away.  Each example is then standardised as a whole.
      fourier_scale: standard deviation of the frequencies that embed the noise level.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
    """

    num_classes: int = 10
    blocks: int = 4
    widen: int = 10
    mean: tuple[float, ...] = CIFAR10_MEAN
    std: tuple[float, ...] = CIFAR10_STD
    fourier_scale: float = 16.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, cond: Cond, train: bool = False) -> Array:
        """Logits.

        Args:
          x: ``(B, *S, C)`` float32, spatial sizes divisible by 4.
          c_noise: ``(B,)`` float32, ``ln sigma``.
          cond: empty; the network takes no condition.
          train: unused, there is no dropout.

        Returns:
          ``(B, num_classes)`` float32.

        Raises:
          ValueError: a field or a shape that the network cannot work with.
        """
        check(self, x.shape, c_noise.shape)
        time = layers.FourierEmbedding(EMBEDDING, self.fourier_scale, name="time_embedding")(c_noise)
        time = layers.Dense(4 * EMBEDDING, dtype=self.dtype, name="time_dense_0")(time)
        time = nn.swish(layers.Dense(4 * EMBEDDING, dtype=self.dtype, name="time_dense_1")(nn.swish(time)))
        h = Conv(16, dtype=self.dtype, name="stem")(self._standardised(x))
        for group in range(3):
            for i in range(self.blocks):
                block = Block(
                    features=16 * 2**group * self.widen,
                    stride=2 if group and not i else 1,
                    activated_shortcut=not group and not i,
                    dtype=self.dtype,
                    name=f"group_{group}_block_{i}",
                )
                h = block(h, time)
        h = nn.relu(layers.GroupNorm(1e-5, name="out_norm")(h))
        h = jnp.mean(h.astype(jnp.float32), axis=tuple(range(1, h.ndim - 1)))
        return Logits(self.num_classes, name="out_dense")(h)

    def _standardised(self, x: Array) -> Array:
        row = (1,) * (x.ndim - 1) + (-1,)
        x = (x.astype(jnp.float32) - jnp.array(self.mean).reshape(row)) / jnp.array(self.std).reshape(row)
        over = tuple(range(1, x.ndim))
        floor = 1 / math.sqrt(math.prod(x.shape[1:]))  # for an example of one colour
        spread = jnp.maximum(jnp.std(x, axis=over, keepdims=True), floor)
        return (x - jnp.mean(x, axis=over, keepdims=True)) / spread


class Block(nn.Module):
    """Norm, relu, convolution, noise level, norm, relu, convolution; a shortcut without parameters.

    Where the number of channels grows, the shortcut is pooled and padded with zeros.  With
    ``activated_shortcut`` it starts behind the first activation.
    """

    features: int
    stride: int
    activated_shortcut: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Array, time: Array) -> Array:
        """``x``: ``(B, *S, C)``; ``time``: ``(B, E)``, activated."""
        norm = functools.partial(layers.GroupNorm, 1e-5)
        h = nn.relu(norm(name="norm_0")(x))
        if self.activated_shortcut:
            x = h
        h = Conv(self.features, self.stride, self.dtype, name="conv_0")(h)
        shift = layers.Dense(self.features, dtype=self.dtype, name="time")(time)
        h = h + shift.reshape(shift.shape[:1] + (1,) * (h.ndim - 2) + shift.shape[1:])
        h = nn.relu(norm(name="norm_1")(h))
        h = Conv(self.features, 1, self.dtype, name="conv_1")(h)
        if self.stride == 2:
            x = downsample(x)
        grown = h.shape[-1] - x.shape[-1]
        return h + jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, grown)])


class Conv(nn.Module):
    """A 3-wide convolution without bias, drawn as He et al. 2015 (arXiv:1502.01852) do, by fan-out."""

    features: int
    stride: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = (3,) * (x.ndim - 2)
        initial = described("normal", math.sqrt(2 / (math.prod(width) * self.features)))
        kernel = self.param("kernel", initial, (*width, x.shape[-1], self.features))
        padding = (0, 1) if self.stride == 2 else (1, 1)
        return layers.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)


class Logits(nn.Module):
    """The last affine map, in float32, drawn uniformly within ``1 / sqrt(features)``."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        initial = described("uniform", 1 / math.sqrt(self.features))
        kernel = self.param("kernel", initial, (x.shape[-1], self.features))
        bias = self.param("bias", described("constant", 0.0), (self.features,))
        return x @ kernel + bias[None]


def check(net: WideResNet, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
    """Refuse fields or shapes of ``(x, c_noise)`` that the network cannot work with.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    rows = (("mean", net.mean), ("std", net.std))
    checks.require(
        [
            *checks.choices(net, {"dtype": ("float32", "bfloat16")}),
            ("num_classes", net.num_classes, "at least 1", net.num_classes >= 1),
            ("blocks", net.blocks, "at least 1", net.blocks >= 1),
            ("widen", net.widen, "at least 1", net.widen >= 1),
            ("std", net.std, "positive", min(net.std, default=0) > 0),
            ("fourier_scale", net.fourier_scale, "positive", net.fourier_scale > 0),
            *checks.arguments(shape, noise_shape, divisor=4),
            *((f, row, f"one number or {shape[-1]}", len(row) in (1, shape[-1])) for f, row in rows),
        ]
    )

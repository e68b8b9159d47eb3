"""A residual multilayer perceptron: for examples without a grid, such as rows of a table."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond, Conditions
from score_sde.names import ReadIf
from score_sde.nets import checks, embedding, layers

CHOICES: dict[str, tuple[object, ...]] = {
    "embedding_type": ("fourier", "positional"),
    "nonlinearity": tuple(layers.ACTIVATIONS),
    "dtype": ("float32", "bfloat16"),
}


class MLP(nn.Module):
    """Residual blocks of two dense layers, which the noise level scales and shifts, on flattened examples.

    A block is that of ResNet MLPs for tables (Gorishniy et al. 2021, arXiv:2106.11959, eq. 2), with the noise
    level where diffusion transformers have it (Peebles and Xie 2022, arXiv:2212.09748, section 3.2).  The
    last layer of a block, and of the network, starts at zero.

    Attributes:
      width: of the residual stream.
      num_blocks: residual blocks.
      hidden_mult: multiple of ``width`` that the inner layer of a block has.
      dropout: probability, after the inner layer of a block.
      embedding_type: ``fourier`` embeds ``2 pi w c_noise``; ``positional`` embeds ``c_noise``.
      fourier_scale: standard deviation of w.
      nonlinearity: ``swish``, ``elu``, ``relu`` or ``lrelu`` (slope 0.2).
      conditions: what the network takes, by name: classes and vectors are added to the embedded noise level,
        images are further entries of its input.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
    """

    width: int = 256
    num_blocks: int = 4
    hidden_mult: int = 2
    dropout: float = 0.0
    embedding_type: str = "fourier"
    fourier_scale: float = 1.0
    nonlinearity: str = "swish"
    conditions: Conditions = ()
    dtype: str = "float32"
    read_if: ClassVar[ReadIf] = {"fourier_scale": ("embedding_type", ("fourier",))}

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, cond: Cond, train: bool = False) -> Array:
        """The raw network output F.

        Args:
          x: ``(B, *D)`` float32, of any shape.
          c_noise: ``(B,)`` float32, embedded as it is.
          cond: all of ``conditions``.
          train: whether dropout acts; needs the random stream ``"dropout"``.

        Returns:
          ``(B, *D)`` float32.

        Raises:
          ValueError: a field or a shape that the network cannot work with.
        """
        self._check(x.shape, c_noise.shape)
        act, size = layers.ACTIVATIONS[self.nonlinearity], math.prod(x.shape[1:])
        time = act(self._noise_level(c_noise.astype(jnp.float32), cond))
        h = embedding.with_images(x.astype(self.dtype), self.conditions, cond)
        h = self._dense(self.width, "stem")(h.reshape(h.shape[0], -1))
        for i in range(self.num_blocks):
            h = h + self._branch(h, time, train, f"block_{i}")
        h = act(layers.GroupNorm(groups=1, name="norm_out")(h))
        h = self._dense(size, "out", 0.0)(h)
        return h.reshape(x.shape).astype(jnp.float32)

    def _branch(self, h: Array, time: Array, train: bool, name: str) -> Array:
        scale, shift = jnp.split(self._dense(2 * self.width, f"{name}_time")(time), 2, axis=-1)
        h = layers.GroupNorm(groups=1, name=f"{name}_norm")(h) * (1.0 + scale) + shift
        h = self._dense(self.hidden_mult * self.width, f"{name}_dense_0")(h)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        h = nn.Dropout(self.dropout, deterministic=not train, name=f"{name}_dropout")(h)
        return self._dense(self.width, f"{name}_dense_1", 0.0)(h)

    def _noise_level(self, c_noise: Array, cond: Cond) -> Array:
        """Embedding of the noise level and of the conditions, ``(B, width)``."""
        if self.embedding_type == "fourier":
            waves = layers.FourierEmbedding(self.width // 2, self.fourier_scale, name="time_embedding")(
                c_noise
            )
        else:
            waves = layers.positional_embedding(c_noise, self.width)
        h = layers.ACTIVATIONS[self.nonlinearity](self._dense(self.width, "time_dense_0")(waves))
        h = self._dense(self.width, "time_dense_1")(h)
        return embedding.add(h, self.conditions, cond, embedding.added(self.dtype))

    def _dense(self, features: int, name: str, scale: float = 1.0) -> layers.Dense:
        return layers.Dense(features, scale, dtype=self.dtype, name=name)

    def _check(self, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
        checks.require(
            [
                *checks.choices(self, CHOICES),
                ("width", self.width, "even and at least 4", self.width >= 4 and self.width % 2 == 0),
                ("num_blocks", self.num_blocks, "positive", self.num_blocks >= 1),
                ("hidden_mult", self.hidden_mult, "positive", self.hidden_mult >= 1),
                ("dropout", self.dropout, "in [0, 1)", 0 <= self.dropout < 1),
                ("x", shape, "(B, *D) with at least one axis", len(shape) >= 2),
                (
                    "c_noise",
                    noise_shape,
                    f"of shape {shape[:1]}, one value per example",
                    noise_shape == shape[:1],
                ),
            ]
        )

"""The network of a learned dequantiser: what one coupling layer of its flow does to half of the pixels."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Params
from score_sde.nets import layers
from score_sde.nets.initial import draw


class _Couplings(nn.Module):
    """One small convolutional network a coupling; at first each says zero."""

    width: int
    couplings: int

    @nn.compact
    def __call__(self, x: Array, seen: Array, index: int | None = None) -> tuple[Array, Array]:
        """Shift and log-scale, shaped like ``x``, of one coupling; without an index all are made."""
        results = [self._one(x, seen, i) for i in range(self.couplings) if index is None or index == i]
        return results[-1]

    def _one(self, x: Array, seen: Array, i: int) -> tuple[Array, Array]:
        channels = x.shape[-1]
        h = jnp.concatenate([x, seen], axis=-1)
        h = jax.nn.swish(layers.Conv(self.width, name=f"conv_{i}_0")(h))
        h = h + jax.nn.swish(layers.Conv(self.width, name=f"conv_{i}_1")(h))
        h = layers.Conv(2 * channels, name=f"conv_{i}_out")(h)
        gain = self.param(f"gain_{i}", layers.described("constant", 0.0), (2 * channels,))
        shift, log_scale = jnp.split(h * gain.reshape((1,) * (h.ndim - 1) + (-1,)), 2, axis=-1)
        return shift, 2.0 * jnp.tanh(0.5 * log_scale)


@dataclass(frozen=True)
class CouplingNet:
    """The network without its parameters: hashable.

    Attributes:
      width: channels of its convolutions.
      couplings: how many layers it serves.
    """

    width: int = 32
    couplings: int = 4

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("couplings", self.couplings)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"dequantiser.{name} = {value}: must be a positive integer")

    def init(self, key: Array, shape: tuple[int, ...]) -> Params:
        """Fresh parameters for examples of ``shape``, ``(*S, C)``; the first flow is the identity."""
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        return draw(key, jax.eval_shape(_Couplings(self.width, self.couplings).init, key, x, x)["params"])

    def __call__(self, params: Params, x: Array, seen: Array, index: int) -> tuple[Array, Array]:
        """Shift and log-scale of coupling ``index``.

        Args:
          x: levels on [-1, 1], ``(B, *S, C)``.
          seen: the noise so far where this coupling leaves it, zero elsewhere, of order 1.
        """
        module = _Couplings(self.width, self.couplings)
        result: Any = module.apply({"params": params}, x, seen, index)
        return result

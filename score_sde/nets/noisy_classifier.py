"""A small convolutional classifier of noisy examples, which is given the noise level."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Params
from score_sde.nets import initial, layers

_TIME = 64  # features of the noise level


class NoisyConvClassifier(nn.Module):
    """Stages of two residual blocks, each stage but the first at half the resolution of the one before.

    The noise level scales and shifts the second norm of every block, as in the classifier of
    arXiv:2105.05233, appendix B.
    """

    widths: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, x: Array, c_noise: Array) -> Array:
        time = layers.positional_embedding(c_noise, _TIME)
        time = layers.Dense(_TIME, name="time_0")(time)
        time = layers.Dense(_TIME, name="time_1")(jax.nn.swish(time))
        x = layers.Conv(self.widths[0], name="stem")(x)
        for i, width in enumerate(self.widths):
            first = "none" if i == 0 else "down"
            for j, resample in enumerate((first, "none")):
                block = layers.ResBlock(
                    width, resample, init_scale=1.0, scale_shift=True, name=f"block_{i}_{j}"
                )
                x = block(x, time, False)
        x = jax.nn.swish(layers.GroupNorm(name="norm")(x))
        features = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return layers.Dense(self.num_classes, name="logits")(features)


@dataclass(frozen=True)
class NoisyNet:
    """The classifier without its parameters: hashable.

    Attributes:
      widths: channels of each stage.
      num_classes: at least 2.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """

    widths: tuple[int, ...]
    num_classes: int

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 for width in self.widths):
            raise ValueError(f"widths = {self.widths}: must be positive integers")
        if self.num_classes < 2:
            raise ValueError(
                f"a classifier needs data with at least 2 classes, these have {self.num_classes}"
            )

    def init(self, key: Array, shape: tuple[int, ...]) -> Params:
        """Fresh parameters for examples of ``shape``, ``(*S, C)``."""
        example = jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
        return initial.draw(key, jax.eval_shape(self._module.init, jax.random.key(0), *example)["params"])

    def __call__(self, params: Params, x: Array, c_noise: Array) -> Array:
        """``(B, *S, C)`` of about unit scale and ``(B,)`` noise levels to logits, ``(B, num_classes)``."""
        result: Any = self._module.apply({"params": params}, x, c_noise)
        return result

    @property
    def _module(self) -> NoisyConvClassifier:
        return NoisyConvClassifier(self.widths, self.num_classes)

"""A small convolutional classifier, whose last hidden layer serves as features of the data it has learnt."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Params
from score_sde.nets import initial, layers


class Classified(NamedTuple):
    """What the classifier says.

    Attributes:
      features: ``(B, widths[-1])``, the mean over positions of the last hidden layer.
      logits: ``(B, num_classes)``.
    """

    features: Array
    logits: Array


class ConvClassifier(nn.Module):
    """Stages of two convolutions, each stage but the first at half the resolution of the one before."""

    widths: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> Classified:
        for i, width in enumerate(self.widths):
            x = layers.Conv(width, stride=1 if i == 0 else 2, name=f"conv_{i}_0")(x)
            x = jax.nn.swish(layers.GroupNorm(name=f"norm_{i}_0")(x))
            x = layers.Conv(width, name=f"conv_{i}_1")(x)
            x = jax.nn.swish(layers.GroupNorm(name=f"norm_{i}_1")(x))
        features = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        return Classified(features, layers.Dense(self.num_classes, name="logits")(features))


@dataclass(frozen=True)
class Classifier:
    """The classifier without its parameters: hashable.

    Attributes:
      widths: channels of each stage; the last is the number of features.
      num_classes: at least 2.
    """

    widths: tuple[int, ...]
    num_classes: int

    def __post_init__(self) -> None:
        if not self.widths or any(not isinstance(w, int) or w < 1 for w in self.widths):
            raise ValueError(f"classifier.widths = {self.widths}: must be positive integers")
        if self.num_classes < 2:
            raise ValueError(
                f"a classifier needs data with at least 2 classes, these have {self.num_classes}: "
                "class folders, or labels beside the array"
            )

    def init(self, key: Array, shape: tuple[int, ...]) -> Params:
        """Fresh parameters for examples of ``shape``, ``(*S, C)``."""
        module = ConvClassifier(self.widths, self.num_classes)
        example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        return initial.draw(key, jax.eval_shape(module.init, key, example)["params"])

    def __call__(self, params: Params, x: Array) -> Classified:
        """``(B, *S, C)`` float32 of about unit scale to features and logits."""
        result: Any = ConvClassifier(self.widths, self.num_classes).apply({"params": params}, x)
        return result

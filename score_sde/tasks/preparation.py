"""A raw training batch as a model sees it: flipped, encoded, with conditions dropped, augmented."""

from dataclasses import dataclass

import jax
from jax import Array

from score_sde.architecture import Architecture, codec_params
from score_sde.arrays import Parts
from score_sde.conditions import Cond, drop
from score_sde.data import AUGMENTED, augment, random_flip
from score_sde.tasks.base import Batch


@dataclass(frozen=True)
class Preparation:
    """What happens to a batch before the loss.

    Attributes:
      architecture: whose codec encodes, and whose conditions are taken from the batch.
      dropout: probability in [0, 1] with which each condition is dropped to its null value, by itself.
      random_flip: mirror each image left to right with probability 1/2.
      augment_probability: of each of EDM's augmentations (arXiv:2206.00364, appendix F.2); 0: none.
    """

    architecture: Architecture
    dropout: float = 0.0
    random_flip: bool = False
    augment_probability: float = 0.0

    def __call__(self, parts: Parts, batch: Batch, key: Array) -> tuple[Array, Cond]:
        """States ``(B, *D)`` and conditions of a raw batch.

        Args:
          parts: of which ``codec`` counts.
        """
        key_flip, key_encode, key_drop, key_augment = jax.random.split(key, 4)
        conditions = self.architecture.conditions
        raw = random_flip(batch["x"], key_flip) if self.random_flip else batch["x"]
        x0 = self.architecture.codec.encode(codec_params(parts), raw, key_encode)
        given = {name: batch[name] for name, _ in conditions}
        cond = drop(conditions, given, dict.fromkeys(given, self.dropout), key_drop)
        if self.augment_probability:
            x0, description = augment(x0, key_augment, self.augment_probability)
            cond |= {name: description for name, _ in AUGMENTED}
        return x0, cond

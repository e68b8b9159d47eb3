"""A classifier of the data: its last hidden layer gives features that scores can use."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from score_sde.arrays import Parts
from score_sde.codecs import picture_values
from score_sde.conditions import first_class
from score_sde.data import Source, Spec
from score_sde.evaluate.extractors import as_input
from score_sde.images.pictures import is_picture
from score_sde.nets.classifier import Classifier
from score_sde.tasks.base import Batch, Measure, Metrics, Setting

PART = "classifier"


class Labelled(NamedTuple):
    """Examples as the classifier sees them, ``(B, *D)``, and their classes, ``(B,)``."""

    x: Array
    number: Array


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the first class condition of the data.

    Attributes:
      spec: of the data.
      widths: channels of each stage; the last is the number of features.

    Raises:
      ValueError: data without classes.
    """

    spec: Spec
    widths: tuple[int, ...] = (32, 64)
    denoises = False

    def __post_init__(self) -> None:
        assert self.net  # refuses what cannot be

    @property
    def condition(self) -> str:
        """Name of the condition that is predicted; empty, where the data have none."""
        found = first_class(self.spec.conditions)
        return "" if found is None else found[0]

    @property
    def net(self) -> Classifier:
        """The network."""
        found = first_class(self.spec.conditions)
        return Classifier(self.widths, 0 if found is None else found[1].classes)

    def frozen(self) -> Parts:
        return {}

    def init(self, frozen: Parts, key: Array) -> Parts:
        return {PART: self.net.init(key, self.spec.shape)}

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> Labelled:
        return Labelled(self.input(batch["x"]), batch[self.condition])

    def input(self, raw: Array) -> Array:
        """Raw examples as the classifier sees them, by way of the values that users have."""
        if not is_picture(self.spec.shape, self.spec.grey_levels):
            return as_input(raw, self.spec.dtype)
        return as_input(picture_values(raw, self.spec.grey_levels), np.dtype(np.uint8))

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: Labelled, key: Array
    ) -> tuple[Array, Metrics]:
        logits = self.net(trained[PART], examples.x).logits
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, examples.number)
        return loss, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == examples.number)}

    def measures(self, setting: Setting) -> tuple[Measure, ...]:
        return ()

    def accuracy(self, trained: Parts, source: Source, batch_size: int) -> float:
        """Fraction of all examples whose largest class score is that of their class."""

        @jax.jit
        def guess(trained: Parts, raw: Array) -> Array:
            return jnp.argmax(self.net(trained[PART], self.input(raw)).logits, axis=-1)

        right, count = 0, len(source)
        for start in range(0, count, batch_size):
            rows = np.arange(start, start + batch_size)
            batch = source.read(np.minimum(rows, count - 1))  # full batches: one program
            same = np.asarray(guess(trained, jnp.asarray(batch["x"]))) == batch[self.condition]
            right += int((same & (rows < count)).sum())
        return right / count

    def check(self, source: Source) -> None:
        """Refuse a set of which an example has no class.

        Raises:
          ValueError: names the example.
        """
        for start in range(0, len(source), 4096):
            numbers = source.read(np.arange(start, min(start + 4096, len(source))))[self.condition]
            if (numbers < 0).any():
                raise ValueError(
                    f"--mode=classifier: example {start + int(np.argmax(numbers < 0))} has no class"
                )

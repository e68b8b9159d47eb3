"""A classifier of noisy examples, by whose gradient a score model is guided (arXiv:2105.05233, section 4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import Architecture, codec_params
from score_sde.arrays import Parts, expand
from score_sde.conditions import Condition, first_class
from score_sde.evaluate import level_times
from score_sde.losses import Drawn
from score_sde.nets.noisy_classifier import NoisyNet
from score_sde.tasks.base import Averaged, Batch, Measure, Metrics, Note, Setting, Value
from score_sde.tasks.diffusion import Objective
from score_sde.tasks.measures import Monitor
from score_sde.tasks.preparation import Preparation

PART = "noisy_classifier"
_LEVELS = 10  # noise levels of the held-out accuracy
_SIGMA_DATA = 0.5  # of the scale on which the network sees an example: about one at every noise level


@dataclass(frozen=True)
class NoisyClassifier:
    """``p(class | x_t)`` without its parameters: hashable.

    Attributes:
      architecture: whose process makes the noisy examples, and whose data have a class.
      widths: channels of each stage of the network; each but the first has half the resolution.

    Raises:
      ValueError: data without classes, or a process that is learned.
    """

    architecture: Architecture
    widths: tuple[int, ...] = (32, 64)

    def __post_init__(self) -> None:
        assert self.net  # refuses what cannot be
        if self.architecture.sde.parts():
            raise ValueError("needs a process that is given, and config.sde.name = 'learned' is not")

    @property
    def condition(self) -> tuple[str, Condition]:
        """The class that it predicts: the first of the data, and its name.

        Raises:
          ValueError: the data have none.
        """
        found = first_class(self.architecture.spec.conditions)
        if found is None:
            raise ValueError(
                "a classifier needs data with classes: class folders, or labels beside the array"
            )
        return found

    @property
    def net(self) -> NoisyNet:
        """The network."""
        return NoisyNet(tuple(self.widths), self.condition[1].classes)

    def init(self, key: Array) -> Parts:
        """Fresh parameters."""
        return {PART: self.net.init(key, self.architecture.state_shape)}

    def log_probs(self, parts: Parts, x: Array, t: Array) -> Array:
        """``log p(. | x_t = x)`` in nats: ``(B, *D)``, ``(B,)`` to ``(B, classes)``."""
        sde = self.architecture.sde
        size = jnp.sqrt((_SIGMA_DATA * sde.alpha(t)) ** 2 + sde.sigma(t) ** 2)
        c_noise = -12.5 * jnp.clip(sde.log_snr(t), -20.0, 20.0)
        return jax.nn.log_softmax(self.net(parts[PART], x / expand(size, x), c_noise), axis=-1)

    def log_prob(self, parts: Parts, x: Array, t: Array, number: Array) -> Array:
        """``log p(number | x_t = x)`` in nats, ``(B,)``; 0 where there is no class, number -1."""
        every = self.log_probs(parts, x, t)
        each = jnp.take_along_axis(every, jnp.maximum(number, 0)[:, None], axis=-1)[:, 0]
        return jnp.where(number >= 0, each, 0.0)


class NoisyLabelled(NamedTuple):
    """Prepared examples, ``(B, *D)``, what will be added to them, and their classes, ``(B,)``."""

    x0: Array
    drawn: Drawn
    number: Array


@dataclass(frozen=True)
class NoisyClassification:
    """Cross-entropy of the class of noisy examples, for `sampling.guidance = classifier`.

    Times and noise are drawn as the loss of the config draws them; its weight does not count.  It measures
    loss and accuracy on held-out examples at ten noise levels.

    Attributes:
      architecture: whose process makes examples noisy; its network is not used.
      preparation: raw batches to examples.
      objective: draws times and noise.
      monitor: how often is measured, and on how many examples.
      widths: channels of each stage of the network; each but the first has half the resolution.
    """

    architecture: Architecture
    preparation: Preparation
    objective: Objective
    monitor: Monitor
    widths: tuple[int, ...] = (32, 64)
    denoises = False
    classifier = NoisyClassifier  # made of an architecture and the options of the task

    def __post_init__(self) -> None:
        assert self.model  # refuses what cannot be

    @property
    def model(self) -> NoisyClassifier:
        """What is trained."""
        return NoisyClassifier(self.architecture, self.widths)

    def frozen(self) -> Parts:
        return {}

    def init(self, frozen: Parts, key: Array) -> Parts:
        return self.model.init(key)

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> NoisyLabelled:
        key_data, key_loss = jax.random.split(key)
        x0, _ = self.preparation(frozen, batch, key_data)
        return NoisyLabelled(x0, self.objective.draw(x0, key_loss), batch[self.model.condition[0]])

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: NoisyLabelled, key: Array
    ) -> tuple[Array, Metrics]:
        x0, (t, noise), number = examples
        every = self.model.log_probs(trained, self.architecture.sde.perturb(x0, t, noise), t)
        return _cross_entropy(every, number), {"accuracy": jnp.mean(jnp.argmax(every, axis=-1) == number)}

    def measures(self, setting: Setting) -> tuple[Measure, ...]:
        if not self.monitor.eval_every_steps:
            return ()
        return (Measure(self.monitor.eval_every_steps, self._held_out(setting), True, "held_out_loss"),)

    def _held_out(self, setting: Setting) -> Callable[[int, Averaged, Parts, Note], dict[str, Value]]:
        """Loss and accuracy by noise level, always with the same noise."""
        model, sde = self.model, self.architecture.sde
        batch = setting.held_out.read(np.arange(min(self.monitor.eval_examples, len(setting.held_out))))
        times = level_times(sde, _LEVELS)

        @jax.jit
        def score(parts: Parts, x0: Array, number: Array, t: Array, key: Array) -> tuple[Array, Array]:
            t = jnp.full(x0.shape[:1], t)
            every = model.log_probs(parts, sde.perturb(x0, t, jax.random.normal(key, x0.shape)), t)
            return jnp.mean(_cross_entropy(every, number)), jnp.mean(jnp.argmax(every, axis=-1) == number)

        def act(step: int, state: Averaged, frozen: Parts, note: Note) -> dict[str, Value]:
            x0 = self.architecture.codec.middle(codec_params(frozen), batch["x"])
            number, keys = batch[model.condition[0]], jax.random.split(jax.random.key(setting.seed), _LEVELS)
            scores = []
            for i in range(_LEVELS):
                scores.append(score(state.ema, x0, number, jnp.float32(times[i]), keys[i]))
                note(i + 1, _LEVELS, "noise levels")
            losses, right = (np.array(column, np.float64) for column in zip(*scores, strict=True))
            return {
                "held_out_loss": float(losses.mean()),
                "held_out_accuracy": float(right.mean()),
                "held_out_accuracy_by_level": right.tolist(),
            }

        return act


def _cross_entropy(every: Array, number: Array) -> Array:
    """Of ``(B, classes)`` log probabilities, ``(B,)`` nats; 0 for an example without a class."""
    each = jnp.take_along_axis(every, jnp.maximum(number, 0)[:, None], axis=-1)[:, 0]
    return jnp.where(number >= 0, -each, 0.0)

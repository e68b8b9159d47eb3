"""Denoising score matching: the task that fits a score model."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
from jax import Array

from score_sde.architecture import Architecture
from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.denoiser import Denoiser
from score_sde.losses import Drawn
from score_sde.tasks.base import Batch, Measure, Metrics, Setting
from score_sde.tasks.measures import Monitor
from score_sde.tasks.preparation import Preparation


class Objective(Protocol):
    """A loss of a denoiser, drawn and evaluated separately: ``DenoisingLoss`` or ``VariationalLoss``."""

    def draw(self, x0: Array, key: Array) -> Drawn:
        """Times and noise of a batch."""
        ...

    def at(
        self, denoiser: Denoiser, x0: Array, drawn: Drawn, key: Array, parts: Parts
    ) -> tuple[Array, Metrics]:
        """Per-example loss ``(B,)`` at times and noise that are given."""
        ...


class Noisy(NamedTuple):
    """Prepared examples, and what will be added to them."""

    x0: Array
    cond: Cond
    drawn: Drawn


@dataclass(frozen=True)
class Diffusion:
    """Fit a denoiser, and with it the process where that is learned (arXiv:2011.13456, eq. 7).

    Attributes:
      architecture: what is fitted.
      preparation: raw batches to examples.
      objective: the loss.
      monitor: what is measured on the way.
    """

    architecture: Architecture
    preparation: Preparation
    objective: Objective
    monitor: Monitor
    denoises = True

    def frozen(self) -> Parts:
        return {}

    def init(self, frozen: Parts, key: Array) -> Parts:
        return self.architecture.init(key)

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> Noisy:
        key_data, key_loss = jax.random.split(key)
        x0, cond = self.preparation(frozen, batch, key_data)
        return Noisy(x0, cond, self.objective.draw(x0, key_loss))

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: Noisy, key: Array
    ) -> tuple[Array, Metrics]:
        x0, cond, drawn = examples
        return self.objective.at(self.architecture.bind(trained, cond), x0, drawn, key, trained)

    def measures(self, setting: Setting) -> tuple[Measure, ...]:
        return self.monitor.measures(self.architecture, setting)

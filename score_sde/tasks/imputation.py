"""Denoising score matching of the hidden part of an example, given the rest."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.architecture import Architecture
from score_sde.arrays import Parts, mean_dims
from score_sde.conditions import Conditions
from score_sde.data.known import KNOWN, draw_mask, known, known_condition
from score_sde.denoiser import Estimate
from score_sde.losses import DenoisingLoss
from score_sde.tasks.base import Batch, Measure, Metrics, Setting
from score_sde.tasks.diffusion import Noisy
from score_sde.tasks.measures import Monitor
from score_sde.tasks.preparation import Preparation


@dataclass(frozen=True)
class Imputation:
    """Fit a denoiser that is given what is seen of an example and which cells that is (arXiv:2107.03502).

    Of every example a share of the cells that is uniform on [0, 1] is hidden.  The loss is the mean over the
    hidden entries.  Samples without anything seen are those of the whole distribution.

    Attributes:
      architecture: what is fitted.
      preparation: raw batches to examples.
      objective: the loss.
      monitor: what is measured on the way, of whole examples.
      blank: share of examples of which nothing is seen.

    Raises:
      ValueError: a process that is learned.
    """

    architecture: Architecture
    preparation: Preparation
    objective: DenoisingLoss
    monitor: Monitor
    blank: float = 0.1
    denoises = True

    def __post_init__(self) -> None:
        if not 0 <= self.blank <= 1:
            raise ValueError(f"blank = {self.blank}: must be in [0, 1]")
        if self.architecture.sde.parts():
            raise ValueError("the process is learned, and this task needs one that is given")

    @staticmethod
    def adds(shape: tuple[int, ...]) -> Conditions:
        """What the network takes beside the conditions of the data, of states of ``shape``."""
        return known_condition(shape)

    def frozen(self) -> Parts:
        return {}

    def init(self, frozen: Parts, key: Array) -> Parts:
        return self.architecture.init(key)

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> Noisy:
        key_data, key_loss, key_mask = jax.random.split(key, 3)
        x0, cond = self.preparation(frozen, batch, key_data)
        mask = draw_mask(key_mask, x0.shape, self.architecture.spec.columns, self.blank)
        return Noisy(x0, {**cond, KNOWN: known(x0, mask)}, self.objective.draw(x0, key_loss))

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: Noisy, key: Array
    ) -> tuple[Array, Metrics]:
        x0, cond, drawn = examples
        denoise = self.architecture.bind(trained, cond)
        hidden = 1.0 - cond[KNOWN][..., x0.shape[-1] :]

        def of_hidden(x: Array, t: Array, *, key: Array | None = None) -> Estimate:
            """The estimate with what is seen put in: no error there."""
            estimate = denoise(x, t, key=key)
            return Estimate(
                jnp.where(hidden > 0, estimate.x0, x0), jnp.where(hidden > 0, estimate.noise, drawn.noise)
            )

        loss, metrics = self.objective.at(of_hidden, x0, drawn, key, trained)
        share = mean_dims(hidden)
        return loss / jnp.where(share > 0, share, 1.0), metrics

    def measures(self, setting: Setting) -> tuple[Measure, ...]:
        return self.monitor.measures(self.architecture, setting)

"""A learned density of the dequantisation noise, trained for a frozen model (arXiv:1902.00275)."""

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import Architecture
from score_sde.arrays import Params, Parts
from score_sde.codecs import Levels
from score_sde.conditions import Cond
from score_sde.data import eval_batches, random_flip
from score_sde.likelihood.dequantise import Coupled, Dequantiser, Uniform
from score_sde.losses import Drawn, bound_at, draw_bound
from score_sde.nets.dequantiser import CouplingNet
from score_sde.sde import SDE
from score_sde.tasks.base import Batch, Measure, Metrics, Setting

PART = "dequantiser"
_PASSES = 4  # dequantisation and time draws of each held-out example


class Noisy(NamedTuple):
    """Integer examples, the uniform noise that will be moved, and what the bound draws."""

    raw: Array
    cond: Cond
    uniform: Array
    drawn: Drawn


@dataclass(frozen=True)
class Dequantisation:
    """The variational bound of a frozen model plus ``log q``, in nats per dimension, minimised in ``q``.

    Attributes:
      architecture: of the model, whose codec has integer data; its parts are frozen.
      model: averaged parts of the model.
      width, couplings: of the dequantiser's network.
      t_min: the time at which the data are placed; None: the smallest time of the process.
      random_flip: mirror each training image left to right with probability 1/2.
    """

    architecture: Architecture
    model: Parts
    width: int = 32
    couplings: int = 4
    t_min: float | None = None
    random_flip: bool = False
    denoises = False

    @property
    def levels(self) -> Levels:
        """Those of the data.

        Raises:
          ValueError: the state has none: continuous data, or latents.
        """
        levels = self.architecture.codec.levels
        if levels is None:
            raise ValueError("a dequantiser is for integer data; these are continuous")
        return levels

    @property
    def density(self) -> Coupled:
        """What is trained."""
        return Coupled(self.levels, CouplingNet(self.width, self.couplings))

    def frozen(self) -> Parts:
        return dict(self.model)

    def init(self, frozen: Parts, key: Array) -> Parts:
        return {PART: self.density.init(key, self.architecture.spec.shape)}

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> Noisy:
        key_flip, key_noise, key_bound = jax.random.split(key, 3)
        raw = random_flip(batch["x"], key_flip) if self.random_flip else batch["x"]
        cond = {name: values for name, values in batch.items() if name not in ("x", "mask")}
        # Times and noise of the bound do not depend on the noise of a level.
        drawn = draw_bound(self._process, raw.astype(jnp.float32), key_bound)
        return Noisy(raw, cond, self.levels.noise(key_noise, raw.shape), drawn)

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: Noisy, key: Array
    ) -> tuple[Array, Metrics]:
        return self.bound(self.density, trained[PART], frozen, examples)

    def bound(
        self, density: Dequantiser, params: Params, frozen: Parts, examples: Noisy
    ) -> tuple[Array, Metrics]:
        """Nats per dimension, ``(B,)``, with the noise of a density."""
        raw, cond, uniform, drawn = examples
        u, log_q = density.move(params, raw, uniform)
        x0 = self.levels.place(raw, u)
        log_q = log_q / math.prod(raw.shape[1:])
        denoiser = self.architecture.bind(frozen, cond)
        nats = bound_at(denoiser, self._process, x0, drawn)
        return nats + log_q, {"log_q_nats_per_dim": jnp.mean(log_q)}

    @property
    def _process(self) -> SDE:
        sde = self.architecture.sde
        return sde if self.t_min is None else dataclasses.replace(sde, t_min=self.t_min)

    def measures(self, setting: Setting) -> tuple[Measure, ...]:
        return ()

    def gain(self, trained: Parts, frozen: Parts, setting: Setting, batch_size: int) -> np.ndarray:
        """Bits per dimension by which the bound of each held-out example is lower than with uniform noise."""
        plain = dataclasses.replace(self, random_flip=False)

        @jax.jit
        def both(trained: Parts, frozen: Parts, batch: Batch, key: Array) -> Array:
            def one(key: Array) -> Array:
                examples = plain.draw(frozen, batch, key)
                uniform, _ = plain.bound(Uniform(plain.levels), {}, frozen, examples)
                learned, _ = plain.bound(plain.density, trained[PART], frozen, examples)
                return uniform - learned

            return jnp.mean(jax.lax.map(one, jax.random.split(key, _PASSES)), axis=0) / math.log(2.0)

        results = []
        for i, batch in enumerate(eval_batches(setting.held_out, min(batch_size, len(setting.held_out)))):
            key = jax.random.fold_in(jax.random.key(setting.seed), i)
            mask = np.asarray(batch.pop("mask"))
            results.append(np.asarray(both(trained, frozen, batch, key))[mask])
        return np.concatenate(results)

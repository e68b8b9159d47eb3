"""How strongly a guidance acts: a scale of each sample, and the noise levels at which it acts at all."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand
from score_sde.denoiser import Cond, Estimate
from score_sde.guidance.base import Guidance
from score_sde.sde import SDE


class Strength(NamedTuple):
    """Of a batch: ``scale``, ``(B,)``, and ``interval``, ``(B, 2)`` noise levels."""

    scale: Array
    interval: Array


@dataclass(frozen=True, kw_only=True)
class Scaled(Guidance):
    """A guidance with a scale and an interval of noise levels, both inputs of the compiled program.

    The numbers that act are the entries ``<prefix>_scale``, ``(B,)``, and ``<prefix>_interval``, ``(B, 2)``,
    of ``cond``, a row for every sample.  ``inputs`` makes them of the options; other values compile nothing.

    Attributes:
      sde: the process of the model.
      scale: how strongly it acts.
      interval_low, interval_high: noise levels ``sigma / alpha`` between which it acts, both included; at
        others the model is as it was, bit for bit (arXiv:2404.07724).
      prefix: of its entries, so that several have their own.

    Raises:
      ValueError: a scale that is not finite, or an empty interval.
    """

    sde: SDE
    scale: float = 1.0
    interval_low: float = 0.0
    interval_high: float = math.inf
    prefix: str = "guidance"

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"scale = {self.scale}: must be finite")
        if not 0 <= self.interval_low < self.interval_high:
            raise ValueError(
                f"interval_low = {self.interval_low}: must be 0 or more and below interval_high = "
                f"{self.interval_high}"
            )

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        interval = np.array([self.interval_low, self.interval_high], np.float32)
        values = np.full(count, self.scale, np.float32), np.tile(interval, (count, 1))
        return dict(zip(self._entries, values, strict=True))

    @property
    def _entries(self) -> tuple[str, str]:
        return f"{self.prefix}_scale", f"{self.prefix}_interval"

    def taken(self, cond: Cond) -> tuple[Strength, Cond]:
        """Its own entries of ``cond``, and the others.

        Raises:
          ValueError: an entry is not there; names it.
        """
        for name in self._entries:
            if name not in cond:
                raise ValueError(f"cond has no {name!r}: add the guidance's inputs(count)")
        rest = {name: value for name, value in cond.items() if name not in self._entries}
        return Strength(*(jnp.asarray(cond[name]) for name in self._entries)), rest

    def within(self, interval: Array, guided: Estimate, plain: Estimate, t: Array) -> Estimate:
        """``guided`` at noise levels of ``interval``, and ``plain`` at others; ``t``: ``()`` or ``(B,)``."""
        level = jnp.exp(-0.5 * self.sde.log_snr(jnp.asarray(t)))
        acts = expand((interval[:, 0] <= level) & (level <= interval[:, 1]), plain.x0)
        return Estimate(*(jnp.where(acts, a, b) for a, b in zip(guided, plain, strict=True)))

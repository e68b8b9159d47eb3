"""Thresholds: guidance that keeps the expected clean sample within the range of the data."""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, expand
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.base import Guidance, Unchanged
from score_sde.sde import SDE


@dataclass(frozen=True, kw_only=True)
class Threshold(Guidance):
    """A limit on ``x0``.

    Attributes:
      sde: the process of the solver.
      low, high: the range of the data.
      keep_noise: leave the noise as it was predicted, as diffusers' DDIM with ``clip_sample`` does; else it
        follows ``x0``, so that the two belong to the same ``x``.  It matters to solvers that use the noise:
        ``ddim`` and those of noise prediction.
    """

    sde: SDE
    low: float = -1.0
    high: float = 1.0
    keep_noise: bool = False

    @abc.abstractmethod
    def limit(self, x0: Array) -> Array:
        """``x0`` within the range: ``(B, *D) -> (B, *D)``."""

    def __call__(self, bind: Bind) -> Bind:
        def bind_limited(parts: Parts, cond: Cond) -> Denoise:
            denoise = bind(parts, cond)

            def limited(x: Array, t: Array) -> Estimate:
                estimate = denoise(x, t)
                x0 = self.limit(estimate.x0)
                if self.keep_noise:
                    return estimate._replace(x0=x0)
                # By the shift, which is zero within the range: the noise keeps its digits there.
                return estimate.shifted(self.sde, jnp.asarray(t), x0 - estimate.x0)._replace(x0=x0)

            return limited

        return bind_limited


@dataclass(frozen=True, kw_only=True)
class Static(Threshold):
    """The prediction is clipped to ``[low, high]``."""

    def limit(self, x0: Array) -> Array:
        return jnp.clip(x0, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Dynamic(Threshold):
    """Dynamic thresholding (Imagen, arXiv:2205.11487, section 2.3).

    Each sample is clipped to its own quantile of distances from the middle of the range, at least the range,
    and shrunk back into it.

    Attributes:
      threshold_quantile: which, in (0, 1].
    """

    threshold_quantile: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.threshold_quantile <= 1:
            raise ValueError(f"threshold_quantile = {self.threshold_quantile}: must be in (0, 1]")

    def limit(self, x0: Array) -> Array:
        middle, reach = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        x0 = (x0 - middle) / reach
        size = jnp.quantile(jnp.abs(x0.reshape(x0.shape[0], -1)), self.threshold_quantile, axis=1)
        size = expand(jnp.maximum(size, 1.0), x0)
        return middle + reach * jnp.clip(x0, -size, size) / size


THRESHOLDS: dict[str, Callable[..., Guidance]] = {
    "none": Unchanged,
    "static": Static,
    "dynamic": Dynamic,
}

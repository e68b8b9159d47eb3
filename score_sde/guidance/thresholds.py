"""Thresholds: wrappers that keep the expected clean sample within the range of the data."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import expand
from score_sde.denoiser import Denoise


@dataclass(frozen=True, kw_only=True)
class Static:
    """The prediction is clipped to ``[low, high]``, the range of the data."""

    low: float = -1.0
    high: float = 1.0

    def __call__(self, denoise: Denoise) -> Denoise:
        return lambda x, t: jnp.clip(denoise(x, t), self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Dynamic thresholding (Imagen, arXiv:2205.11487, section 2.3).

    Each sample is clipped to its own quantile of distances from the middle of the range, at least the range,
    and shrunk back into it.

    Attributes:
      threshold_quantile: which, in (0, 1].
      low, high: the range of the data.
    """

    threshold_quantile: float = 0.995
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold_quantile <= 1:
            raise ValueError(f"threshold_quantile = {self.threshold_quantile}: must be in (0, 1]")

    def __call__(self, denoise: Denoise) -> Denoise:
        middle, reach = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)

        def denoise_threshold(x: Array, t: Array) -> Array:
            x0 = (denoise(x, t) - middle) / reach
            size = jnp.quantile(jnp.abs(x0.reshape(x0.shape[0], -1)), self.threshold_quantile, axis=1)
            size = expand(jnp.maximum(size, 1.0), x0)
            return middle + reach * jnp.clip(x0, -size, size) / size

        return denoise_threshold


def unchanged(denoise: Denoise) -> Denoise:
    """No threshold."""
    return denoise


THRESHOLDS: dict[str, Callable[..., Callable[[Denoise], Denoise]]] = {
    "none": lambda: unchanged,
    "static": Static,
    "dynamic": Dynamic,
}

"""Continuous Gaussian processes: each is its ``alpha`` and ``sigma``, a few lines.

``1 - exp(.)`` is always ``-expm1(.)``: in float32 the plain form is wrong by per cents below t = 1e-3.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.sde.base import SDE


def _check_range(name: str, low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(f"sde: need 0 < {name}_min < {name}_max, got {low} and {high}")


@dataclass(frozen=True, kw_only=True)
class _LinearBeta(SDE):
    """``beta(t) = beta_min + t (beta_max - beta_min)`` and the decay ``log alpha = -int beta / 2``.

    Attributes:
      beta_min, beta_max: rate of the noise at t = 0 and t = 1.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("beta", self.beta_min, self.beta_max)

    def log_alpha(self, t: Array) -> Array:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Array) -> Array:
        return jnp.exp(self.log_alpha(t))

    def drift(self, t: Array) -> Array:
        # log(exp(.)) loses the digits of a decay near zero; the derivative of the exponent does not.
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def _time_of_decay(self, decay: Array, low: float | None) -> Array:
        """The time at which ``-2 log alpha`` is ``decay``: the positive root of a parabola, clipped."""
        slope = self.beta_max - self.beta_min
        # (sqrt(b^2 + 2 s y) - b) / s without the cancellation at small y
        t = 2.0 * decay / (jnp.sqrt(self.beta_min**2 + 2.0 * slope * decay) + self.beta_min)
        return jnp.clip(t, self.t_min if low is None else low, self.t_max)

    @property
    def prior_sigma(self) -> float:
        return 1.0  # the stationary distribution


@dataclass(frozen=True, kw_only=True)
class VP(_LinearBeta):
    """Variance-preserving SDE, the limit of DDPM (arXiv:2011.13456, eq. 11 and 33).

    ``alpha = exp(-1/4 t^2 (beta_max - beta_min) - 1/2 t beta_min)``, ``sigma^2 = 1 - alpha^2``.
    """

    def sigma(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_alpha(t)))

    def sigma_slope(self, t: Array) -> Array:
        # the derivative of expm1(z) is taken as expm1(z) + 1, which cancels where alpha is small
        return -self.drift(t) * self.alpha(t) ** 2 / self.sigma(t)

    def log_snr(self, t: Array) -> Array:
        # alpha^2 / (1 - alpha^2) = 1 / expm1(-2 log alpha)
        return -jnp.log(jnp.expm1(-2.0 * self.log_alpha(t)))

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        return self._time_of_decay(jax.nn.softplus(-log_snr), low)

    def diffusion(self, t: Array) -> Array:
        return jnp.sqrt(self.beta_min + t * (self.beta_max - self.beta_min))


@dataclass(frozen=True, kw_only=True)
class SubVP(_LinearBeta):
    """Sub-VP SDE: the decay of VP with the smaller ``sigma = 1 - alpha^2`` (arXiv:2011.13456, eq. 27-29)."""

    def sigma(self, t: Array) -> Array:
        return -jnp.expm1(2.0 * self.log_alpha(t))

    def sigma_slope(self, t: Array) -> Array:
        return -2.0 * self.drift(t) * self.alpha(t) ** 2  # as for VP

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        # alpha / (1 - alpha^2) = r is r = 1 / (2 sinh y) with y = -log alpha
        return self._time_of_decay(2.0 * jnp.arcsinh(0.5 * jnp.exp(jnp.minimum(-0.5 * log_snr, 80.0))), low)


@dataclass(frozen=True, kw_only=True)
class VE(SDE):
    """Variance-exploding SDE, the limit of SMLD (arXiv:2011.13456, eq. 9 and 30-31).

    ``alpha = 1``, ``sigma = sigma_min (sigma_max / sigma_min)^t``.  As in the paper the noise at t = 0 is
    ``sigma_min``, not zero.

    Attributes:
      sigma_min, sigma_max: noise at t = 0 and t = 1, in units of the model's range.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("sigma", self.sigma_min, self.sigma_max)

    @property
    def log_ratio(self) -> float:
        """``log(sigma_max / sigma_min)``."""
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def sigma(self, t: Array) -> Array:
        return jnp.exp(math.log(self.sigma_min) + t * self.log_ratio)

    def log_snr(self, t: Array) -> Array:
        return -2.0 * (math.log(self.sigma_min) + t * self.log_ratio)

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        t = (-0.5 * log_snr - math.log(self.sigma_min)) / self.log_ratio
        return jnp.clip(t, self.t_min if low is None else low, self.t_max)

    @property
    def prior_sigma(self) -> float:
        return self.sigma_max * math.exp((self.t_max - 1.0) * self.log_ratio)


@dataclass(frozen=True, kw_only=True)
class EDM(SDE):
    """The process of Karras et al. 2022 (arXiv:2206.00364, table 1): ``alpha = 1``, ``sigma = t``.

    Time is measured in data units.
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Array) -> Array:
        return jnp.ones_like(t)

    def sigma(self, t: Array) -> Array:
        return jnp.asarray(t)

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        return jnp.clip(jnp.exp(-0.5 * log_snr), self.t_min if low is None else low, self.t_max)

    def diffusion(self, t: Array) -> Array:
        return jnp.sqrt(2.0 * t)

    @property
    def prior_sigma(self) -> float:
        return self.t_max


@dataclass(frozen=True, kw_only=True)
class Cosine(SDE):
    """Trigonometric path ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``.

    The continuous form of the cosine schedule (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17, without
    its offset; Salimans & Ho 2022, arXiv:2202.00512).  ``alpha`` reaches zero at t = 1, where ``drift`` and
    ``diffusion`` are infinite; ``t_max`` stops just before.
    """

    t_min: float = 1e-4
    t_max: float = 0.9999

    def alpha(self, t: Array) -> Array:
        # cos(pi t / 2) is wrong by 4e-4 of itself in float32 at t_max; 1 - t is exact there
        return jnp.sin(0.5 * jnp.pi * (1.0 - t))

    def sigma(self, t: Array) -> Array:
        return jnp.sin(0.5 * jnp.pi * t)

    def alpha_slope(self, t: Array) -> Array:
        return -0.5 * jnp.pi * self.sigma(t)

    def sigma_slope(self, t: Array) -> Array:
        return 0.5 * jnp.pi * self.alpha(t)

    def drift(self, t: Array) -> Array:
        return -0.5 * jnp.pi * self.sigma(t) / self.alpha(t)

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        t = jnp.arctan(jnp.exp(-0.5 * log_snr)) * (2.0 / jnp.pi)
        return jnp.clip(t, self.t_min if low is None else low, self.t_max)

    @property
    def prior_sigma(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Flow(SDE):
    """The straight path of flow matching: ``alpha = 1 - t``, ``sigma = t``.

    Lipman et al. 2023 (arXiv:2210.02747, section 4.1), Liu et al. 2023 (arXiv:2209.03003).  Our time runs
    from data (0) to noise (1); theirs the other way.  ``drift`` and ``diffusion`` are infinite at t = 1, the
    velocity is not; ``t_max`` stops just before.
    """

    t_min: float = 1e-4
    t_max: float = 0.9999

    def alpha(self, t: Array) -> Array:
        return 1.0 - t

    def sigma(self, t: Array) -> Array:
        return jnp.asarray(t)

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        return jnp.clip(jax.nn.sigmoid(-0.5 * log_snr), self.t_min if low is None else low, self.t_max)

    @property
    def prior_sigma(self) -> float:
        return 1.0

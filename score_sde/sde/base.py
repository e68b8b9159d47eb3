"""The forward process: two functions of time, and everything that follows from them.

A forward process is ``x_t = alpha(t) x0 + sigma(t) noise``.  It solves the linear SDE
``dx = f(t) x dt + g(t) dw`` (Song et al. 2021, arXiv:2011.13456, eq. 5) whose coefficients follow from
the moment equations (Sarkka & Solin 2019, eq. 6.2):

    f = d log(alpha) / dt
    g^2 = d sigma^2 / dt - 2 f sigma^2 = -sigma^2 d log_snr / dt

A subclass states ``alpha`` and ``sigma``; the rest is derived here and tested against the closed forms
of the papers.  A process knows no network, no number of steps and no discretisation.
"""

import abc
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Params, Parts, expand, normal_per_sample, sum_dims


@dataclass(frozen=True, kw_only=True)
class SDE(abc.ABC):
    """A Gaussian forward process.  Hashable and without array leaves: static under ``jit``.

    Attributes:
      t_min: the smallest time at which training and likelihood look at the data (dimensionless;
        EDM: in data units).
      t_max: the time of the prior.
    """

    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max:
            raise ValueError(f"sde: need 0 <= t_min < t_max, got t_min={self.t_min} and t_max={self.t_max}")

    @abc.abstractmethod
    def alpha(self, t: Array) -> Array:
        """Scale of the signal at time ``t``; elementwise."""

    @abc.abstractmethod
    def sigma(self, t: Array) -> Array:
        """Standard deviation of the noise at time ``t``, in data units; elementwise."""

    def log_snr(self, t: Array) -> Array:
        """Log signal-to-noise ratio ``2 log(alpha / sigma)``, strictly decreasing; elementwise."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_of(self, log_snr: Array, low: float | None = None) -> Array:
        """The time at which the log signal-to-noise ratio is ``log_snr``; elementwise, by bisection.

        A value that the process does not have between ``low``, by default ``t_min``, and ``t_max`` gives the
        nearer end.
        """

        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            near, far = ends
            middle = 0.5 * (near + far)
            later = self.log_snr(middle) > log_snr
            return jnp.where(later, middle, near), jnp.where(later, far, middle)

        first = self.t_min if low is None else low
        ends = (jnp.full_like(log_snr, first), jnp.full_like(log_snr, self.t_max))
        near, far = jax.lax.fori_loop(0, 60, halve, ends)
        return 0.5 * (near + far)

    def alpha_slope(self, t: Array) -> Array:
        """``d alpha / dt``; elementwise."""
        return _slope(self.alpha, t)

    def sigma_slope(self, t: Array) -> Array:
        """``d sigma / dt``; elementwise."""
        return _slope(self.sigma, t)

    def drift(self, t: Array) -> Array:
        """``f(t) = d log(alpha) / dt``: the drift of the SDE is ``f(t) x``; elementwise."""
        return _slope(lambda u: jnp.log(self.alpha(u)), t)

    def diffusion(self, t: Array) -> Array:
        """``g(t)``, the diffusion coefficient; elementwise."""
        sigma = self.sigma(t)
        square = 2.0 * sigma * (self.sigma_slope(t) - self.drift(t) * sigma)
        return jnp.sqrt(square)

    def parts(self) -> dict[str, Params]:
        """Parameters of the process that training finds, to start from, by part; most processes have none."""
        return {}

    def freeze(self, parts: Parts) -> "SDE":
        """The process with what training has made of ``parts``, as plain numbers of the host."""
        return self

    def perturb(self, x0: Array, t: Array, noise: Array) -> Array:
        """Sample ``x_t`` given ``x0``: ``(B, *D), () | (B,), (B, *D) -> (B, *D)``."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * noise

    def reverse_drift(self, x: Array, score: Array, t: Array, *, noise_scale: float = 1.0) -> Array:
        """Drift of the time reversal that injects ``noise_scale * g`` noise.

        ``f x - (1 + noise_scale^2) / 2 g^2 score``: the reverse SDE for ``noise_scale = 1``
        (arXiv:2011.13456, eq. 6), the probability-flow ODE for ``noise_scale = 0`` (eq. 13); every value
        between has the same marginals.

        Args:
          x: state, ``(B, *D)``.
          score: gradient of the log marginal density at ``x``, ``(B, *D)``.
          t: ``()`` or ``(B,)``.
        """
        f, g = expand(self.drift(t), x), expand(self.diffusion(t), x)
        return f * x - 0.5 * (1.0 + noise_scale**2) * g**2 * score

    @property
    def prior_sigma(self) -> float:
        """Standard deviation of the prior: ``sigma(t_max)``, or that of the stationary distribution."""
        with jax.ensure_compile_time_eval():  # also while a caller is being traced
            return float(self.sigma(jnp.float32(self.t_max)))

    def prior_sample(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Draw from ``N(0, prior_sigma^2 I)``: ``(B,)`` keys to ``(B, *shape)`` float32."""
        return self.prior_sigma * normal_per_sample(keys, shape)

    def prior_log_prob(self, x: Array) -> Array:
        """Log density of the prior in nats: ``(B, *D) -> (B,)``."""
        size = math.prod(x.shape[1:])
        scale = self.prior_sigma
        log_normalizer = size * (0.5 * math.log(2.0 * math.pi) + math.log(scale))
        return -0.5 * sum_dims((x / scale) ** 2) - log_normalizer


def _slope(function, t: Array) -> Array:
    t = jnp.asarray(t)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

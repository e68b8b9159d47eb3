"""Data whose denoiser and density are known exactly at every time of every process."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.arrays import expand, sum_dims
from score_sde.denoiser import Estimate, from_x0
from score_sde.sde import SDE


def denoise_by(sde: SDE, clean):
    """The denoiser whose clean sample is ``clean(x, t)``."""
    return lambda x, t, **options: from_x0(sde, clean(x, t), x, jnp.asarray(t))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``x0 ~ N(mean, diag(std^2))``; ``mean`` and ``std`` have the shape of one example."""

    mean: np.ndarray
    std: np.ndarray

    def sample(self, key, count):
        return self.mean[None] + self.std[None] * jax.random.normal(key, (count, *self.mean.shape))

    def denoise(self, sde: SDE):
        """``E[x0 | x_t]``, a precision-weighted mean, and ``E[noise | x_t]``."""

        def at(x, t):
            t = jnp.broadcast_to(t, x.shape[:1])
            a, s = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
            variance = (a * self.std[None]) ** 2 + s**2
            off = (x - a * self.mean[None]) / variance
            return Estimate(self.mean[None] + a * self.std[None] ** 2 * off, s * off)

        return at

    def log_prob(self, sde: SDE, x, t):
        """Log density of the marginal at ``t``, nats: ``(B,)``."""
        t = jnp.broadcast_to(t, x.shape[:1])
        a, s = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        variance = (a * self.std[None]) ** 2 + s**2
        return -0.5 * sum_dims((x - a * self.mean[None]) ** 2 / variance + jnp.log(2 * jnp.pi * variance))

    def flow(self, sde: SDE, x, t, s):
        """Where the probability-flow ODE takes ``x`` from ``t`` to ``s``: standardised values stay."""

        def moments(u):
            a, sd = sde.alpha(jnp.asarray(u)), sde.sigma(jnp.asarray(u))
            return a * self.mean[None], jnp.sqrt((a * self.std[None]) ** 2 + sd**2)

        (m0, v0), (m1, v1) = moments(t), moments(s)
        return m1 + v1 * (x - m0) / v0


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equal mixture of ``N(mean_k, std^2 I)``; ``means``: ``(K, *D)``."""

    means: np.ndarray
    std: float

    def _responsibilities(self, sde: SDE, x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        a, s = sde.alpha(t), sde.sigma(t)
        variance = (a * self.std) ** 2 + s**2  # (B,)
        flat = x.reshape(x.shape[0], 1, -1)
        centres = a[:, None, None] * self.means.reshape(1, len(self.means), -1)
        square = jnp.sum((flat - centres) ** 2, axis=-1)  # (B, K)
        return jax.nn.log_softmax(-0.5 * square / variance[:, None], axis=1), square, variance

    def denoise(self, sde: SDE):
        def at(x, t):
            t = jnp.broadcast_to(t, x.shape[:1])
            weights, _, variance = self._responsibilities(sde, x, t)
            mean = jnp.exp(weights) @ self.means.reshape(len(self.means), -1)
            mean = mean.reshape(x.shape)
            a, s = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
            off = (x - a * mean) / expand(variance, x)
            return Estimate(mean + a * self.std**2 * off, s * off)

        return at

    def log_prob(self, sde: SDE, x, t):
        _, square, variance = self._responsibilities(sde, x, t)
        size = x[0].size
        each = -0.5 * square / variance[:, None] - 0.5 * size * jnp.log(2 * jnp.pi * variance)[:, None]
        return jax.nn.logsumexp(each, axis=1) - jnp.log(float(len(self.means)))

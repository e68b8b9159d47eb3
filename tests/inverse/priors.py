"""Priors whose posteriors under a linear measurement are known."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from score_sde.denoiser import from_x0
from tests.oracles import Mixture


@dataclass(frozen=True, eq=False)
class Correlated:
    """``x0 ~ N(mean, covariance)``, states ``(d,)``."""

    mean: np.ndarray
    covariance: np.ndarray

    def denoise(self, sde):
        def at(x, t):
            t = jnp.broadcast_to(t, x.shape[:1])
            a, s = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
            total = a**2 * self.covariance[None] + s**2 * jnp.eye(len(self.mean))[None]
            off = (x - a[..., 0] * self.mean[None])[..., None]
            x0 = self.mean[None] + (a * self.covariance[None] @ jnp.linalg.solve(total, off))[..., 0]
            return from_x0(sde, x0, x, t)

        return at

    def given_first(self, y, noise_std):
        """Mean and covariance given ``x[0] + noise_std z = y``."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + noise_std**2)
        return self.mean + gain * (y - self.mean[0]), self.covariance - np.outer(gain, self.covariance[0])


def mixture_weights(prior: Mixture, y: float, noise_std: float) -> np.ndarray:
    """Weights of the modes of a mixture of points ``(2,)`` given ``x[0] + noise_std z = y``."""
    log = -0.5 * (y - prior.means[:, 0]) ** 2 / (prior.std**2 + noise_std**2)
    weights = np.exp(log - log.max())
    return weights / weights.sum()


def seen_first(count: int, y: float, noise_std: float) -> dict[str, np.ndarray]:
    """``cond`` of ``count`` samples ``(2,)`` whose first entry is measured."""
    first = np.tile(np.array([1.0, 0.0], np.float32), (count, 1))
    return {"measured": y * first, "mask": first, "noise_std": np.full(count, noise_std, np.float32)}

"""Moment-matching posterior sampling (Rozet et al. 2024, arXiv:2405.13712)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import expand
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise, Estimate
from score_sde.inverse.base import NOISE_STD, Posterior, conjugate_gradients, linearised


@dataclass(frozen=True, kw_only=True)
class MMPS(Posterior):
    """``p(x0 | x_t)`` taken as a Gaussian with the covariance that Tweedie's formula gives.

        V = (sigma^2 / alpha) d x0 / d x                                  (arXiv:2405.13712, eq. 14)
        x0 + V A^T v,   (A V A^T + noise_std^2) v = y - A x0              (eq. 20)

    Exact for Gaussian data of any covariance.  Each of the steps below costs a backward pass of the network.

    Attributes:
      solve_steps: of conjugate gradients; 1 to 5 do for pictures.
    """

    solve_steps: int = 3

    def correct(self, denoise: Denoise, x: Array, t: Array, given: Cond) -> Estimate:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        estimate, pull = linearised(denoise, x, t)
        ratio, rest = expand(sigma**2 / alpha, x), self.residual(estimate.x0, given)
        # Without noise the system is singular where nothing is uncertain any more.
        floor = expand(jnp.maximum(given[NOISE_STD] ** 2, 1e-6 * (sigma / alpha) ** 2), rest)

        def spread(v: Array) -> Array:
            return ratio * pull(self.operator.adjoint(v, given))

        def covariance(v: Array) -> Array:
            return self.operator.apply(spread(v), given) + floor * v

        solved = conjugate_gradients(covariance, rest, self.solve_steps)
        return estimate.shifted(self.sde, t, spread(solved))

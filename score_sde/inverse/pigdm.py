"""Pseudo-inverse guidance (Song et al. 2023, "Pseudoinverse-guided diffusion models", ICLR)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import expand
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise, Estimate
from score_sde.inverse.base import NOISE_STD, LinearOperator, Posterior, conjugate_gradients, linearised


@dataclass(frozen=True, kw_only=True)
class PiGDM(Posterior):
    """``p(x0 | x_t)`` taken as a Gaussian of one variance ``r^2`` around the estimate.

        x0 + (sigma^2 / alpha) J^T A^T (r^2 A A^T + noise_std^2)^-1 (y - A x0),   J = d x0 / d x
        r^2 = sigma^2 sigma_data^2 / (sigma^2 + alpha^2 sigma_data^2)

    It is exact for data that are a Gaussian of standard deviation ``sigma_data`` in every direction.  The
    paper adds the gradient after a DDIM step, with a factor of its own; here it is a correction of the
    estimate, which every solver can use.

    Attributes:
      sigma_data: standard deviation of the data, in the model's range.
      solve_steps: of conjugate gradients, where the eigenvalues of ``A A^T`` are not known.
    """

    sigma_data: float = 0.5
    solve_steps: int = 20

    def correct(self, denoise: Denoise, x: Array, t: Array, given: Cond) -> Estimate:
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        estimate, pull = linearised(denoise, x, t)
        rest = self.residual(estimate.x0, given)
        spread = spread_of(alpha, sigma, self.sigma_data)
        solved = solve_spread(self.operator, rest, spread, given, self.solve_steps)
        shift = expand(sigma**2 / alpha, x) * pull(self.operator.adjoint(solved, given))
        return estimate.shifted(self.sde, t, self.bounded(shift, rest, given))


def spread_of(alpha: Array, sigma: Array, sigma_data: float) -> Array:
    """``r^2``, the variance of ``p(x0 | x_t)`` for Gaussian data: shapes as of ``alpha``."""
    return sigma**2 * sigma_data**2 / (sigma**2 + (alpha * sigma_data) ** 2)


def solve_spread(operator: LinearOperator, rest: Array, spread: Array, given: Cond, steps: int) -> Array:
    """``(r^2 A A^T + noise_std^2)^-1 rest``: ``(B, *M) -> (B, *M)``.

    Args:
      spread: ``r^2``, ``(B,)``.
      steps: of conjugate gradients, where the eigenvalues of ``A A^T`` are not known.
    """
    # Without noise of the measurement, a millionth of what is not known of x0 stands in for it.
    floor = expand(jnp.maximum(given[NOISE_STD] ** 2, 1e-6 * spread), rest)
    r2 = expand(spread, rest)
    solved = operator.of_gram(lambda eigenvalues: 1.0 / (r2 * eigenvalues + floor), rest, given)
    if solved is not None:
        return solved

    def covariance(v: Array) -> Array:
        return r2 * operator.apply(operator.adjoint(v, given), given) + floor * v

    return conjugate_gradients(covariance, rest, steps)

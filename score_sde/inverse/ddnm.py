"""Null-space projection (Wang et al. 2023, arXiv:2212.00490), which for a mask is replacement done right."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import expand
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise, Estimate
from score_sde.inverse.base import NOISE_STD, Posterior


@dataclass(frozen=True, kw_only=True)
class DDNM(Posterior):
    """``x0 + A^+ (y - A x0)``: what is measured is taken from the measurement, the rest from the model.

    No gradient is taken: it costs what plain sampling does.  ``x`` and the noise that belongs to the new
    ``x0`` stay consistent, so that the known part follows the path of the process to ``y`` itself.  With a
    mask this is the replacement method (arXiv:2011.13456, appendix I) without its fault, an unknown region
    that is a step behind the known one.  With noise in the measurement the correction is weakened once the
    noise of the state is less (DDNM+, eq. 17 and 19).

    Raises (when it is bound):
      ValueError: an operator without a pseudo-inverse.
    """

    def correct(self, denoise: Denoise, x: Array, t: Array, given: Cond) -> Estimate:
        estimate = denoise(x, t)
        level = self.sde.sigma(t) / self.sde.alpha(t)
        noise_std = given[NOISE_STD]
        share = jnp.where(noise_std > level, level / jnp.maximum(noise_std, 1e-12), 1.0)
        missing = self.operator.pseudo_inverse(self.residual(estimate.x0, given), given)
        return estimate.shifted(self.sde, t, expand(share, x) * missing)

"""Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687, algorithm 1)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import sum_dims
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise
from score_sde.inverse.steps import BetweenSteps, Step


@dataclass(frozen=True, kw_only=True)
class DPS(BetweenSteps):
    """After each step the state moves against the gradient of ``|y - A x0(x)|``, taken before the step.

    The norm is not squared, which is the step of the paper divided by the norm (appendix D.1), and it is that
    of each sample.  The move is made in variance-preserving coordinates, ``x / sqrt(alpha^2 + sigma^2)``, so
    that it is the same for every process; for VP they are those of ``x``.  The noise of the measurement is
    not read.

    Attributes:
      step_size: ``zeta``; the paper takes 0.3 to 1 with 1000 steps.  Fewer steps need more.
    """

    step_size: float = 1.0

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"step_size = {self.step_size}: must be positive")

    def before(self, denoise: Denoise, x: Array, step: Step[Array], given: Cond) -> Array:
        def distance(x: Array) -> Array:
            square = sum_dims(self.residual(denoise(x, step.t).x0, given) ** 2)
            return jnp.sum(jnp.sqrt(jnp.maximum(square, 1e-12)))  # a sum over samples: each has its gradient

        return jax.grad(distance)(x)

    def after(self, x: Array, known: Array, step: Step[Array], z: Array, given: Cond) -> Array:
        start, end = (jnp.sqrt(level.alpha**2 + level.sigma**2) for level in (step.start, step.end))
        return x - self.step_size * start * end * known

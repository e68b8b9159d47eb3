"""The two discrete processes that score SDEs grew from: DDPM and SMLD.

Each has ``steps`` noise levels, at the times ``t_i = i / (steps - 1)``; level 0 is the least noisy.  Between
the levels the log scale is interpolated linearly, so that every continuous solver runs on them too.
"""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.sde.base import SDE
from score_sde.sde.gaussian import VE


def _check_steps(steps: int) -> None:
    if steps < 2:
        raise ValueError(f"sde: steps must be at least 2, got {steps}")


@dataclass(frozen=True, kw_only=True)
class DDPM(SDE):
    """DDPM (Ho et al. 2020, arXiv:2006.11239, eq. 4): ``alpha_i^2 = prod_{j <= i} (1 - beta_j)``.

    ``beta_j`` runs linearly from ``beta_min / steps`` to ``beta_max / steps``, the published 1e-4 to 0.02 for
    1000 steps.  This is not the VP SDE sampled at ``t_i``: at the end ``alpha`` is 0.00635 against 0.00657.

    Raises:
      ValueError: ``beta_max >= steps``, for which the last ``beta`` reaches one.

    Attributes:
      steps: noise levels.
      beta_min, beta_max: rate of the noise times the number of steps, at the first and the last level.
    """

    steps: int = 1000
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)
        if not 0 < self.beta_min < self.beta_max < self.steps:
            raise ValueError(
                "sde: need 0 < beta_min < beta_max < steps, got "
                f"{self.beta_min}, {self.beta_max} and {self.steps}"
            )

    @cached_property
    def betas(self) -> np.ndarray:
        """``(steps,)`` float64."""
        return np.linspace(self.beta_min / self.steps, self.beta_max / self.steps, self.steps)

    @cached_property
    def _log_alphas(self) -> np.ndarray:
        return 0.5 * np.cumsum(np.log1p(-self.betas))

    def log_alpha(self, t: Array) -> Array:
        index = jnp.asarray(t) * (self.steps - 1)
        level = jnp.clip(jnp.floor(index), 0, self.steps - 2).astype(int)
        table = jnp.asarray(self._log_alphas)
        # Differences made here, in float64: in float32 they would leave four digits to the slope.
        between = table[level] + (index - level) * jnp.asarray(np.diff(self._log_alphas))[level]
        return jnp.where(index > self.steps - 1, table[-1], between)

    def alpha(self, t: Array) -> Array:
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_alpha(t)))

    def sigma_slope(self, t: Array) -> Array:
        return -self.drift(t) * self.alpha(t) ** 2 / self.sigma(t)  # as for VP

    @property
    def prior_sigma(self) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SMLD(VE):
    """Score matching with Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600): geometric noise levels.

    The continuous VE process restricted to ``steps`` levels.

    Attributes:
      steps: noise levels.
    """

    steps: int = 1000
    t_min: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self.steps)

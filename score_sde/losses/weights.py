"""Loss weights: functions of time that multiply the square error of the denoised ``x0``.

Stated in ``x0`` space, every objective of the field is one weight.  With ``x = alpha x0 + sigma noise`` held
fixed, an error in ``D`` is an error in

    noise     times  alpha / sigma
    score     times  alpha / sigma^2
    velocity  times  alpha' - alpha sigma' / sigma
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.sde import SDE

Weight = Callable[[SDE, Array], Array]


def noise_weight(sde: SDE, t: Array) -> Array:
    """Square error of the noise, ``lambda = sigma^2`` of the score loss (arXiv:2011.13456, eq. 7)."""
    return (sde.alpha(t) / sde.sigma(t)) ** 2


def likelihood_weight(sde: SDE, t: Array) -> Array:
    """``lambda = g^2`` of the score loss: the bound on the likelihood (arXiv:2101.09258, theorem 1)."""
    return (sde.diffusion(t) * sde.alpha(t)) ** 2 / sde.sigma(t) ** 4


def velocity_weight(sde: SDE, t: Array) -> Array:
    """Square error of ``dx/dt``: conditional flow matching (arXiv:2210.02747, eq. 9)."""
    return (sde.alpha_slope(t) - sde.alpha(t) * sde.sigma_slope(t) / sde.sigma(t)) ** 2


def uniform_weight(sde: SDE, t: Array) -> Array:
    """Square error of ``x0`` itself."""
    return jnp.ones_like(t)


@dataclass(frozen=True)
class EDMWeight:
    """``(level^2 + sigma_data^2) / (level sigma_data)^2``, ``level = sigma / alpha`` (EDM, table 1).

    Attributes:
      sigma_data: standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __call__(self, sde: SDE, t: Array) -> Array:
        level = sde.sigma(t) / sde.alpha(t)
        return (level**2 + self.sigma_data**2) / (level * self.sigma_data) ** 2


WEIGHTS: dict[str, Callable[..., Weight]] = {
    "noise": lambda: noise_weight,
    "likelihood": lambda: likelihood_weight,
    "velocity": lambda: velocity_weight,
    "uniform": lambda: uniform_weight,
    "edm": EDMWeight,
}

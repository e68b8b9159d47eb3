"""Densities of the training time: ``(sde, key, batch) -> t``.

A draw is made once for the global batch, so that it depends on neither devices nor processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from score_sde.sde import SDE

Times = Callable[[SDE, Array, int], Array]


def uniform(sde: SDE, key: Array, batch: int) -> Array:
    """Independent uniform times in ``[t_min, t_max]``: ``(batch,)``, as the official code draws them."""
    return jax.random.uniform(key, (batch,), minval=sde.t_min, maxval=sde.t_max)


def low_discrepancy(sde: SDE, key: Array, batch: int) -> Array:
    """Uniform times that share one offset: ``(batch,)``, each uniform, together evenly spread.

    The same expected loss with less variance (Kingma et al. 2021, arXiv:2107.00630, appendix I.1).
    """
    return sde.t_min + (sde.t_max - sde.t_min) * _spread(key, batch)


def _spread(key: Array, batch: int) -> Array:
    """Uniform numbers in [0, 1) that share one offset: ``(batch,)``."""
    return jnp.mod(jax.random.uniform(key, ()) + jnp.arange(batch) / batch, 1.0)


def levels(sde: Any, key: Array, batch: int) -> Array:
    """Uniform over the levels ``i / (steps - 1)`` of a discrete process: ``(batch,)``."""
    return jax.random.randint(key, (batch,), 0, sde.steps) / (sde.steps - 1)


@dataclass(frozen=True)
class LogNormal:
    """``log(sigma / alpha)`` normal, as EDM trains (arXiv:2206.00364, table 1), for any process.

    The normal numbers are quantiles of evenly spread uniform ones.  Noise levels beyond the ends of the
    process are taken at the end.

    Attributes:
      p_mean, p_std: of the logarithm.
    """

    p_mean: float = -1.2
    p_std: float = 1.2

    def __post_init__(self) -> None:
        if self.p_std <= 0:
            raise ValueError(f"p_std = {self.p_std}: must be positive")

    def __call__(self, sde: SDE, key: Array, batch: int) -> Array:
        """``(batch,)`` times."""
        half_cell = 0.5**24  # a float32 uniform may be zero, whose quantile is infinite
        normal = ndtri(jnp.clip(_spread(key, batch), half_cell, 1.0 - half_cell))
        return sde.time_of(-2.0 * (self.p_mean + self.p_std * normal))


TIMES: dict[str, Callable[..., Times]] = {
    "uniform": lambda: uniform,
    "low_discrepancy": lambda: low_discrepancy,
    "levels": lambda: levels,
    "log_normal": LogNormal,
}

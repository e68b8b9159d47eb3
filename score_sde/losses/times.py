"""Densities of the training time: ``(sde, key, batch) -> t``.

A draw is made once for the global batch, so that it depends on neither devices nor processes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.sde import SDE

Times = Callable[[SDE, Array, int], Array]


def uniform(sde: SDE, key: Array, batch: int) -> Array:
    """Independent uniform times in ``[t_min, t_max]``: ``(batch,)``, as the official code draws them."""
    return jax.random.uniform(key, (batch,), minval=sde.t_min, maxval=sde.t_max)


def low_discrepancy(sde: SDE, key: Array, batch: int) -> Array:
    """Uniform times that share one offset: ``(batch,)``, each uniform, together evenly spread.

    The same expected loss with less variance (Kingma et al. 2021, arXiv:2107.00630, appendix I.1).
    """
    offset = jax.random.uniform(key, ())
    unit = jnp.mod(offset + jnp.arange(batch) / batch, 1.0)
    return sde.t_min + (sde.t_max - sde.t_min) * unit


def levels(sde: Any, key: Array, batch: int) -> Array:
    """Uniform over the levels ``i / (steps - 1)`` of a discrete process: ``(batch,)``."""
    return jax.random.randint(key, (batch,), 0, sde.steps) / (sde.steps - 1)


TIMES: dict[str, Callable[..., Times]] = {
    "uniform": lambda: uniform,
    "low_discrepancy": lambda: low_discrepancy,
    "levels": lambda: levels,
}

"""Densities of the training time: ``(sde, key, batch) -> t``.

A draw is made once for the global batch, so that it depends on neither devices nor processes.

An objective is stated for uniform times.  A density that is only a better way to draw for the same objective
says so by its ``correction``: the uniform density over its own, by which the loss is multiplied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri

from score_sde.names import nearest
from score_sde.sde import SDE

Times = Callable[[SDE, Array, int], Array]


# --- uniform numbers on [0, 1]: (key, batch) -> (batch,) -------------------------------------------


def _independent(key: Array, batch: int) -> Array:
    return jax.random.uniform(key, (batch,))


def _low_discrepancy(key: Array, batch: int) -> Array:
    """Each uniform, together evenly spread: they share one offset (arXiv:2107.00630, appendix I.1)."""
    return jnp.mod(jax.random.uniform(key, ()) + jnp.arange(batch) / batch, 1.0)


def _antithetic(key: Array, batch: int) -> Array:
    """Pairs ``u, 1 - u`` (Hammersley & Morton 1956); of an odd batch the last number has no partner."""
    u = jax.random.uniform(key, (-(-batch // 2),))
    return jnp.concatenate([u, 1.0 - u])[:batch]


SPREADS: dict[str, Callable[[Array, int], Array]] = {
    "low_discrepancy": _low_discrepancy,
    "independent": _independent,
    "antithetic": _antithetic,
}

# --- densities -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uniform:
    """Uniform times in ``[t_min, t_max]``.

    Attributes:
      spread: how the times of one batch relate: ``independent``, as in the official code, ``antithetic`` or
        ``low_discrepancy``.  The expected loss is the same, its variance is not.
    """

    spread: str = "low_discrepancy"

    def __post_init__(self) -> None:
        _check_spread(self.spread)

    def __call__(self, sde: SDE, key: Array, batch: int) -> Array:
        """``(batch,)`` times."""
        return sde.t_min + (sde.t_max - sde.t_min) * SPREADS[self.spread](key, batch)


@dataclass(frozen=True)
class Importance:
    """Times of density ``g^2 / sigma^2``: where the likelihood weight is large (arXiv:2101.09258, section 5).

    It is the rate at which the log signal-to-noise ratio falls, ``g^2 / sigma^2 = -d log_snr/dt``, so the
    distribution function is ``log_snr`` itself, for every process: a draw is a uniform log-SNR, and
    ``SDE.time_of`` inverts it.  The process must have a finite log-SNR at both ends.

    Attributes:
      spread: as of ``Uniform``.
    """

    spread: str = "low_discrepancy"

    def __post_init__(self) -> None:
        _check_spread(self.spread)

    def __call__(self, sde: SDE, key: Array, batch: int) -> Array:
        """``(batch,)`` times."""
        high, low = log_snr_ends(sde)
        return sde.time_of(high + (low - high) * SPREADS[self.spread](key, batch))

    def correction(self, sde: SDE, t: Array) -> Array:
        """The uniform density over this one at ``t``; elementwise.  Its mean under this one is 1."""
        high, low = log_snr_ends(sde)
        return (high - low) / (sde.t_max - sde.t_min) * (sde.sigma(t) / sde.diffusion(t)) ** 2


def log_snr_ends(sde: SDE) -> tuple[Array, Array]:
    """Log-SNR at ``t_min`` and ``t_max``, each ``()``."""
    return sde.log_snr(jnp.asarray(sde.t_min, float)), sde.log_snr(jnp.asarray(sde.t_max, float))


def _check_spread(spread: str) -> None:
    if spread not in SPREADS:
        raise ValueError(f"spread = {spread!r} is not one of: {', '.join(SPREADS)}{nearest(spread, SPREADS)}")


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
        normal = ndtri(jnp.clip(_low_discrepancy(key, batch), half_cell, 1.0 - half_cell))
        return sde.time_of(-2.0 * (self.p_mean + self.p_std * normal))


def correction_of(times: Times, sde: SDE, t: Array) -> Array:
    """What the loss at ``t`` is multiplied by for how it was drawn; ones, where that is the objective."""
    correct = getattr(times, "correction", None)
    return jnp.ones_like(t) if correct is None else correct(sde, t)


TIMES: dict[str, Callable[..., Times]] = {
    "uniform": lambda: Uniform("independent"),
    "low_discrepancy": lambda: Uniform("low_discrepancy"),
    "antithetic": lambda: Uniform("antithetic"),
    "importance": Importance,
    "levels": lambda: levels,
    "log_normal": LogNormal,
}

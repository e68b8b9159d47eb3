"""A variance-preserving process whose noise schedule is learned (Kingma et al. 2021, arXiv:2107.00630).

The log signal-to-noise ratio falls from ``log_snr_max`` at t = 0 to ``log_snr_min`` at t = 1,

    log_snr(t) = log_snr_max - (log_snr_max - log_snr_min) fall(t)

where ``fall`` is a polynomial in Bernstein form, ``sum_k c_k binomial(n, k) t^k (1 - t)^(n - k)``, whose
coefficients rise from 0 to 1 by shares that are positive and sum to one.  So it is smooth and strictly
increasing, comes as near as one likes to any such function as the degree n grows, and is ``t`` for equal
shares.

While it is trained a schedule is a dictionary of arrays (``Learned.parts``) among the parameters; whatever
comes after training sees a ``Learned`` with numbers in it (``Learned.freeze``), static like every process.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params, Parts
from score_sde.sde.base import SDE

Schedule = Mapping[str, Array]  # log_snr_max: (), log_snr_min: (), logits: (n,) of the shares


def fall(shares: Array, t: Array) -> Array:
    """The polynomial above: shares ``(n,)``, ``t`` in [0, 1] of any shape, which it keeps."""
    degree = shares.shape[0]
    rise = jnp.concatenate([jnp.zeros_like(shares[:1]), jnp.cumsum(shares)])
    rise = rise * jnp.asarray([math.comb(degree, k) for k in range(degree + 1)], rise.dtype)
    t = jnp.asarray(t)
    # Integer exponents one by one: with an array of them the slope at the ends, where a base is 0, is nan.
    up, down = (jnp.stack([base**k for k in range(degree + 1)], axis=-1) for base in (t, 1.0 - t))
    return jnp.sum(rise.reshape((1,) * t.ndim + (-1,)) * up * down[..., ::-1], axis=-1)


@dataclass(frozen=True, kw_only=True)
class ByLevel(SDE):
    """The variance-preserving process whose time is the noise level ``sigma / alpha`` itself.

    What a network learns at a noise level does not depend on when a schedule comes to it; in this time the
    schedule is only the density of training times.
    """

    t_min: float = 1e-8
    t_max: float = 1e8

    def alpha(self, t: Array) -> Array:
        return jnp.exp(0.5 * jax.nn.log_sigmoid(self.log_snr(t)))

    def sigma(self, t: Array) -> Array:
        return jnp.exp(0.5 * jax.nn.log_sigmoid(-self.log_snr(t)))

    def log_snr(self, t: Array) -> Array:
        return -2.0 * jnp.log(t)


@dataclass(frozen=True, kw_only=True)
class Learned(SDE):
    """Variance-preserving, with a log-SNR that training finds (arXiv:2107.00630).

    Attributes:
      log_snr_max: at t = 0; where training starts from.
      log_snr_min: at t = 1; likewise.
      degree: shares of the schedule.
      shares: the schedule itself, ``degree`` positive numbers that sum to 1; empty: equal ones.
      trainable: False: the process is as the numbers say, and is trained on like any other.
    """

    log_snr_max: float = 13.3
    log_snr_min: float = -5.0
    degree: int = 12
    shares: tuple[float, ...] = ()
    trainable: bool = True
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -60 < self.log_snr_min < self.log_snr_max < 60:
            raise ValueError(
                "sde: need -60 < log_snr_min < log_snr_max < 60, got "
                f"{self.log_snr_min} and {self.log_snr_max}"
            )
        if self.degree < 1 or len(self.shares) not in (0, self.degree):
            raise ValueError(
                f"sde: need degree >= 1 and as many shares or none, got {self.degree} and {len(self.shares)}"
            )
        if self.shares and not (min(self.shares) > 0 and math.isclose(sum(self.shares), 1.0, rel_tol=1e-4)):
            raise ValueError(f"sde: shares = {self.shares}: must be positive and sum to 1")
        if self.t_max > 1:
            raise ValueError(f"sde: t_max = {self.t_max}: must be at most 1")

    def _shares(self, dtype: Any) -> Array:
        return jnp.asarray(self.shares or (1 / self.degree,) * self.degree, dtype)

    def log_snr(self, t: Array) -> Array:
        t = jnp.asarray(t, jnp.result_type(float, t))
        return self.log_snr_max - (self.log_snr_max - self.log_snr_min) * fall(self._shares(t.dtype), t)

    def alpha(self, t: Array) -> Array:
        return jnp.exp(0.5 * jax.nn.log_sigmoid(self.log_snr(t)))

    def sigma(self, t: Array) -> Array:
        return jnp.exp(0.5 * jax.nn.log_sigmoid(-self.log_snr(t)))

    @property
    def prior_sigma(self) -> float:
        return 1.0

    def parts(self) -> dict[str, Params]:
        if not self.trainable:
            return {}
        schedule = {
            "log_snr_max": jnp.asarray(self.log_snr_max, jnp.float32),
            "log_snr_min": jnp.asarray(self.log_snr_min, jnp.float32),
            "logits": jnp.log(self._shares(jnp.float32)),
        }
        return {"schedule": schedule}

    def freeze(self, parts: Parts) -> "Learned":
        """The process of the part ``schedule``, with plain numbers: no longer trainable."""
        if not self.trainable:
            return self
        schedule = {name: np.asarray(value, np.float64) for name, value in parts["schedule"].items()}
        logits = schedule["logits"]
        shares = np.exp(logits - logits.max())
        return replace(
            self,
            log_snr_max=float(schedule["log_snr_max"]),
            log_snr_min=float(schedule["log_snr_min"]),
            degree=len(logits),
            shares=tuple((shares / shares.sum()).tolist()),
            trainable=False,
        )

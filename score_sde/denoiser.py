"""The one currency: the denoiser ``D(x, t) = E[x0 | x_t = x]``.

Score, noise and velocity are changes of variable of it (Tweedie's formula, Efron 2011):

    score    = (alpha D - x) / sigma^2
    noise    = (x - alpha D) / sigma
    velocity = alpha' D + sigma' noise          (dx/dt of the probability-flow ODE)

A network becomes a denoiser through one row of four numbers (Karras et al. 2022, arXiv:2206.00364, eq. 7):

    D(x, t) = c_skip x + c_out F(c_in x, c_noise)

What the network predicts is the choice of ``c_skip, c_out, c_in``; how it is told the time is ``c_noise``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand
from score_sde.sde import SDE

# What a network may be told beside the example and its noise level, by name: ``label``, ``(B,)`` integers
# with -1 for none, and ``augment``, ``(B, A)`` numbers that say how an example was augmented.
Cond = Mapping[str, Array] | None


class Denoise(Protocol):
    """What solvers, guidance, likelihood and losses see."""

    def __call__(self, x: Array, t: Array) -> Array:
        """``(B, *D), () | (B,) -> E[x0 | x_t = x]: (B, *D)``."""
        ...


# --- changes of variable ---------------------------------------------------------------------------


def noise_from(sde: SDE, x0: Array, x: Array, t: Array) -> Array:
    """Noise that leads from ``x0`` to ``x`` at ``t``; all ``(B, *D)``, ``t``: ``()`` or ``(B,)``."""
    return (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x)


def score_from(sde: SDE, x0: Array, x: Array, t: Array) -> Array:
    """Score of the marginal at ``t`` from the denoised ``x0``; shapes as in ``noise_from``."""
    return -noise_from(sde, x0, x, t) / expand(sde.sigma(t), x)


def velocity_from(sde: SDE, x0: Array, x: Array, t: Array) -> Array:
    """``dx/dt`` of the probability-flow ODE (arXiv:2011.13456, eq. 13); shapes as in ``noise_from``.

    Written with the slopes of ``alpha`` and ``sigma``, it stays finite where ``alpha`` is zero.
    """
    noise = noise_from(sde, x0, x, t)
    return expand(sde.alpha_slope(t), x) * x0 + expand(sde.sigma_slope(t), x) * noise


# --- what the network predicts: (sde, t) -> c_skip, c_out, c_in ------------------------------------

Row = tuple[Array, Array, Array]


def predict_noise(sde: SDE, t: Array) -> Row:
    """``F`` is the noise: ``D = (x - sigma F) / alpha`` (arXiv:2006.11239, eq. 15)."""
    alpha = sde.alpha(t)
    return 1.0 / alpha, -sde.sigma(t) / alpha, jnp.ones_like(alpha)


def predict_score(sde: SDE, t: Array) -> Row:
    """``F / sigma`` is the score: ``D = (x + sigma F) / alpha``, NCSN++ (arXiv:2011.13456)."""
    alpha = sde.alpha(t)
    return 1.0 / alpha, sde.sigma(t) / alpha, jnp.ones_like(alpha)


def predict_raw_score(sde: SDE, t: Array) -> Row:
    """``F`` is the score: ``D = (x + sigma^2 F) / alpha``, the first NCSN (arXiv:1907.05600)."""
    alpha = sde.alpha(t)
    return 1.0 / alpha, sde.sigma(t) ** 2 / alpha, jnp.ones_like(alpha)


def predict_x0(sde: SDE, t: Array) -> Row:
    """``F`` is the clean sample: ``D = F``."""
    alpha = sde.alpha(t)
    return jnp.zeros_like(alpha), jnp.ones_like(alpha), jnp.ones_like(alpha)


def predict_v(sde: SDE, t: Array) -> Row:
    """``F = alpha noise - sigma x0`` (Salimans & Ho 2022, arXiv:2202.00512, section 4)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    square = alpha**2 + sigma**2
    return alpha / square, -sigma / square, jnp.ones_like(alpha)


def predict_velocity(sde: SDE, t: Array) -> Row:
    """``F = dx/dt``, flow matching (arXiv:2210.02747): solved for ``x0`` from ``velocity_from``."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    slope, spread = sde.alpha_slope(t), sde.sigma_slope(t)
    gain = slope * sigma - spread * alpha
    return -spread / gain, sigma / gain, jnp.ones_like(alpha)


@dataclass(frozen=True)
class PredictEDM:
    """EDM preconditioning (arXiv:2206.00364, table 1), stated for ``x / alpha``: it fits every process.

    Attributes:
      sigma_data: standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __call__(self, sde: SDE, t: Array) -> Row:
        alpha, level = sde.alpha(t), sde.sigma(t) / sde.alpha(t)
        total = level**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = level * self.sigma_data / jnp.sqrt(total)
        return c_skip / alpha, c_out, 1.0 / (alpha * jnp.sqrt(total))


def predict_scaled_noise(sde: SDE, t: Array) -> Row:
    """The VP and iDDPM columns of EDM's table 1, stated for ``s = sigma / alpha``.

    ``D = x / alpha - s F(x / (alpha sqrt(s^2 + 1)))``: F is the noise, its input has unit variance.
    """
    alpha = sde.alpha(t)
    level = sde.sigma(t) / alpha
    return 1.0 / alpha, -level, 1.0 / (alpha * jnp.sqrt(level**2 + 1.0))


PREDICTIONS: dict[str, Callable[..., Callable[[SDE, Array], Row]]] = {
    "noise": lambda: predict_noise,
    "score": lambda: predict_score,
    "raw_score": lambda: predict_raw_score,
    "x0": lambda: predict_x0,
    "v": lambda: predict_v,
    "velocity": lambda: predict_velocity,
    "scaled_noise": lambda: predict_scaled_noise,
    "edm": PredictEDM,
}

# --- how the network is told the time: (sde, t) -> c_noise -----------------------------------------


def time_999(sde: SDE, t: Array) -> Array:
    """``999 t``, as the continuous VP and sub-VP models were trained, whatever the number of steps."""
    return 999.0 * t


def log_sigma(sde: SDE, t: Array) -> Array:
    """``log sigma``, the input of the Fourier embedding of NCSN++."""
    return jnp.log(sde.sigma(t))


def quarter_log_sigma(sde: SDE, t: Array) -> Array:
    """``log(sigma / alpha) / 4`` (arXiv:2206.00364, table 1)."""
    return -0.125 * sde.log_snr(t)


def log_half_sigma(sde: SDE, t: Array) -> Array:
    """``log(sigma / 2)``, the VE column of table 1 (arXiv:2206.00364)."""
    return jnp.log(0.5 * sde.sigma(t))


def vp_time(sde: SDE, t: Array) -> Array:
    """``999 t(sigma)`` of the VP process with beta_d = 19.9, beta_min = 0.1 (arXiv:2206.00364, table 1).

    ``t(sigma)`` solves ``sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1``.
    """
    exponent = jnp.log1p(jnp.exp(-sde.log_snr(t)))
    # (sqrt(a^2 + 2 d y) - a) / d without the cancellation at small y
    return 999.0 * 2.0 * exponent / (jnp.sqrt(0.1**2 + 2.0 * 19.9 * exponent) + 0.1)


def index(sde: Any, t: Array) -> Array:
    """``t (steps - 1)``: the level of a DDPM, 0 = least noise."""
    return t * (sde.steps - 1)


def reverse_index(sde: Any, t: Array) -> Array:
    """``(1 - t)(steps - 1)``, rounded: the level of an SMLD network, 0 = most noise."""
    return jnp.round((1.0 - t) * (sde.steps - 1))


@dataclass(frozen=True)
class IDDPMIndex:
    """The level of iDDPM's cosine schedule nearest to ``sigma / alpha`` (arXiv:2206.00364, table 1).

    ``steps - 1 - argmin_j |u_j - sigma / alpha|``: 0 = least noise; -1 next to no noise at all.

    Attributes:
      c_1, c_2: the constants of the schedule.
      steps: its noise levels.
    """

    c_1: float = 0.001
    c_2: float = 0.008
    steps: int = 1000

    @property
    def levels(self) -> np.ndarray:
        """``u_0 > u_1 > ... > u_steps = 0``."""
        kept = np.sin(0.5 * np.pi * np.arange(self.steps + 1) / (self.steps * (self.c_2 + 1.0))) ** 2
        levels = np.zeros(self.steps + 1)
        for j in range(self.steps, 0, -1):
            ratio = max(kept[j - 1] / kept[j], self.c_1)
            levels[j - 1] = np.sqrt((levels[j] ** 2 + 1.0) / ratio - 1.0)
        return levels

    def __call__(self, sde: SDE, t: Array) -> Array:
        level = jnp.exp(-0.5 * sde.log_snr(t))[..., None]
        levels = jnp.asarray(self.levels, level.dtype).reshape((1,) * (level.ndim - 1) + (-1,))
        nearest = jnp.argmin(jnp.abs(levels - level), axis=-1)
        return (self.steps - 1 - nearest).astype(level.dtype)


TIME_INPUTS: dict[str, Callable[..., Callable[[SDE, Array], Array]]] = {
    "time_999": lambda: time_999,
    "log_sigma": lambda: log_sigma,
    "quarter_log_sigma": lambda: quarter_log_sigma,
    "log_half_sigma": lambda: log_half_sigma,
    "vp_time": lambda: vp_time,
    "iddpm_index": IDDPMIndex,
    "index": lambda: index,
    "reverse_index": lambda: reverse_index,
}


class Coefficients(NamedTuple):
    """One row of the table above; each entry is shaped like ``t``."""

    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array


@dataclass(frozen=True)
class Precondition:
    """A prediction and a time input: ``(sde, t) -> Coefficients``."""

    prediction: Callable[[SDE, Array], Row]
    time_input: Callable[[SDE, Array], Array]

    def __call__(self, sde: SDE, t: Array) -> Coefficients:
        return Coefficients(*self.prediction(sde, t), self.time_input(sde, t))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Denoiser:
    """A network seen through its row.  A pytree whose only leaves are ``params`` and ``cond``.

    Attributes:
      params: parameters of ``net``.
      sde: the process that ``t`` refers to.
      net: ``net(params, x, c_noise, cond, key=key) -> (B, *D)``.
      precondition: the row.
      cond: conditions bound to every call, by name, or None.
    """

    params: Any
    sde: SDE = field(metadata={"static": True})
    net: Callable[..., Array] = field(metadata={"static": True})
    precondition: Precondition = field(metadata={"static": True})
    cond: Cond = None

    def __call__(self, x: Array, t: Array, *, key: Array | None = None) -> Array:
        """``(B, *D), () | (B,) -> (B, *D)`` in float32; a key turns dropout on.

        Of a network that emits more channels than the data have (iDDPM's variances), the first count.
        """
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        row = self.precondition(self.sde, t)
        output = self.net(self.params, expand(row.c_in, x) * x, row.c_noise, self.cond, key=key)
        return expand(row.c_skip, x) * x + expand(row.c_out, x) * output[..., : x.shape[-1]]

    def features(self, x: Array, t: Array) -> dict[str, Array]:
        """What the layers of the network make of a noisy example: ``(B, *D), () | (B,)`` to arrays by layer.

        The network must have ``features``, as those of ``score_sde.nets`` do.
        """
        t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
        row, net = self.precondition(self.sde, t), cast(Any, self.net)
        return net.features(self.params, expand(row.c_in, x) * x, row.c_noise, self.cond)

"""What every model returns: what it expects behind a noisy example, as the pair ``(x0, noise)``.

``x0 = D(x, t) = E[x0 | x_t = x]`` and ``noise = E[noise | x_t = x]``, so that ``x = alpha x0 + sigma noise``.
Score and velocity are changes of variable of the pair (Tweedie's formula, Efron 2011):

    score    = -noise / sigma
    velocity = alpha' x0 + sigma' noise         (dx/dt of the probability-flow ODE)

A network becomes a denoiser through one row of numbers (Karras et al. 2022, arXiv:2206.00364, eq. 7):

    D(x, t) = c_skip x + c_out F(c_in x, c_noise)
    noise   = noise_skip x + noise_out F(c_in x, c_noise)

What the network predicts is the choice of the coefficients; how it is given the time is ``c_noise``.  The
second line follows from the first, but is not computed from it: ``(x - alpha D) / sigma`` loses every digit
in float32 where sigma is small.  Each prediction states both in closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params, Parts, expand
from score_sde.conditions import Cond
from score_sde.sde import SDE


class Estimate(NamedTuple):
    """What a model expects behind ``x``: ``x = alpha x0 + sigma noise``.

    Combinations of estimates whose weights sum to one are estimates, and so is a shift of ``x0`` with its
    counterpart in the noise: guidance stays within the pair.

    Attributes:
      x0: the clean sample in the model's range, ``(B, *D)``.
      noise: of unit variance, ``(B, *D)``.
    """

    x0: Array
    noise: Array

    def mix(self, of_x0: Array | float, of_noise: Array | float) -> Array:
        """``of_x0 x0 + of_noise noise``, scalars: ``(B, *D)``.

        A half whose factor is zero does not count, even where it is not finite, as the noise of a network
        that predicts ``x0`` is where there is no noise.
        """
        return jnp.where(of_x0 == 0, 0.0, of_x0 * self.x0) + jnp.where(
            of_noise == 0, 0.0, of_noise * self.noise
        )

    def toward(self, other: "Estimate", share: Array | float) -> "Estimate":
        """``self + share (other - self)`` in both halves; ``share``: ``()`` or ``(B,)``, beyond 1 too."""
        share = expand(share, self.x0)
        return Estimate(*(mine + share * (its - mine) for mine, its in zip(self, other, strict=True)))

    def shifted(self, sde: SDE, t: Array, shift: Array) -> "Estimate":
        """The estimate with ``x0 + shift`` that belongs to the same ``x``; ``t``: ``()`` or ``(B,)``.

        By Tweedie's formula a term ``g`` that is added to the score is a shift of ``sigma^2 / alpha g``.
        """
        ratio = expand(sde.alpha(t) / sde.sigma(t), shift)
        return Estimate(self.x0 + shift, self.noise - ratio * shift)

    def with_score(self, sde: SDE, t: Array, term: Array) -> "Estimate":
        """The estimate with ``term``, ``(B, *D)``, added to the score; ``t``: ``()`` or ``(B,)``.

        ``x0`` moves by ``sigma^2 / alpha term`` and the noise by ``-sigma term``.  Where ``alpha`` is zero
        and ``x`` says nothing of ``x0``, only the noise moves.
        """
        alpha, sigma = expand(sde.alpha(t), term), expand(sde.sigma(t), term)
        gain = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
        return Estimate(self.x0 + gain * term, self.noise - sigma * term)


class Denoise(Protocol):
    """What solvers, guidance, likelihood and losses see."""

    def __call__(self, x: Array, t: Array) -> Estimate:
        """``(B, *D), () | (B,) -> E[x0 | x_t = x], E[noise | x_t = x]``, ``(B, *D)`` each."""
        ...


Bind = Callable[[Parts, Cond], Denoise]  # parameters and conditions to what the solver sees

# --- changes of variable ---------------------------------------------------------------------------


def from_x0(sde: SDE, x0: Array, x: Array, t: Array) -> Estimate:
    """The estimate at ``x`` of which only ``x0`` is known; all ``(B, *D)``, ``t``: ``()`` or ``(B,)``.

    The noise is ``(x - alpha x0) / sigma``: in float32 it is right to ``1e-7 alpha / sigma`` of the size of
    ``x0`` only.  That is all there is for an ``x0`` that was clipped or comes from elsewhere.
    """
    return Estimate(x0, (x - expand(sde.alpha(t), x) * x0) / expand(sde.sigma(t), x))


def score_from(sde: SDE, estimate: Estimate, t: Array) -> Array:
    """Score of the marginal at ``t``: ``(B, *D)``; ``t``: ``()`` or ``(B,)``."""
    return -estimate.noise / expand(sde.sigma(t), estimate.noise)


def velocity_from(sde: SDE, estimate: Estimate, t: Array) -> Array:
    """``dx/dt`` of the probability-flow ODE (arXiv:2011.13456, eq. 13); shapes as in ``score_from``.

    Written with the slopes of ``alpha`` and ``sigma``, it stays finite where ``alpha`` is zero.
    """
    x0, noise = estimate
    return expand(sde.alpha_slope(t), x0) * x0 + expand(sde.sigma_slope(t), noise) * noise


def x0_error(sde: SDE, estimate: Estimate, x0: Array, noise: Array, t: Array) -> Array:
    """``estimate.x0 - x0`` for ``x = alpha x0 + sigma noise``: ``(B, *D)``; ``t``: ``()`` or ``(B,)``.

    The two halves of an estimate err together, ``alpha (x0 error) = -sigma (noise error)``.  The half with
    the larger factor in ``x`` is near what the network saw, and its error a small difference: it is taken
    from the other half.
    """
    alpha, sigma = expand(sde.alpha(t), x0), expand(sde.sigma(t), x0)
    by_noise = sigma / alpha * (noise - estimate.noise)
    return jnp.where(sigma < alpha, by_noise, estimate.x0 - x0)


# --- what the network predicts: (sde, t) -> Row ----------------------------------------------------


class Row(NamedTuple):
    """How a prediction is read; each entry is shaped like ``t``.

    Attributes:
      c_skip, c_out: ``x0 = c_skip x + c_out F``.
      noise_skip, noise_out: ``noise = noise_skip x + noise_out F``.
      c_in: the network is given ``c_in x``.
    """

    c_skip: Array
    c_out: Array
    noise_skip: Array
    noise_out: Array
    c_in: Array


def predict_noise(sde: SDE, t: Array) -> Row:
    """``F`` is the noise: ``D = (x - sigma F) / alpha`` (arXiv:2006.11239, eq. 15)."""
    alpha = sde.alpha(t)
    one = jnp.ones_like(alpha)
    return Row(1.0 / alpha, -sde.sigma(t) / alpha, 0.0 * one, one, one)


def predict_score(sde: SDE, t: Array) -> Row:
    """``F / sigma`` is the score: ``D = (x + sigma F) / alpha``, NCSN++ (arXiv:2011.13456)."""
    alpha = sde.alpha(t)
    one = jnp.ones_like(alpha)
    return Row(1.0 / alpha, sde.sigma(t) / alpha, 0.0 * one, -one, one)


def predict_raw_score(sde: SDE, t: Array) -> Row:
    """``F`` is the score: ``D = (x + sigma^2 F) / alpha``, the first NCSN (arXiv:1907.05600)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    one = jnp.ones_like(alpha)
    return Row(1.0 / alpha, sigma**2 / alpha, 0.0 * one, -sigma, one)


def predict_x0(sde: SDE, t: Array) -> Row:
    """``F`` is the clean sample: ``D = F``, ``noise = (x - alpha F) / sigma``.

    Where sigma is small the noise of a good network is a small difference: this is a prediction for x0.
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    one = jnp.ones_like(alpha)
    return Row(0.0 * one, one, 1.0 / sigma, -alpha / sigma, one)


def predict_v(sde: SDE, t: Array) -> Row:
    """``F = alpha noise - sigma x0`` (Salimans & Ho 2022, arXiv:2202.00512, section 4)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    square = alpha**2 + sigma**2
    return Row(alpha / square, -sigma / square, sigma / square, alpha / square, jnp.ones_like(alpha))


def predict_velocity(sde: SDE, t: Array) -> Row:
    """``F = dx/dt``, flow matching (arXiv:2210.02747): ``alpha' x0 + sigma' noise = F`` solved with ``x``."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    fall, rise = sde.alpha_slope(t), sde.sigma_slope(t)
    gain = fall * sigma - rise * alpha  # alpha falls and sigma rises: both terms are negative
    return Row(-rise / gain, sigma / gain, fall / gain, -alpha / gain, jnp.ones_like(alpha))


@dataclass(frozen=True)
class PredictEDM:
    """EDM preconditioning (arXiv:2206.00364, table 1), stated for ``x / alpha``: it fits every process.

    With ``total = sigma^2 + alpha^2 sigma_data^2``, the variance of ``x``, the table's ``c_skip`` and
    ``c_out`` at the noise level ``sigma / alpha`` are

        D     = sigma_data^2 alpha / total x + sigma sigma_data / sqrt(total) F(x / sqrt(total))
        noise = sigma / total x - alpha sigma_data / sqrt(total) F

    Attributes:
      sigma_data: standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __call__(self, sde: SDE, t: Array) -> Row:
        sigma, signal = sde.sigma(t), self.sigma_data * sde.alpha(t)
        total = sigma**2 + signal**2
        root = jnp.sqrt(total)
        return Row(
            self.sigma_data * signal / total,
            self.sigma_data * sigma / root,
            sigma / total,
            -signal / root,
            1.0 / root,
        )


def predict_scaled_noise(sde: SDE, t: Array) -> Row:
    """The VP and iDDPM columns of EDM's table 1: F is the noise, its input ``x`` at unit scale.

    ``D = (x - sigma F(x / sqrt(alpha^2 + sigma^2))) / alpha``, the table's at the level ``sigma / alpha``.
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return predict_noise(sde, t)._replace(c_in=1.0 / jnp.sqrt(alpha**2 + sigma**2))


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

# --- how the network is given the time: (sde, t) -> c_noise -----------------------------------------


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
    """A ``Row`` and the network's time input, shaped like ``t``."""

    row: Row
    c_noise: Array


@dataclass(frozen=True)
class Precondition:
    """A prediction and a time input: ``(sde, t) -> Coefficients``."""

    prediction: Callable[[SDE, Array], Row]
    time_input: Callable[[SDE, Array], Array]

    def __call__(self, sde: SDE, t: Array) -> Coefficients:
        return Coefficients(self.prediction(sde, t), self.time_input(sde, t))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Denoiser:
    """A network seen through its row.  A pytree whose only leaves are ``params`` and ``cond``.

    Attributes:
      params: parameters of ``net``.
      sde: the process that ``t`` refers to.
      net: ``net(params, x, c_noise, cond, key=key) -> (B, *D)``.
      precondition: the row.
      cond: conditions bound to every call, by name.
    """

    params: Params
    sde: SDE = field(metadata={"static": True})
    net: Callable[..., Array] = field(metadata={"static": True})
    precondition: Precondition = field(metadata={"static": True})
    cond: Cond = field(default_factory=dict)

    def __call__(self, x: Array, t: Array, *, key: Array | None = None) -> Estimate:
        """``(B, *D), () | (B,) -> (B, *D)`` twice, in float32; a key turns dropout on.

        Of a network that emits more channels than the data have (iDDPM's variances), the first count.
        """
        row, c_noise = self._coefficients(x, t)
        output = self.net(self.params, expand(row.c_in, x) * x, c_noise, self.cond, key=key)
        output = output[..., : x.shape[-1]]
        return Estimate(
            expand(row.c_skip, x) * x + expand(row.c_out, x) * output,
            expand(row.noise_skip, x) * x + expand(row.noise_out, x) * output,
        )

    def features(self, x: Array, t: Array) -> dict[str, Array]:
        """What the layers of the network make of a noisy example: ``(B, *D), () | (B,)`` to arrays by layer.

        The network must have ``features``, as those of ``score_sde.nets`` do.
        """
        row, c_noise = self._coefficients(x, t)
        net = cast(Any, self.net)
        return net.features(self.params, expand(row.c_in, x) * x, c_noise, self.cond)

    def _coefficients(self, x: Array, t: Array) -> Coefficients:
        return self.precondition(self.sde, jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1]))

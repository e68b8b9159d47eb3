"""The variational bound in nats per dimension, as something to minimise (arXiv:2107.00630, section 5).

    -log p(x0) <= KL(q(x_1 | x0) | prior) - E log p(x0 | x_0) + 1/2 int E |noise error|^2 (-d log_snr)

Time 0 and 1 stand for ``t_min`` and ``t_max``.  The middle term takes ``x0`` to be normal about
``x_0 / alpha`` with the standard deviation ``sigma / alpha`` that the noise has there; then it is
``log(sigma / alpha) + 1/2 log(2 pi e)`` whatever the network does.  Integer data must be dequantised.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import mean_dims
from score_sde.denoiser import Denoiser, Estimate
from score_sde.losses.denoising import Aux, Drawn, square_error
from score_sde.losses.times import SPREADS, Importance, log_snr_ends
from score_sde.losses.weights import noise_weight
from score_sde.sde import SDE
from score_sde.sde.learned import ByLevel, Schedule, fall


def variational_bound(
    denoise: Callable[..., Estimate], sde: SDE, x0: Array, key: Array, **options: Any
) -> Array:
    """An unbiased estimate of the bound from one time an example: ``(B,)`` nats per dimension of ``x0``.

    Times are evenly spread in the log-SNR, the density of importance sampling.

    Args:
      denoise: ``(x, t, **options) -> Estimate``.
      x0: ``(B, *D)``, continuous or dequantised, in the model's range.
    """
    return bound_at(denoise, sde, x0, draw_bound(sde, x0, key), **options)


def draw_bound(sde: SDE, x0: Array, key: Array) -> Drawn:
    """A time an example and its noise, for ``bound_at``."""
    key_t, key_noise = jax.random.split(key)
    return Drawn(Importance()(sde, key_t, x0.shape[0]), jax.random.normal(key_noise, x0.shape))


def bound_at(denoise: Callable[..., Estimate], sde: SDE, x0: Array, drawn: Drawn, **options: Any) -> Array:
    """``variational_bound`` at times and noise that are given."""
    (t, noise), (high, low) = drawn, log_snr_ends(sde)
    error = square_error(denoise, sde, x0, t, noise, weight=noise_weight, **options)
    last = jnp.asarray(sde.t_max, x0.dtype)
    prior = _prior_gap(x0, sde.alpha(last), sde.sigma(last), sde.prior_sigma)
    return prior + _reconstruction(high) + 0.5 * (high - low) * error


def _prior_gap(x0: Array, alpha: Array, sigma: Array, prior_sigma: float) -> Array:
    """KL divergence of ``N(alpha x0, sigma^2)`` from the prior, per dimension: ``(B,)``."""
    spread = (sigma / prior_sigma) ** 2
    shift = (alpha / prior_sigma) ** 2 * mean_dims(x0**2)
    return 0.5 * (spread + shift - 1.0 - jnp.log(spread))


def _reconstruction(log_snr: Array) -> Array:
    return 0.5 * (math.log(2.0 * math.pi * math.e) - log_snr)


class _Interior(NamedTuple):
    """The schedule between its ends at the drawn times: ``fall(t)`` and its slope, ``(B,)`` each."""

    fall: Array
    slope: Array


class _Given(NamedTuple):
    """All else that the noise error depends on."""

    denoiser: Denoiser
    high: Array
    low: Array
    x0: Array
    noise: Array
    key: Array


def _diffusion(given: _Given, interior: _Interior) -> Array:
    """The integrand of the bound at the drawn times, per dimension: ``(B,)``."""
    span = given.high - given.low
    level = jnp.exp(-0.5 * (given.high - span * interior.fall))
    error = square_error(
        given.denoiser, ByLevel(), given.x0, level, given.noise, weight=noise_weight, key=given.key
    )
    return 0.5 * span * interior.slope * error


@jax.custom_vjp
def diffusion_term(given: _Given, interior: _Interior) -> Array:
    """``_diffusion``, whose gradient in the interior is that of its square: ``2 term d(term)``.

    The mean does not depend on the interior of the schedule, the mean square does: minimising it minimises
    the variance (arXiv:2107.00630, appendix I).  Network and ends get the gradient of the term itself, in
    the same backward pass.
    """
    return _diffusion(given, interior)


def _forward(given: _Given, interior: _Interior) -> tuple[Array, Any]:
    term, pull = jax.vjp(_diffusion, given, interior)
    return term, (term, pull)


def _backward(saved: Any, cotangent: Array) -> tuple[_Given, _Interior]:
    term, pull = saved
    given, interior = pull(cotangent)
    return given, jax.tree.map(lambda slope: 2.0 * term * slope, interior)


diffusion_term.defvjp(_forward, _backward)


@dataclass(frozen=True)
class VariationalLoss:
    """The loss of a learned process: the bound for network and ends, its variance for the interior.

    Attributes:
      spread: how the times of a batch relate: ``low_discrepancy``, ``independent`` or ``antithetic``.
    """

    spread: str = "low_discrepancy"

    def __call__(self, denoiser: Denoiser, schedule: Schedule, x0: Array, key: Array) -> tuple[Array, Aux]:
        """Nats per dimension ``(B,)``; ``log_snr`` and ``t`` ``(B,)``, and the ends ``()``; dropout is on."""
        key_draw, key_net = jax.random.split(key)
        return self.at(denoiser, x0, self.draw(x0, key_draw), key_net, {"schedule": schedule})

    def draw(self, x0: Array, key: Array) -> Drawn:
        """As that of ``DenoisingLoss``, with times of the schedule in [0, 1]."""
        key_t, key_noise = jax.random.split(key)
        t = SPREADS[self.spread](key_t, x0.shape[0])
        return Drawn(t, jax.random.normal(key_noise, x0.shape))

    def at(
        self, denoiser: Denoiser, x0: Array, drawn: Drawn, key: Array, parts: Mapping[str, Schedule]
    ) -> tuple[Array, Aux]:
        """The loss at times and noise that are given; returns as a call does.

        Args:
          denoiser: its process does not count; it is used in the time of ``ByLevel``.
          key: for dropout.
          parts: of which ``schedule`` counts.
        """
        (t, noise), schedule = drawn, parts["schedule"]
        shares = jax.nn.softmax(schedule["logits"])
        interior = _Interior(*jax.jvp(lambda u: fall(shares, u), (t,), (jnp.ones_like(t),)))
        high, low = schedule["log_snr_max"], schedule["log_snr_min"]
        denoiser = dataclasses.replace(denoiser, sde=ByLevel())
        given = _Given(denoiser, high, low, x0, noise, key)
        alpha, sigma = (jnp.exp(0.5 * jax.nn.log_sigmoid(sign * low)) for sign in (1, -1))
        loss = diffusion_term(given, interior) + _prior_gap(x0, alpha, sigma, 1.0) + _reconstruction(high)
        log_snr = high - (high - low) * interior.fall
        return loss, {"log_snr": log_snr, "t": t, "log_snr_max": high, "log_snr_min": low}

"""Denoising score matching (Vincent 2011; arXiv:2011.13456, eq. 7) as one weighted square error."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, mean_dims
from score_sde.denoiser import Denoise, Estimate, x0_error
from score_sde.losses.times import Times, correction_of
from score_sde.losses.weights import Weight
from score_sde.sde import SDE

Aux = dict[str, Array]
NoisyDenoise = Callable[..., Estimate]  # (x, t, *, key) -> Estimate, with dropout


class Drawn(NamedTuple):
    """What the loss of a batch draws: times ``(B,)`` and noise ``(B, *D)``."""

    t: Array
    noise: Array


def square_error(
    denoise: Callable[..., Estimate],
    sde: SDE,
    x0: Array,
    t: Array,
    noise: Array,
    *,
    weight: Weight,
    **options: Any,
) -> Array:
    """Weighted square error of the denoised sample, mean over the dimensions: ``(B,)``.

    Args:
      denoise: ``(x, t, **options) -> Estimate``.
      x0: clean data, ``(B, *D)``; ``t``: ``(B,)``; ``noise``: ``(B, *D)``.
      weight: multiplies the square error of ``x0``.
      options: handed to ``denoise`` (a dropout key).
    """
    estimate = denoise(sde.perturb(x0, t, noise), t, **options)
    return weight(sde, t) * mean_dims(x0_error(sde, estimate, x0, noise, t) ** 2)


@dataclass(frozen=True)
class DenoisingLoss:
    """The training loss.

    Attributes:
      sde: the process.
      weight: weight of the square error of ``x0`` as a function of time.
      times: density of the training time; corrected for where it is not part of the objective.
      half_sum: report half the sum over the dimensions instead of their mean, the reduction of the
        published VE recipes.  It changes the size of the gradient, hence what clipping does.
    """

    sde: SDE
    weight: Weight
    times: Times
    half_sum: bool = False

    def __call__(self, denoiser: NoisyDenoise, x0: Array, key: Array) -> tuple[Array, Aux]:
        """Per-example loss ``(B,)`` and ``{"log_snr": (B,), "t": (B,)}``; dropout is on."""
        key_draw, key_net = jax.random.split(key)
        return self.at(denoiser, x0, self.draw(x0, key_draw), key_net)

    def draw(self, x0: Array, key: Array) -> Drawn:
        """Times and noise of a batch, so that shares of it can be taken one by one with ``at``."""
        key_t, key_noise = jax.random.split(key)
        t = self.times(self.sde, key_t, x0.shape[0])
        return Drawn(t, jax.random.normal(key_noise, x0.shape))

    def at(
        self,
        denoiser: NoisyDenoise,
        x0: Array,
        drawn: Drawn,
        key: Array,
        parts: Parts = MappingProxyType({}),
    ) -> tuple[Array, Aux]:
        """The loss at times and noise that are given; returns as a call does.

        Args:
          key: for dropout.
          parts: of what is trained besides the network; none counts here.
        """
        t, noise = drawn
        loss = square_error(denoiser, self.sde, x0, t, noise, weight=self.weight, key=key)
        loss = loss * correction_of(self.times, self.sde, t)
        if self.half_sum:
            loss = loss * (0.5 * math.prod(x0.shape[1:]))
        return loss, {"log_snr": self.sde.log_snr(t), "t": t}


def loss_at_level(
    denoise: Denoise, sde: SDE, x0: Array, keys: Array, index: Array | int, t: Array
) -> tuple[Array, Array]:
    """Square errors at a fixed time, for comparing models and checkpoints without time noise.

    Args:
      x0: ``(B, *D)``.
      keys: one per example, ``(B,)``: an example meets the same noise whatever the batch.
      index: of the level among those that are measured with these keys, for noise of its own.
      t: the time, ``()``.

    Returns:
      Mean square error of the noise and of ``x0`` over the dimensions, each ``(B,)``.
    """
    noise = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), x0.shape[1:]))(keys)
    times = jnp.full(x0.shape[:1], t)
    estimate = denoise(sde.perturb(x0, times, noise), times)
    square = mean_dims(x0_error(sde, estimate, x0, noise, times) ** 2)
    return (sde.alpha(t) / sde.sigma(t)) ** 2 * square, square

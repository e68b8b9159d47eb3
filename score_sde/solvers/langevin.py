"""Correctors: Langevin moves that keep the marginal at one time (arXiv:2011.13456, appendix G)."""

from collections.abc import Callable
from typing import Generic, NamedTuple

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import sum_dims
from score_sde.denoiser import Denoise
from score_sde.solvers.base import N


class Level(NamedTuple, Generic[N]):
    """What a corrector knows of its noise level; scalars, or ``(n,)`` for ``n`` steps.

    Attributes:
      t, sigma: the time and the standard deviation of the noise there.
      pace: the factor ``alpha_i`` of algorithms 4 and 5: the share of signal variance that one predictor
        step retains (1 for VE).
    """

    t: N
    sigma: N
    pace: N


def _score(denoise: Denoise, x: Array, level: Level[Array]) -> Array:
    return -denoise(x, level.t).noise / level.sigma


def _norms(x: Array) -> Array:
    return jnp.sqrt(sum_dims(x**2))


def ratio_per_sample(noise: Array, score: Array) -> Array:
    """``|z| / |score|`` of each sample: ``(B, *D), (B, *D) -> (B,)``."""
    return _norms(noise) / _norms(score)


def ratio_per_batch(noise: Array, score: Array) -> Array:
    """Ratio of the norms averaged over the batch, as the official code has it: samples are coupled."""
    return jnp.broadcast_to(jnp.mean(_norms(noise)) / jnp.mean(_norms(score)), noise.shape[:1])


def ratio_by_dimension(noise: Array, score: Array) -> Array:
    """``sqrt(D) / |score|``: the noise norm by its limit, as the paper suggests for small batches."""
    return jnp.sqrt(float(noise[0].size)) / _norms(score)


NORMS: dict[str, Callable[[Array, Array], Array]] = {
    "sample": ratio_per_sample,
    "batch": ratio_per_batch,
    "dimension": ratio_by_dimension,
}


def langevin(denoise: Denoise, x: Array, level: Level[Array], z: Array, snr: float, ratio: Callable) -> Array:
    """Algorithms 4 and 5: ``x + epsilon score + sqrt(2 epsilon) z``,
    with ``epsilon = 2 pace (snr |z| / |score|)^2``."""
    score = _score(denoise, x, level)
    epsilon = 2.0 * level.pace * (snr * ratio(z, score)) ** 2
    epsilon = epsilon.reshape((-1,) + (1,) * (x.ndim - 1))
    return x + epsilon * score + jnp.sqrt(2.0 * epsilon) * z


def annealed_langevin(
    denoise: Denoise, x: Array, level: Level[Array], z: Array, snr: float, ratio: Callable
) -> Array:
    """Annealed Langevin dynamics (arXiv:1907.05600): ``epsilon = 2 pace (snr sigma)^2``, by the level."""
    epsilon = 2.0 * level.pace * (snr * level.sigma) ** 2
    return x + epsilon * _score(denoise, x, level) + jnp.sqrt(2.0 * epsilon) * z


Corrector = Callable[[Denoise, Array, Level[Array], Array, float, Callable], Array]
CORRECTORS: dict[str, Corrector | None] = {
    "langevin": langevin,
    "ald": annealed_langevin,
    "none": None,
}

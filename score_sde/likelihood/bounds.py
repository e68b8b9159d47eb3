"""Variational bounds on the log density, in three terms (Kingma et al. 2021, arXiv:2107.00630, eq. 11).

    -log p(x0) <= KL(q(x_T | x0) | prior) + diffusion + E[-log p(x0 | x_t_min)]

In continuous time the middle term is that of Song et al. 2021 (arXiv:2101.09258, theorem 3; see Huang et al.
2021, arXiv:2106.02808, too):

    1/2 int g^2 E |score - grad log q(x_t | x0)|^2 dt = 1/2 int E |noise - noise_hat|^2 (-d log_snr / dt) dt

so drawing times from ``g^2 / sigma^2`` (arXiv:2101.09258, section 5) is drawing a uniform log-SNR, for every
process.  In discrete time it is the sum of ``KL(q(x_s | x_t, x0) | p(x_s | x_t))`` (arXiv:2006.11239, eq. 5).

Time stops at ``t_min``, and the last term is what that leaves out: the correction by which the bound is one
for the data and not for data with the noise of ``t_min``.  How ``x0`` is decoded there is a value, a member
of ``DECODERS``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import log_ndtr

from score_sde.arrays import fold_in_each, normal_per_sample, sum_dims
from score_sde.codecs import Cells
from score_sde.denoiser import Denoise, x0_error
from score_sde.names import nearest
from score_sde.sde import SDE


class Bound(NamedTuple):
    """An unbiased estimate of a bound, in nats per example, ``(B,)`` each.

    Attributes:
      prior, diffusion, reconstruction: the three terms; their sum is not below ``-log p``, on average.
      evaluations: network evaluations of each example.
    """

    prior: Array
    diffusion: Array
    reconstruction: Array
    evaluations: Array

    @property
    def nats(self) -> Array:
        """Lower bound on the log density (log probability, with a decoder of levels)."""
        return -(self.prior + self.diffusion + self.reconstruction)


# --- the last term: (denoise, sde, x0, noise, t) -> E[-log p(x0 | x_t)] in nats, (B,) ------------------

Decoder = Callable[[Denoise, SDE, Array, Array, Array], Array]


def no_decoder(denoise: Denoise, sde: SDE, x0: Array, noise: Array, t: Array) -> Array:
    """The entropy of ``q(x_t | x0)``: a bound for data that carry the noise of ``t``, without correction."""
    size = math.prod(x0.shape[1:])
    entropy = size * (jnp.log(sde.sigma(t)) + 0.5 * math.log(2.0 * math.pi * math.e))
    return jnp.broadcast_to(entropy, x0.shape[:1])


def gaussian_decoder(denoise: Denoise, sde: SDE, x0: Array, noise: Array, t: Array) -> Array:
    """``N(x0; D(x, t), (sigma / alpha)^2)``: for continuous or dequantised data."""
    scale = sde.sigma(t) / sde.alpha(t)
    square = sum_dims((_error(denoise, sde, x0, noise, t) / scale) ** 2)
    return 0.5 * square + math.prod(x0.shape[1:]) * (jnp.log(scale) + 0.5 * math.log(2.0 * math.pi))


@dataclass(frozen=True)
class LevelDecoder:
    """Each level as likely as the noise makes it: ``N(x; alpha x_k, sigma^2)``, normalised (VDM, 3.3)."""

    cells: Cells

    def __call__(self, denoise: Denoise, sde: SDE, x0: Array, noise: Array, t: Array) -> Array:
        scale = sde.sigma(t) / sde.alpha(t)
        cells = self.cells
        own = jnp.round((x0 - cells.first) / cells.step)
        off = scale * noise  # of x / alpha from x0
        near = jnp.clip(own + jnp.round(off / cells.step), 0, cells.count - 1)

        def log_weight(level: Array) -> Array:
            # From the level of x0: its own distance, often far below a step, keeps its digits.
            return -0.5 * ((off - cells.step * (level - own)) / scale) ** 2

        top = log_weight(near)
        total = jax.lax.fori_loop(
            0,
            cells.count,
            lambda k, total: total + jnp.exp(log_weight(k.astype(x0.dtype)) - top),
            jnp.zeros_like(x0),
        )
        return sum_dims(top + jnp.log(total) - log_weight(own))


@dataclass(frozen=True)
class BinDecoder:
    """The mass of ``N(D(x, t), sigma^2)`` in the level's cell, the outer ones unbounded (DDPM, eq. 13)."""

    cells: Cells

    def __call__(self, denoise: Denoise, sde: SDE, x0: Array, noise: Array, t: Array) -> Array:
        cells, sigma = self.cells, sde.sigma(t)
        level = jnp.round((x0 - cells.first) / cells.step)
        off = -_error(denoise, sde, x0, noise, t)
        low = jnp.where(level <= 0, -jnp.inf, (off - 0.5 * cells.step) / sigma)
        high = jnp.where(level >= cells.count - 1, jnp.inf, (off + 0.5 * cells.step) / sigma)
        flip = low > 0  # in the upper tail by symmetry: there the differences of the lower one are lost
        low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
        top, bottom = log_ndtr(high), log_ndtr(low)
        return -sum_dims(top + jnp.log(-jnp.expm1(jnp.where(low == -jnp.inf, -jnp.inf, bottom - top))))


DECODERS: dict[str, Callable[..., Decoder]] = {
    "gaussian": lambda: gaussian_decoder,
    "levels": LevelDecoder,
    "bins": BinDecoder,
    "none": lambda: no_decoder,
}

# --- the bounds ------------------------------------------------------------------------------------


def continuous_bound(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    x0: Array,
    *,
    decoder: Decoder = gaussian_decoder,
    draws: int = 32,
    t_min: float | None = None,
) -> Bound:
    """The bound in continuous time, with importance-sampled times.

    Args:
      keys: one per example, ``(B,)``.
      x0: ``(B, *D)``: continuous, dequantised, or the middles of levels, as the decoder takes them.
      draws: times per example, one in each of as many equal parts of the range of the log-SNR, each with its
        own noise.
      t_min: as of ``log_prob``.
    """
    start = jnp.asarray(sde.t_min if t_min is None else t_min, x0.dtype)
    last = jnp.asarray(sde.t_max, x0.dtype)
    high, low = sde.log_snr(start), sde.log_snr(last)

    def at(j: Array) -> Array:
        own = fold_in_each(keys, j)
        share = (j + jax.vmap(jax.random.uniform)(fold_in_each(own, 0))) / draws
        t = sde.time_of(high + (low - high) * share.astype(x0.dtype), start)  # type: ignore[arg-type]
        return jnp.exp(sde.log_snr(t)) * _square_error(denoise, sde, x0, t, fold_in_each(own, 1))

    mean = jnp.mean(jax.lax.map(at, jnp.arange(draws)), axis=0)
    return Bound(
        _prior_cost(sde, x0, last),
        0.5 * (high - low) * mean,
        _decoded(fold_in_each(keys, draws), denoise, sde, x0, start, decoder),
        jnp.full(x0.shape[:1], draws + 1),
    )


def discrete_bound(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    x0: Array,
    *,
    times: np.ndarray,
    decoder: Decoder = gaussian_decoder,
    variance: str = "small",
    draws: int | None = None,
) -> Bound:
    """The bound of the Markov chain through ``times`` (arXiv:2006.11239, eq. 5 to 8).

    Args:
      keys, x0: as of ``continuous_bound``.
      times: noise levels, rising, ``(T,)``; for DDPM ``i / (T - 1)``.
      variance: of the reverse steps: ``small`` is that of ``q(x_s | x_t, x0)``, for which a step costs half
        the fall of the signal-to-noise ratio times the square error (arXiv:2107.00630, eq. 13); ``large``:
        that of ``q(x_t | x_s)`` (DDPM, section 3.2).
      draws: steps looked at, one in each of as many equal parts; all ``T - 1`` when None.

    Raises:
      ValueError: unknown variance, more draws than steps, or times that do not rise.
    """
    if variance not in VARIANCES:
        raise ValueError(
            f"variance = {variance!r} is not one of: {', '.join(VARIANCES)}{nearest(variance, VARIANCES)}"
        )
    steps = len(times) - 1
    count = steps if draws is None else draws
    if steps < 1 or np.any(np.diff(times) <= 0) or not 1 <= count <= steps:
        raise ValueError(f"need rising times and 1 <= draws <= {steps}, got {count} draws")
    weights, constants = (jnp.asarray(a, x0.dtype) for a in _step_costs(sde, times, variance))
    size = math.prod(x0.shape[1:])
    table = jnp.asarray(times, x0.dtype)

    def at(j: Array) -> Array:
        own = fold_in_each(keys, j)
        share = (j + jax.vmap(jax.random.uniform)(fold_in_each(own, 0))) / count
        step = jnp.clip(jnp.floor(share * steps).astype(int), 0, steps - 1)
        if count == steps:
            step = jnp.full_like(step, j)
        square = _square_error(denoise, sde, x0, table[step + 1], fold_in_each(own, 1))
        return weights[step] * square + size * constants[step]

    mean = jnp.mean(jax.lax.map(at, jnp.arange(count)), axis=0)
    return Bound(
        _prior_cost(sde, x0, table[-1]),
        steps * mean,
        _decoded(fold_in_each(keys, count), denoise, sde, x0, table[0], decoder),
        jnp.full(x0.shape[:1], count + 1),
    )


VARIANCES = ("small", "large")


def _step_costs(sde: SDE, times: np.ndarray, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each step, float64: the factor of ``|x0 - D|^2``, and what each dimension costs in any case."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = jnp.asarray(times, jnp.float64)
        log_snr = np.asarray(sde.log_snr(t), np.float64)
        var = np.asarray(sde.sigma(t), np.float64) ** 2
        square = np.asarray(sde.alpha(t), np.float64) ** 2
    fall = np.exp(log_snr[:-1]) * -np.expm1(np.diff(log_snr))
    if variance == "small":
        return 0.5 * fall, np.zeros(len(fall))
    forward = -np.expm1(np.diff(log_snr)) * var[1:]  # of q(x_t | x_s)
    ratio = var[:-1] / var[1:]  # of the posterior's variance to it
    gain = square[:-1] * forward / var[1:] ** 2
    return 0.5 * gain, 0.5 * (ratio - 1.0 - np.log(ratio))


def _square_error(denoise: Denoise, sde: SDE, x0: Array, t: Array, keys: Array) -> Array:
    """``|x0 - D(x_t, t)|^2`` at one draw of noise, ``(B,)``."""
    noise = normal_per_sample(keys, x0.shape[1:]).astype(x0.dtype)
    return sum_dims(_error(denoise, sde, x0, noise, t) ** 2)


def _error(denoise: Denoise, sde: SDE, x0: Array, noise: Array, t: Array) -> Array:
    """``D(x_t, t) - x0``: ``(B, *D)``."""
    return x0_error(sde, denoise(sde.perturb(x0, t, noise), t), x0, noise, t)


def _prior_cost(sde: SDE, x0: Array, t: Array) -> Array:
    """``KL(N(alpha x0, sigma^2) | prior)``: ``(B,)``."""
    spread = (sde.sigma(t) / sde.prior_sigma) ** 2
    shift = (sde.alpha(t) / sde.prior_sigma) ** 2 * sum_dims(x0**2)
    return 0.5 * (math.prod(x0.shape[1:]) * (spread - 1.0 - jnp.log(spread)) + shift)


def _decoded(keys: Array, denoise: Denoise, sde: SDE, x0: Array, t: Array, decoder: Decoder) -> Array:
    noise = normal_per_sample(keys, x0.shape[1:]).astype(x0.dtype)
    return decoder(denoise, sde, x0, noise, t)

"""The official code's samplers, digit for digit, where they differ from the right ones.

Published numbers were made with them; new work should not use them.  With ``n`` steps:

- the grid has ``n`` points, ``linspace(t_max, t_end, n)``, one step at each, the last step past ``t_end``;
  Euler-Maruyama steps are ``1 / n`` long whatever the spacing of the grid;
- VP coefficients are those of a DDPM with ``n`` levels, ``beta_i = linspace(beta_min / n, beta_max / n, n)``,
  at the truncated index ``i = int(t (n - 1))``; VE coefficients those of SMLD, with ``sigma_{-1} = 0``;
- VP ancestral noise has the variance ``beta_i``, the larger of the two choices in DDPM;
- the corrector comes before the predictor, at the same time, and compares norms averaged over the batch;
- the result is the last predictor step without its noise, not Tweedie's formula.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.sde import DDPM, SDE, SMLD, VE, VP, SubVP
from score_sde.solvers.adaptive import AdaptiveODE
from score_sde.solvers.base import (
    Affine,
    Marginals,
    Noise,
    Plan,
    coefficients,
    make_plan,
    marginals,
    on_host,
    quiet,
)
from score_sde.solvers.langevin import Level
from score_sde.solvers.pc import PC, PCRow
from score_sde.solvers.predictors import score_move


class Discretization(NamedTuple):
    """A process at the points of the official grid, float64 ``(n,)`` each.

    Attributes:
      keep, variance: the forward step ``x_{i+1} = keep x_i + sqrt(variance) z``.
      ancestral_scale, ancestral_variance: of the ancestral mean and of its noise.
      pace: the corrector's ``alpha_i``.
      score_gain: the official score over ours; not 1 where the official code takes ``sigma`` from the
        table at the truncated index but hands the network the time itself.
    """

    keep: np.ndarray
    variance: np.ndarray
    ancestral_scale: np.ndarray
    ancestral_variance: np.ndarray
    pace: np.ndarray
    score_gain: np.ndarray


def _betas(sde: VP | SubVP | DDPM, i: np.ndarray, n: int) -> np.ndarray:
    return np.linspace(sde.beta_min / n, sde.beta_max / n, n)[i]


def _ddpm(sde: VP | DDPM, at: Marginals, i: np.ndarray, n: int) -> Discretization:
    beta = _betas(sde, i, n)
    keep = np.sqrt(1.0 - beta)
    gain = np.ones_like(beta)
    if isinstance(sde, DDPM):  # trained on a table, and asked for it
        gain = at.sigma / np.sqrt(-np.expm1(np.cumsum(np.log1p(-_betas(sde, np.arange(n), n)))))[i]
    return Discretization(keep, beta, 1.0 / keep, beta, 1.0 - beta, gain)


def _smld(sde: VE, at: Marginals, i: np.ndarray, n: int) -> Discretization:
    sigmas = np.geomspace(sde.sigma_min, sde.sigma_max, n)
    sigma, below = sigmas[i], np.where(i == 0, 0.0, sigmas[i - 1])
    ones, variance = np.ones(n), sigma**2 - below**2
    return Discretization(ones, variance, ones, below**2 * variance / sigma**2, ones, ones)


def _euler(sde: SubVP, at: Marginals, i: np.ndarray, n: int) -> Discretization:
    keep = 1.0 + on_host(sde.drift, at.t) / n
    variance = on_host(sde.diffusion, at.t) ** 2 / n
    pace, undefined = 1.0 - _betas(sde, i, n), np.full(n, np.nan)
    return Discretization(keep, variance, undefined, undefined, pace, np.ones(n))


DISCRETIZATIONS: dict[type[SDE], Callable[..., Discretization]] = {
    VP: _ddpm,
    DDPM: _ddpm,
    VE: _smld,
    SMLD: _smld,
    SubVP: _euler,
}


def _discretize(sde: SDE, times: np.ndarray) -> tuple[Marginals, Discretization]:
    n = len(times) - 1
    if type(sde) not in DISCRETIZATIONS:
        published = ", ".join(c.__name__ for c in DISCRETIZATIONS)
        raise ValueError(f"a legacy solver exists for {published} only, not for {type(sde).__name__}")
    # The index is truncated from float32 products, as there.
    grid = np.linspace(np.float32(times[0]), np.float32(times[-1]), n, dtype=np.float32)
    i = (grid * np.float32(n - 1)).astype(np.int64)
    at = marginals(sde, grid)
    return at, DISCRETIZATIONS[type(sde)](sde, at, i, n)


def _euler_maruyama(sde: SDE, at: Marginals, d: Discretization, noise_scale: float) -> Affine[np.ndarray]:
    step = 1.0 / len(at.t)
    f, variance = on_host(sde.drift, at.t), on_host(sde.diffusion, at.t) ** 2 * step
    return score_move(
        at,
        1.0 - f * step,
        0.5 * (1.0 + noise_scale**2) * variance * d.score_gain,
        noise_scale * np.sqrt(variance),
    )


def _reverse_diffusion(sde: SDE, at: Marginals, d: Discretization, noise_scale: float) -> Affine[np.ndarray]:
    return score_move(
        at,
        2.0 - d.keep,
        0.5 * (1.0 + noise_scale**2) * d.variance * d.score_gain,
        noise_scale * np.sqrt(d.variance),
    )


def _ancestral(sde: SDE, at: Marginals, d: Discretization, noise_scale: float) -> Affine[np.ndarray]:
    if isinstance(sde, SubVP):
        raise ValueError("predictor = 'ancestral' was never defined for sub-VP in the legacy solver")
    scale = d.ancestral_scale
    return score_move(
        at, scale, scale * d.variance * d.score_gain, noise_scale * np.sqrt(d.ancestral_variance)
    )


LEGACY_PREDICTORS: dict[str, Callable[..., Affine[np.ndarray]]] = {
    "euler_maruyama": _euler_maruyama,
    "reverse_diffusion": _reverse_diffusion,
    "ancestral": _ancestral,
}


@dataclass(frozen=True, kw_only=True)
class LegacyPC(PC):
    """The official predictor-corrector sampler; see the list above."""

    norm: str = "batch"

    @quiet
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        at, d = _discretize(sde, times)
        n = len(at.t)
        if self.predictor == "none":
            move = Affine(at.t, np.ones(n), np.zeros(n), np.zeros(n), np.zeros(n))
        else:
            move = LEGACY_PREDICTORS[self.predictor](sde, at, d, self.noise_scale)
        if self.denoise:
            move.noise_gain[-1] = 0.0  # the last mean is the result
        level = Level(at.t, at.sigma, d.pace)
        return make_plan(PCRow(self.draws(n), coefficients(move), coefficients(level)), times)

    def step(
        self, denoise: Denoise, x: Array, row: PCRow[Array], history: tuple, noise: Noise
    ) -> tuple[Array, tuple]:
        x = self.correct(denoise, x, row, noise, row.draw)
        first = row.draw + (0 if self.corrector == "none" else self.corrector_steps)
        return self.predict(denoise, x, row, noise, first), history

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        return x


@dataclass(frozen=True, kw_only=True)
class LegacyODE(AdaptiveODE):
    """The probability-flow sampler with the official last move: a reverse-diffusion mean at ``t_end``."""

    @quiet  # of the grid's coefficients only the last are used
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        at, d = _discretize(sde, times)
        move = _reverse_diffusion(sde, at, d, 1.0)
        return make_plan(None, times, Affine(*(column[-1] for column in move)))

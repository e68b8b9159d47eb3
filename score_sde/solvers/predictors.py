"""Predictors: one stochastic step ``t -> s`` as an affine move in ``x``, ``x0``, ``noise`` and noise drawn.

Every one starts from the reverse SDE (arXiv:2011.13456, eq. 6) with ``score = -noise / sigma``; they
differ in how they discretise it.  ``noise_scale`` scales the injected noise: 1 is the reverse SDE, 0 the
probability-flow ODE (see ``SDE.reverse_drift``).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from score_sde.sde import SDE
from score_sde.solvers.base import Affine, Marginals, marginals, on_host


def score_move(at: Marginals, x: np.ndarray, score: np.ndarray, noise: np.ndarray) -> Affine[np.ndarray]:
    """The move ``x_gain x + score_gain score + noise_gain z``, with ``score = -noise / sigma``."""
    return Affine(at.t, x, np.zeros_like(x), -score / at.sigma, noise)


class _Transition(NamedTuple):
    """The exact forward kernel between two times: ``x_t = retention x_s + spread z``."""

    retention: np.ndarray
    variance: np.ndarray


def transition(at: Marginals, to: Marginals) -> _Transition:
    """Kernel from time ``to`` (less noise) to time ``at`` (more noise)."""
    retention = at.alpha / to.alpha
    return _Transition(retention, at.sigma**2 - (retention * to.sigma) ** 2)


def euler_maruyama(sde: SDE, t: np.ndarray, s: np.ndarray, noise_scale: float = 1.0) -> Affine[np.ndarray]:
    """Euler-Maruyama on the reverse SDE, of weak order 1 (Kloeden & Platen 1992, section 10.2)."""
    at, step = marginals(sde, t), np.asarray(t - s, np.float64)
    f, g = on_host(sde.drift, at.t), on_host(sde.diffusion, at.t)
    return score_move(
        at, 1.0 - f * step, 0.5 * (1.0 + noise_scale**2) * g**2 * step, noise_scale * g * np.sqrt(step)
    )


def reverse_diffusion(sde: SDE, t: np.ndarray, s: np.ndarray, noise_scale: float = 1.0) -> Affine[np.ndarray]:
    """Reverse diffusion sampler (arXiv:2011.13456, appendix E, eq. 46).

    The step ``x_t = x_s + f x_s + G z`` of the forward process, here its exact kernel, is reversed as
    ``x_s = x_t - f x_t + G^2 score + G z``.
    """
    at = marginals(sde, t)
    kernel = transition(at, marginals(sde, s))
    return score_move(
        at,
        2.0 - kernel.retention,
        0.5 * (1.0 + noise_scale**2) * kernel.variance,
        noise_scale * np.sqrt(kernel.variance),
    )


def ancestral(sde: SDE, t: np.ndarray, s: np.ndarray, noise_scale: float = 1.0) -> Affine[np.ndarray]:
    """Ancestral sampling: the posterior of ``x_s`` given ``x_t`` and ``x0 = D``.

    DDPM (arXiv:2006.11239, eq. 6-7) and SMLD (arXiv:2011.13456, eq. 47), for any process.  A
    ``noise_scale`` other than 1 makes it DDIM with ``eta = noise_scale`` (Song et al. 2021,
    arXiv:2010.02502, eq. 12 and 16).
    """
    at, to = marginals(sde, t), marginals(sde, s)
    kernel = transition(at, to)
    noise = noise_scale * to.sigma * np.sqrt(kernel.variance) / at.sigma
    kept = np.sqrt(to.sigma**2 - noise**2) / at.sigma
    return Affine(at.t, kept, to.alpha - kept * at.alpha, np.zeros_like(kept), noise)


def ancestral_large(sde: SDE, t: np.ndarray, s: np.ndarray, noise_scale: float = 1.0) -> Affine[np.ndarray]:
    """``ancestral`` with the larger of DDPM's two variances, that of the forward step.

    arXiv:2006.11239, section 3.2: right where the data are normal with unit variance, as the other is where
    they are one point.  ``noise_scale`` scales the noise alone.
    """
    variance = transition(marginals(sde, t), marginals(sde, s)).variance
    return ancestral(sde, t, s)._replace(noise_gain=noise_scale * np.sqrt(variance))


Predictor = Callable[..., Affine[np.ndarray]]
PREDICTORS: dict[str, Predictor | None] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ancestral_large": ancestral_large,
    "none": None,
}

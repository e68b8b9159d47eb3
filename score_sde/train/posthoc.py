"""Averages of any length after training (Karras et al. 2024, arXiv:2312.02696, section 3.2 and appendix C.3).

A power average at update ``t`` weighs the parameters of update ``tau`` by
``p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)`` up to ``t``.  The weights wanted are approximated by a
combination of those of the averages that were kept, in the least squares sense; the same combination of the
averages is then the average wanted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from score_sde.train.ema import exponent


class Combination(NamedTuple):
    """How to make one average of others.

    Attributes:
      weights: ``(n,)`` float64, of each kept average.
      error: distance of the weights over time that result from those wanted, relative to these (L2).
    """

    weights: np.ndarray
    error: float


def inner(t_a: np.ndarray, a: np.ndarray, t_b: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``int p_a p_b dtau`` of weights with powers ``a``, ``b`` up to ``t_a``, ``t_b``; arrays broadcast."""
    shared = np.minimum(t_a, t_b)
    # (shared / t)^gamma instead of powers of the times themselves, which overflow.
    scale = (shared / t_a) ** a * (shared / t_b) ** b * shared / (t_a * t_b)
    return (a + 1) * (b + 1) / (a + b + 1) * scale


def combine(steps: Sequence[int], sigma_rel: float, step: int, wanted: float) -> Combination:
    """Of averages of length ``sigma_rel`` at ``steps``, what is nearest to length ``wanted`` at ``step``.

    Raises:
      ValueError: no steps, a step below 1, or a length that no power average has.
    """
    times = np.asarray(steps, np.float64)
    if not len(times) or times.min() < 1 or step < 1:
        raise ValueError(f"steps {list(steps)} and {step}: need at least one, all at least 1")
    have, want = np.full(len(times), exponent(sigma_rel)), np.array(exponent(wanted))
    last = np.array(float(step))
    gram = inner(times[:, None], have[:, None], times[None, :], have[None, :])
    right = inner(times, have, last, want)
    weights = np.linalg.lstsq(gram, right, rcond=1e-12)[0]
    size = float(inner(last, want, last, want))
    squared = size - 2 * weights @ right + weights @ gram @ weights
    return Combination(weights, float(np.sqrt(max(squared, 0.0) / size)))

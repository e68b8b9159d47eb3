"""Scores of how foreign an example is to a density model, and how well they tell foreign data.

A density alone tells little: models give plain pictures of another kind a higher one than their own data
(Nalisnick et al. 2019a, arXiv:1810.09136), as a mode in many dimensions is nowhere near the typical set.
"""

import math
import zlib
from collections.abc import Callable

import numpy as np

from score_sde.evaluate.scores import Score


def by_likelihood(nats: np.ndarray, typical: float, bits: np.ndarray) -> np.ndarray:
    """Minus the log density in nats: the naive score."""
    return -nats


def by_typicality(nats: np.ndarray, typical: float, bits: np.ndarray) -> np.ndarray:
    """Distance of the log density to its mean over training data, nats: the test of typicality for a single
    example (Nalisnick et al. 2019b, arXiv:1906.02994)."""
    return np.abs(nats - typical)


def by_complexity(nats: np.ndarray, typical: float, bits: np.ndarray) -> np.ndarray:
    """Bits that the model needs more than a compressor does (Serra et al. 2020, arXiv:1909.11480)."""
    return -nats / math.log(2.0) - bits


# (log densities (N,), their mean over training data, compressed_bits (N,)) -> (N,), higher for outliers
OUTLIER_SCORES: dict[str, Callable[[np.ndarray, float, np.ndarray], np.ndarray]] = {
    "likelihood": by_likelihood,
    "typicality": by_typicality,
    "complexity": by_complexity,
}


def compressed_bits(raw: np.ndarray) -> np.ndarray:
    """Length of each example under DEFLATE, the compressor of PNG, in bits: ``(N, *D) uint8 -> (N,)``.

    Of the values and of their differences along the last spatial axis, the shorter counts.
    """
    if raw.dtype != np.uint8:
        raise ValueError(f"compressed_bits takes uint8, got {raw.dtype}")
    lengths = []
    for x in raw:
        rows = x if x.ndim < 2 else np.diff(x, axis=-2, prepend=np.zeros_like(x[..., :1, :]))
        lengths.append(min(len(zlib.compress(a.tobytes(), 9)) for a in (x, rows)))
    return 8.0 * np.asarray(lengths, np.float64)


def auroc(inside: np.ndarray, outside: np.ndarray) -> Score:
    """Probability that an outlier scores higher than an example of the data, ties counting half.

    The error is that of Hanley & McNeil 1982 (Radiology 143:29), with their exponential approximation.

    Args:
      inside, outside: scores ``(N,)`` of held-out data and of foreign data.

    Raises:
      ValueError: one of them is empty.
    """
    n, m = len(inside), len(outside)
    if not n or not m:
        raise ValueError(f"AUROC needs examples on both sides, got {n} and {m}")
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left")
    upto = np.searchsorted(ordered, outside, "right")
    area = float(np.mean(0.5 * (below + upto)) / n)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)
    return Score(area, math.sqrt(max(variance, 0.0) / (n * m)))


# --- foreign data made of one's own ----------------------------------------------------------------


def constant(x: np.ndarray, grey_levels: int, rng: np.random.Generator) -> np.ndarray:
    """Every value of an example is the example's mean."""
    mean = x.reshape(len(x), -1).mean(axis=1)
    return np.broadcast_to(np.rint(mean).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)), x.shape).copy()


def noise(x: np.ndarray, grey_levels: int, rng: np.random.Generator) -> np.ndarray:
    """Independent, equally likely levels."""
    return rng.integers(0, grey_levels, x.shape).astype(x.dtype)


def shuffled(x: np.ndarray, grey_levels: int, rng: np.random.Generator) -> np.ndarray:
    """The positions of each example in random order; its values stay the same."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    return np.stack([rng.permutation(one) for one in flat]).reshape(x.shape)


def rotated(x: np.ndarray, grey_levels: int, rng: np.random.Generator) -> np.ndarray:
    """Turned by a quarter."""
    if x.ndim != 4 or x.shape[1] != x.shape[2]:
        raise ValueError(f"outliers.foreign: 'rotated' takes square pictures, not {x.shape[1:]}")
    return np.ascontiguousarray(np.rot90(x, axes=(1, 2)))


def inverted(x: np.ndarray, grey_levels: int, rng: np.random.Generator) -> np.ndarray:
    """Dark for bright."""
    return (grey_levels - 1 - x.astype(np.int32)).astype(x.dtype)


# (x (N, *D) levels, number of levels, rng) -> (N, *D)
FOREIGN: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "constant": constant,
    "noise": noise,
    "shuffled": shuffled,
    "rotated": rotated,
    "inverted": inverted,
}

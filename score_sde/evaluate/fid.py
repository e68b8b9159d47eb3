"""The Frechet distance between two sets of features, each taken as a Gaussian.

Heusel et al. 2017, arXiv:1706.08500, eq. 6; it is called FID where the features are those of Inception.
"""

import functools
import warnings
from dataclasses import dataclass

import numpy as np

from score_sde.evaluate.moments import Gaussian, Moments
from score_sde.evaluate.rows import blocks
from score_sde.evaluate.scores import Reference, Sampled, Score, bootstrap


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """The root of a symmetric positive semi-definite matrix, ``(d, d)`` float64.

    Eigenvalues at the level of rounding count as zero: their roots would be 1e8 times larger than they are.
    """
    values, vectors = np.linalg.eigh(matrix)
    values = np.where(values > _rounding(values), values, 0.0)
    return (vectors * np.sqrt(values)) @ vectors.T


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)`` in squared feature units.

    The last trace is the sum of the singular values of ``C_a^1/2 C_b^1/2``: defined for singular covariances
    as well, never complex, and exact to rounding for equal ones.

    Raises:
      ValueError: different dimensions.
    """
    _check_dimensions(a, b)
    return _from_root(a, symmetric_root(a.covariance), b)


def _check_dimensions(a: Gaussian, b: Gaussian) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions cannot be compared")


def _from_root(a: Gaussian, root: np.ndarray, b: Gaussian) -> float:
    return _distance(a, b, np.linalg.svd(root @ symmetric_root(b.covariance), compute_uv=False))


def _distance(a: Gaussian, b: Gaussian, singular: np.ndarray) -> float:
    shift = float(np.sum((a.mean - b.mean) ** 2))
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    distance = shift + traces - 2 * float(singular.sum())
    # The difference of numbers as large as the traces: what is below their rounding, or negative, is zero.
    return distance if distance > traces * len(a.mean) * np.finfo(np.float64).eps else 0.0


def weighted(features: np.ndarray, weights: np.ndarray) -> Gaussian:
    """The Gaussian of examples ``(N, d)`` that count ``weights`` ``(N,)`` times each.

    Raises:
      ValueError: fewer than 2 examples, or features that are not finite.
    """
    some = (rows for rows in blocks(len(features)) if weights[rows].any())
    parts = (Moments.of(features[rows], weights[rows]) for rows in some)
    return functools.reduce(Moments.merge, parts).gaussian


def warn_if_degenerate(gaussian: Gaussian, count: int | None, what: str) -> None:
    """Warn of a covariance that too few examples, or constant features, leave singular."""
    dim = len(gaussian.mean)
    if count is not None and count <= dim:
        warnings.warn(
            f"the {what} are {count} examples for {dim} feature dimensions: their covariance is singular and "
            f"the Frechet distance is biased upward; use many more than {dim} (published numbers use 50000)",
            stacklevel=3,
        )
        return
    values = np.linalg.eigvalsh(gaussian.covariance)
    rank = int((values > _rounding(values)).sum())
    if rank < dim:
        warnings.warn(
            f"the covariance of the {what} has rank {rank} in {dim} dimensions: some features are constant "
            "or copies of others; the distance is defined, but does not see those directions",
            stacklevel=3,
        )


def _rounding(values: np.ndarray) -> float:
    return max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """The Frechet distance as a metric.

    Attributes:
      bootstrap: resamplings of the generated examples for the error bar; 0: no error bar.
      seed: of the resampling.
    """

    bootstrap: int = 20
    seed: int = 0
    least = 2

    def __call__(self, sampled: Sampled, reference: Reference) -> dict[str, Score]:
        """``{"frechet": ...}``; warns of few examples, raises ValueError for one."""
        x, count = sampled.features, len(sampled.features)
        whole = weighted(x, np.ones(count))
        warn_if_degenerate(whole, count, "generated examples")
        warn_if_degenerate(reference.gaussian, reference.count, "reference examples")
        _check_dimensions(whole, reference.gaussian)
        root = symmetric_root(reference.gaussian.covariance)
        value = _from_root(reference.gaussian, root, whole)

        def resampled(weights: np.ndarray) -> float:
            # The squares of the same singular values, in a third of the time; an error bar needs no more.
            again = weighted(x, weights)
            squares = np.linalg.eigvalsh(root @ again.covariance @ root)
            return _distance(reference.gaussian, again, np.sqrt(np.maximum(squares, 0.0)))

        return {"frechet": Score(value, bootstrap(resampled, count, self.bootstrap, self.seed))}

"""Fidelity and diversity apart: precision and recall, density and coverage.

Kynkaanniemi et al. 2019, arXiv:1904.06991, eq. 2; Naeem et al. 2020, arXiv:2002.09797, eqs. 4 and 6.
A set is taken as the union of balls around its members, each reaching to its k-th nearest neighbour.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from score_sde.evaluate.scores import Reference, Sampled, Score

_BLOCK = 1000  # rows of the distance matrix in memory at a time


class PerExample(NamedTuple):
    """The terms whose means are the four scores.

    Attributes:
      precision, density: of each generated example, ``(N,)``.
      recall, coverage: of each reference example, ``(M,)``.
    """

    precision: np.ndarray
    recall: np.ndarray
    density: np.ndarray
    coverage: np.ndarray


def prdc_terms(generated: np.ndarray, reference: np.ndarray, nearest: int) -> PerExample:
    """The terms for features ``(N, d)`` and ``(M, d)``, with balls to the ``nearest``-th neighbour.

    Raises:
      ValueError: a set with no more than ``nearest`` examples, or ``nearest`` below 1.
    """
    least = min(len(generated), len(reference))
    if not 1 <= nearest < least:
        raise ValueError(
            f"evaluate.prdc.nearest = {nearest}: must be at least 1 and below the number of examples of the "
            f"smaller set, {least}"
        )
    x, y = np.asarray(generated, np.float64), np.asarray(reference, np.float64)
    radius_x, radius_y = squared_radii(x, nearest), squared_radii(y, nearest)
    inside = np.empty(len(x))  # of how many balls of the reference
    recall, closest = np.zeros(len(y), bool), np.full(len(y), np.inf)
    for rows, distance in _distances(x, y):
        inside[rows] = (distance <= radius_y[None, :]).sum(axis=1)
        recall |= (distance <= radius_x[rows, None]).any(axis=0)
        closest = np.minimum(closest, distance.min(axis=0))
    return PerExample(
        (inside > 0).astype(np.float64),
        recall.astype(np.float64),
        inside / nearest,
        (closest <= radius_y).astype(np.float64),
    )


def squared_radii(x: np.ndarray, nearest: int) -> np.ndarray:
    """Squared distance of each of ``(N, d)`` to its ``nearest``-th neighbour, itself not counted."""
    radii = np.empty(len(x))
    for rows, distance in _distances(x, x):
        distance[np.arange(len(distance)), np.arange(len(x))[rows]] = np.inf
        radii[rows] = np.partition(distance, nearest - 1, axis=1)[:, nearest - 1]
    return radii


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows of the squared distances between ``(N, d)`` and ``(M, d)``."""
    squares = np.sum(y**2, axis=1)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        distance = np.sum(part**2, axis=1)[:, None] + squares[None, :] - 2 * part @ y.T
        yield slice(start, start + len(part)), np.maximum(distance, 0.0)


@dataclass(frozen=True, kw_only=True)
class PRDC:
    """Precision, recall, density and coverage as metrics.

    Attributes:
      nearest: the k of the k-th nearest neighbour.
    """

    nearest: int = 5

    @property
    def least(self) -> int:
        """A neighbour more than the one that is looked at."""
        return self.nearest + 1

    def __call__(self, sampled: Sampled, reference: Reference) -> dict[str, Score]:
        """The four scores; each is a mean, whose error bar is the standard error given the balls."""
        terms = prdc_terms(sampled.features, reference.need_features("prdc"), self.nearest)
        return {
            name: Score(float(values.mean()), float(values.std() / math.sqrt(len(values))))
            for name, values in terms._asdict().items()
        }

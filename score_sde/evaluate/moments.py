"""Mean and covariance of features that arrive in batches, in float64."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """A normal distribution in feature space.

    Attributes:
      mean: ``(d,)`` float64.
      covariance: ``(d, d)`` float64.
    """

    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class Moments:
    """What a set of features adds up to; two disjoint sets merge exactly.

    Attributes:
      count: number of examples, or the sum of their weights.
      mean: ``(d,)`` float64.
      scatter: ``(d, d)`` float64, the sum of ``(x - mean) (x - mean)^T``.
    """

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray | None = None) -> "Moments":
        """Of one batch ``(N, d)``, N at least 1; ``weights`` ``(N,)`` count an example several times.

        Raises:
          ValueError: another shape, or features that are not finite.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or not len(x):
            raise ValueError(f"features of shape {x.shape}: must be (N, d) with N at least 1")
        if not np.isfinite(x).all():
            row = int(np.argmin(np.isfinite(x).all(axis=1)))
            raise ValueError(f"features of example {row} are not finite")
        if weights is None:
            mean = x.mean(axis=0)
            return cls(len(x), mean, (x - mean).T @ (x - mean))
        mean = weights @ x / weights.sum()
        centred = (x - mean) * np.sqrt(weights)[:, None]
        return cls(float(weights.sum()), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Of both sets together (Chan, Golub and LeVeque 1979, STAN-CS-79-773, eq. 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> np.ndarray:
        """``(d, d)``, with the divisor ``count - 1``.

        Raises:
          ValueError: there is only one example.
        """
        if self.count < 2:
            raise ValueError("a covariance needs at least 2 examples, there is 1")
        return self.scatter / (self.count - 1)

    @property
    def gaussian(self) -> Gaussian:
        """The normal distribution with these moments."""
        return Gaussian(self.mean, self.covariance)


def moments_of(batches: Iterable[np.ndarray]) -> Moments:
    """Moments of all batches ``(B, d)`` together, one in memory at a time.

    Raises:
      ValueError: there are none.
    """
    try:
        return functools.reduce(Moments.merge, map(Moments.of, batches))
    except TypeError as error:
        raise ValueError("there are no features to take moments of") from error

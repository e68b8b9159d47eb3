"""What every metric takes and gives, and the error bar of a statistic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from score_sde.evaluate.moments import Gaussian


class Score(NamedTuple):
    """A number and its error bar.

    Attributes:
      value: the metric.
      error: one standard error, as the metric defines it; None where there is none.
    """

    value: float
    error: float | None = None


@dataclass(frozen=True)
class Sampled:
    """Features of generated examples.

    Attributes:
      features: ``(N, d)`` float32.
      logits: ``(N, K)`` float32 class scores, or None for an extractor without classes.
    """

    features: np.ndarray
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class Reference:
    """What generated examples are compared with.

    Attributes:
      gaussian: moments of the whole reference set.
      count: examples in it; None if its file does not say.
      features: ``(M, d)`` float32, some of its features, or None if only moments are known.
    """

    gaussian: Gaussian
    count: int | None = None
    features: np.ndarray | None = None

    def need_features(self, metric: str) -> np.ndarray:
        """The features.

        Raises:
          ValueError: there are only moments.
        """
        if self.features is None:
            raise ValueError(
                f"evaluate.metrics: {metric!r} compares examples, but the reference holds only a mean and a "
                "covariance; make one with --mode=stats, or leave the metric out"
            )
        return self.features


class Metric(Protocol):
    """A frozen set of options that turns features into named scores.

    Attributes:
      least: examples that each set must have.
    """

    @property
    def least(self) -> int: ...

    def __call__(self, sampled: Sampled, reference: Reference) -> dict[str, Score]:
        """Scores by name.

        Raises:
          ValueError: too few examples, or what the metric needs is missing.
        """
        ...


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, rounds: int, seed: int) -> float | None:
    """Standard error of a statistic of ``count`` examples under resampling with replacement.

    Efron 1979, Annals of Statistics 7(1).

    Args:
      statistic: of non-negative weights ``(count,)`` that sum to ``count``: how often each was drawn.
      rounds: resamplings; fewer than 2 give None.
    """
    if rounds < 2:
        return None
    return float(np.std([statistic(draw) for draw in resamplings(count, rounds, seed)], ddof=1))


def resamplings(count: int, rounds: int, seed: int) -> np.ndarray:
    """How often each of ``count`` examples is drawn in each of ``rounds``, ``(rounds, count)`` float64."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.multinomial(count, np.full(count, 1 / count), rounds).astype(np.float64)


# Scores of Inception features go by their published names; no others do.
_PUBLISHED = {"frechet": "fid"}
_OTHER = {("classifier", "frechet"): "cfd", ("inception_spatial", "frechet"): "sfid"}


def title(score: str, features: str) -> str:
    """The name under which a score is reported: "fid", "cfd", "pixels_kid", "classifier_score"."""
    if features == "inception":
        return _PUBLISHED.get(score, score)
    return _OTHER.get((features, score), f"{features}_{score.removeprefix('inception_')}")


def shown(score: Score) -> str:
    """``12.34 +- 0.05``."""
    return f"{score.value:.5g}" + ("" if score.error is None else f" +- {score.error:.2g}")

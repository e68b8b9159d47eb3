"""Measurements on a whole data set, and of samples against one."""

from collections.abc import Callable

from score_sde.evaluate.density import Density, Measured, measure_density
from score_sde.evaluate.fid import Frechet
from score_sde.evaluate.inception_score import InceptionScore
from score_sde.evaluate.kid import KernelDistance
from score_sde.evaluate.levels import Levels, level_times, measure_levels
from score_sde.evaluate.prdc import PRDC
from score_sde.evaluate.scores import Metric, Reference, Sampled, Score

METRICS: dict[str, Callable[..., Metric]] = {
    "frechet": Frechet,
    "kid": KernelDistance,
    "inception_score": InceptionScore,
    "prdc": PRDC,
}

__all__ = [
    "METRICS",
    "Density",
    "Levels",
    "Measured",
    "Metric",
    "Reference",
    "Sampled",
    "Score",
    "level_times",
    "measure_density",
    "measure_levels",
]

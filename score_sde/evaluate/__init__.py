"""Measurements on a whole data set."""

from score_sde.evaluate.density import Density, measure_density
from score_sde.evaluate.levels import Levels, level_times, measure_levels

__all__ = ["Density", "Levels", "level_times", "measure_density", "measure_levels"]

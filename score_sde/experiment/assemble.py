"""From a config to the objects of an experiment, each part by itself: the one place where they meet."""

from score_sde.experiment.density import DensityODE, density_of, inversion_of
from score_sde.experiment.model import architecture_of
from score_sde.experiment.sampler import sampler_of
from score_sde.experiment.sources import data_name, open_source
from score_sde.experiment.training import (
    average_of,
    loss_of,
    optimizer_of,
    preparation_of,
    task_of,
)

__all__ = [
    "DensityODE",
    "architecture_of",
    "average_of",
    "data_name",
    "density_of",
    "inversion_of",
    "loss_of",
    "open_source",
    "optimizer_of",
    "preparation_of",
    "sampler_of",
    "task_of",
]

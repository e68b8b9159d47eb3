"""From a config to the objects of an experiment, each part by itself: the one place where they meet."""

from score_sde.experiment.density import DensityODE, density_of, inversion_of
from score_sde.experiment.model import Experiment, assemble
from score_sde.experiment.objective import average_of, loss_of, objective_of, optimizer_of, prepared
from score_sde.experiment.sampler import Sampler, sampler_of
from score_sde.experiment.sources import data_name, open_source

__all__ = [
    "DensityODE",
    "Experiment",
    "Sampler",
    "assemble",
    "average_of",
    "data_name",
    "density_of",
    "inversion_of",
    "loss_of",
    "objective_of",
    "open_source",
    "optimizer_of",
    "prepared",
    "sampler_of",
]

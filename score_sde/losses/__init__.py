"""Losses: a weighted square error, its weight and its density of times."""

from score_sde.losses.denoising import DenoisingLoss, loss_by_level, square_error
from score_sde.losses.times import TIMES, Times
from score_sde.losses.variational import Trained, VariationalLoss, variational_bound
from score_sde.losses.weights import WEIGHTS, Weight

__all__ = [
    "TIMES",
    "WEIGHTS",
    "DenoisingLoss",
    "Times",
    "Trained",
    "VariationalLoss",
    "Weight",
    "loss_by_level",
    "square_error",
    "variational_bound",
]

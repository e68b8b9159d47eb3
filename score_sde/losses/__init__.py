"""Losses: a weighted square error, its weight and its density of times."""

from score_sde.losses.denoising import DenoisingLoss, Drawn, loss_at_level, square_error
from score_sde.losses.times import TIMES, Times
from score_sde.losses.variational import VariationalLoss, bound_at, draw_bound, variational_bound
from score_sde.losses.weights import WEIGHTS, Weight

__all__ = [
    "TIMES",
    "WEIGHTS",
    "DenoisingLoss",
    "Drawn",
    "Times",
    "VariationalLoss",
    "Weight",
    "bound_at",
    "draw_bound",
    "loss_at_level",
    "square_error",
    "variational_bound",
]

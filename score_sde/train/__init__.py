"""Training: a state, a pure step, and the loop around them."""

from score_sde.train.checkpoint import Checkpoints
from score_sde.train.ema import EMAS
from score_sde.train.log import Log
from score_sde.train.loop import Every, train
from score_sde.train.optimizer import OPTIMIZERS, with_moments
from score_sde.train.posthoc import Combination, combine
from score_sde.train.state import TrainState
from score_sde.train.step import Objective, compile_step, init_state, make_step

__all__ = [
    "EMAS",
    "OPTIMIZERS",
    "Checkpoints",
    "Combination",
    "Every",
    "Log",
    "Objective",
    "TrainState",
    "combine",
    "compile_step",
    "init_state",
    "make_step",
    "train",
    "with_moments",
]

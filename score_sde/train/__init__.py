"""Training: a state, a pure step, and the loop around them."""

from score_sde.train.best import Best, Record, read_best
from score_sde.train.checkpoint import Checkpoints
from score_sde.train.ema import EMAS
from score_sde.train.log import Log
from score_sde.train.loop import Every, train
from score_sde.train.optimizer import OPTIMIZERS, with_moments
from score_sde.train.posthoc import Combination, combine
from score_sde.train.state import TrainState
from score_sde.train.step import Objective, Step, compile_step, init_state, make_step
from score_sde.train.watch import Alarm, Watch, slow_average

__all__ = [
    "EMAS",
    "OPTIMIZERS",
    "Alarm",
    "Best",
    "Checkpoints",
    "Combination",
    "Every",
    "Log",
    "Objective",
    "Record",
    "Step",
    "TrainState",
    "Watch",
    "combine",
    "compile_step",
    "init_state",
    "make_step",
    "read_best",
    "slow_average",
    "train",
    "with_moments",
]

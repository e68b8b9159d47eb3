"""Solvers.  To add one: a class with ``plan`` and ``step``, and a line in ``SOLVERS``."""

from score_sde.solvers.adaptive import AdaptiveODE
from score_sde.solvers.adaptive_dpm import AdaptiveDPM
from score_sde.solvers.adaptive_sde import AdaptiveSDE
from score_sde.solvers.base import Affine, Carry, Noise, Plan, Solver, StepSolver, noise_of
from score_sde.solvers.corrected import Corrected
from score_sde.solvers.grids import GRIDS, Grid
from score_sde.solvers.hooks import Hooks, Watch
from score_sde.solvers.legacy import LegacyODE, LegacyPC
from score_sde.solvers.multistep_methods import MULTISTEP
from score_sde.solvers.pc import PC
from score_sde.solvers.plms import PLMS, PNDM
from score_sde.solvers.runge_kutta import RUNGE_KUTTA
from score_sde.solvers.singlestep import SINGLESTEP
from score_sde.solvers.stochastic import STOCHASTIC

SOLVERS = {
    "pc": PC,
    "ode": AdaptiveODE,
    **MULTISTEP,
    "plms": PLMS,
    "pndm": PNDM,
    **RUNGE_KUTTA,
    **SINGLESTEP,
    **STOCHASTIC,
    "adaptive_sde": AdaptiveSDE,
    "adaptive_dpm": AdaptiveDPM,
    "corrected": Corrected,
    "legacy_pc": LegacyPC,
    "legacy_ode": LegacyODE,
}

__all__ = [
    "GRIDS",
    "PC",
    "PLMS",
    "PNDM",
    "SOLVERS",
    "AdaptiveDPM",
    "AdaptiveODE",
    "AdaptiveSDE",
    "Affine",
    "Carry",
    "Grid",
    "Hooks",
    "LegacyODE",
    "LegacyPC",
    "Noise",
    "Plan",
    "Solver",
    "StepSolver",
    "Watch",
    "noise_of",
]

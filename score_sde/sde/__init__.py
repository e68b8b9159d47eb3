"""Forward processes.  To add one: a class with ``alpha`` and ``sigma``, and a line in ``SDES``."""

from score_sde.sde.base import SDE
from score_sde.sde.discrete import DDPM, SMLD
from score_sde.sde.gaussian import EDM, VE, VP, Cosine, Flow, SubVP
from score_sde.sde.learned import Learned

SDES = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "edm": EDM,
    "cosine": Cosine,
    "flow": Flow,
    "ddpm": DDPM,
    "smld": SMLD,
    "learned": Learned,
}

__all__ = ["DDPM", "EDM", "SDE", "SDES", "SMLD", "VE", "VP", "Cosine", "Flow", "Learned", "SubVP"]

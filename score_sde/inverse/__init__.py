"""Inverse problems: samples of ``p(x0 | y)`` for ``y = A x0 + noise_std z`` from a model of ``x0`` alone.

To add an operator or a method: a frozen dataclass in a file of its own, and a line in ``OPERATORS`` or
``METHODS``.
"""

from collections.abc import Callable

from score_sde.inverse.base import MEASURED, NOISE_STD, LinearOperator, Posterior, check_adjoint
from score_sde.inverse.blur import Blur
from score_sde.inverse.conditional import Conditional
from score_sde.inverse.ddnm import DDNM
from score_sde.inverse.edits import EDITS as PICTURES
from score_sde.inverse.edits import Edit
from score_sde.inverse.function import Function
from score_sde.inverse.grid import BoxDown, ChannelMean
from score_sde.inverse.impute import Impute
from score_sde.inverse.mask import MASK, Mask
from score_sde.inverse.mmps import MMPS
from score_sde.inverse.pigdm import PiGDM

OPERATORS: dict[str, Callable[..., LinearOperator]] = {
    "mask": Mask,
    "channel_mean": ChannelMean,
    "box_down": BoxDown,
    "blur": Blur,
}
EDITS: dict[str, type[Edit]] = {**PICTURES, "impute": Impute}
METHODS: dict[str, Callable[..., Posterior]] = {
    "pigdm": PiGDM,
    "mmps": MMPS,
    "ddnm": DDNM,
    "conditional": Conditional,
}

__all__ = [
    "DDNM",
    "EDITS",
    "MASK",
    "MEASURED",
    "METHODS",
    "MMPS",
    "NOISE_STD",
    "OPERATORS",
    "Blur",
    "BoxDown",
    "ChannelMean",
    "Conditional",
    "Edit",
    "Function",
    "LinearOperator",
    "Mask",
    "PiGDM",
    "Posterior",
    "check_adjoint",
]

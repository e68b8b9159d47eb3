"""Inverse problems: samples of ``p(x0 | y)`` for ``y = A x0 + noise_std z`` from a model of ``x0`` alone.

To add an operator or a method: a frozen dataclass in a file of its own, and a line in ``OPERATORS`` or
``METHODS``.
"""

from collections.abc import Callable

from score_sde.inverse.base import MEASURED, NOISE_STD, LinearOperator, Posterior, check_adjoint
from score_sde.inverse.bicubic import BicubicDown
from score_sde.inverse.blur import Blur
from score_sde.inverse.conditional import Conditional
from score_sde.inverse.ddnm import DDNM
from score_sde.inverse.ddrm import DDRM
from score_sde.inverse.dps import DPS
from score_sde.inverse.edits import EDITS as PICTURES
from score_sde.inverse.edits import Edit
from score_sde.inverse.fourier import FREQUENCIES, Fourier
from score_sde.inverse.function import Function
from score_sde.inverse.grid import BoxDown, ChannelMean
from score_sde.inverse.impute import Impute
from score_sde.inverse.legacy import LegacyReplacement
from score_sde.inverse.mask import MASK, Mask
from score_sde.inverse.mmps import MMPS
from score_sde.inverse.pigdm import PiGDM
from score_sde.inverse.radon import Radon
from score_sde.inverse.repaint import RePaint
from score_sde.inverse.replacement import Replacement
from score_sde.inverse.sdedit import SDEdit
from score_sde.inverse.tds import TDS

OPERATORS: dict[str, Callable[..., LinearOperator]] = {
    "mask": Mask,
    "channel_mean": ChannelMean,
    "fourier": Fourier,
    "radon": Radon,
    "box_down": BoxDown,
    "bicubic_down": BicubicDown,
    "blur": Blur,
}
EDITS: dict[str, type[Edit]] = {**PICTURES, "impute": Impute}
METHODS: dict[str, Callable[..., Posterior]] = {
    "mmps": MMPS,
    "pigdm": PiGDM,
    "ddnm": DDNM,
    "ddrm": DDRM,
    "dps": DPS,
    "replacement": Replacement,
    "legacy_replacement": LegacyReplacement,
    "repaint": RePaint,
    "tds": TDS,
    "sdedit": SDEdit,
    "conditional": Conditional,
}

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "EDITS",
    "FREQUENCIES",
    "MASK",
    "MEASURED",
    "METHODS",
    "MMPS",
    "NOISE_STD",
    "OPERATORS",
    "TDS",
    "BicubicDown",
    "Blur",
    "BoxDown",
    "ChannelMean",
    "Conditional",
    "Edit",
    "Fourier",
    "Function",
    "LegacyReplacement",
    "LinearOperator",
    "Mask",
    "PiGDM",
    "Posterior",
    "Radon",
    "RePaint",
    "Replacement",
    "SDEdit",
    "check_adjoint",
]

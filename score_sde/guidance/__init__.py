"""Guidance: what changes a model's prediction between the network and the solver.

Each is a ``Bind -> Bind`` (see ``Guidance``).  To add one: a frozen dataclass in a file of its own, and a
line in ``GUIDANCES``.
"""

from collections.abc import Callable

from score_sde.guidance.auto import GUIDE, Auto, Guide
from score_sde.guidance.base import UNCHANGED, Guidance, Unchanged, compose
from score_sde.guidance.change_process import ChangeProcess
from score_sde.guidance.classifier import CLASSIFIER, ClassifierGuidance, NoisyClassifier
from score_sde.guidance.classifier_free import (
    GUIDANCE_INTERVAL,
    GUIDANCE_RESCALE,
    GUIDANCE_SCALE,
    ClassifierFree,
)
from score_sde.guidance.gradient import Gradient
from score_sde.guidance.thresholds import THRESHOLDS, Dynamic, Static

GUIDANCES: dict[str, Callable[..., Guidance]] = {
    "none": Unchanged,
    "classifier_free": ClassifierFree,
    "auto": Auto,
    "classifier": ClassifierGuidance,
}

__all__ = [
    "CLASSIFIER",
    "GUIDANCES",
    "GUIDANCE_INTERVAL",
    "GUIDANCE_RESCALE",
    "GUIDANCE_SCALE",
    "GUIDE",
    "THRESHOLDS",
    "UNCHANGED",
    "Auto",
    "ChangeProcess",
    "ClassifierFree",
    "ClassifierGuidance",
    "Dynamic",
    "Gradient",
    "Guidance",
    "Guide",
    "NoisyClassifier",
    "Static",
    "Unchanged",
    "compose",
]

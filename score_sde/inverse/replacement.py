"""Replacement of what is known after every step (Song et al. 2021, arXiv:2011.13456, appendix I.2)."""

from dataclasses import dataclass

from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import NOISE_STD
from score_sde.inverse.steps import BetweenSteps, Step, impose


@dataclass(frozen=True, kw_only=True)
class Replacement(BetweenSteps):
    """After each step the measured part of the state is drawn from ``q(x_t | y)``.

    It is drawn at the level that the step has come to, and the result is the expected clean sample, so that
    no part keeps noise.  The unknown part hears of the known one only through the next estimate: a model of
    strongly dependent parts needs ``repaint``, ``mmps`` or particles.

    Raises (when it is bound):
      ValueError: an operator whose singular values are not known.
    """

    def after(self, x: Array, known: Array, step: Step[Array], z: Array, given: Cond) -> Array:
        return impose(self.operator, x, step.end, z, given, given[NOISE_STD])

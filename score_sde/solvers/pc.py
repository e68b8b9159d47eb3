"""Predictor-corrector sampling (arXiv:2011.13456, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple

import jax
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.names import ReadIf, nearest
from score_sde.sde import SDE
from score_sde.solvers.base import (
    Affine,
    N,
    Noise,
    Plan,
    StepSolver,
    coefficients,
    make_plan,
    marginals,
    quiet,
)
from score_sde.solvers.langevin import CORRECTORS, NORMS, Level
from score_sde.solvers.predictors import PREDICTORS, transition


class PCRow(NamedTuple, Generic[N]):
    """One step: index of its first noise, the predictor's move, the corrector's level."""

    draw: N
    predict: Affine[N]
    correct: Level[N]


@dataclass(frozen=True, kw_only=True)
class PC(StepSolver):
    """A predictor step, then Langevin corrector steps at the new time.

    Attributes:
      predictor: ``euler_maruyama``, ``reverse_diffusion``, ``ancestral`` or ``none``.
      corrector: ``langevin``, ``ald`` or ``none``.
      corrector_steps: corrector moves a step.
      snr: the corrector's signal-to-noise ratio ``r``.
      norm: how Langevin compares noise and score: ``sample``, ``dimension``, or ``batch`` (official; a
        sample then depends on its batch).
      noise_scale: noise of the predictor; 0 makes Euler-Maruyama and reverse diffusion steps of the
        probability-flow ODE.

    Raises:
      ValueError: an unknown name or an impossible number.
    """

    predictor: str = "euler_maruyama"
    corrector: str = "none"
    corrector_steps: int = 1
    snr: float = 0.16
    norm: str = "sample"
    noise_scale: float = 1.0
    read_if: ClassVar[ReadIf] = {
        "corrector_steps": ("corrector", ("langevin", "ald")),
        "snr": ("corrector", ("langevin", "ald")),
        "norm": ("corrector", ("langevin",)),
        "noise_scale": ("predictor", ("euler_maruyama", "reverse_diffusion", "ancestral")),
    }

    def __post_init__(self) -> None:
        for name, table in (("predictor", PREDICTORS), ("corrector", CORRECTORS), ("norm", NORMS)):
            value = getattr(self, name)
            if value not in table:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(table)}{nearest(str(value), table)}"
                )
        if self.predictor == "none" and self.corrector == "none":
            raise ValueError("predictor and corrector are both 'none': nothing would happen")
        if self.corrector_steps < 1 or self.snr <= 0 or self.noise_scale < 0:
            raise ValueError(
                "need corrector_steps >= 1, snr > 0 and noise_scale >= 0, got "
                f"{self.corrector_steps}, {self.snr} and {self.noise_scale}"
            )

    @property
    def couples_batch(self) -> bool:
        return self.corrector == "langevin" and self.norm == "batch"

    @property
    def evaluations(self) -> int:
        """Network evaluations a step."""
        corrects = 0 if self.corrector == "none" else self.corrector_steps
        return corrects + (self.predictor != "none")

    def draws(self, steps: int) -> np.ndarray:
        """Index of the first noise of each step; noise 0 is the prior's."""
        return (1 + np.arange(steps) * self.evaluations).astype(np.int32)

    @quiet
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        t, s = np.asarray(times[:-1], np.float64), np.asarray(times[1:], np.float64)
        predictor = PREDICTORS[self.predictor]
        ones = np.ones_like(t)
        move = predictor(sde, t, s, self.noise_scale) if predictor else Affine(t, ones, 0 * t, 0 * t, 0 * t)
        to = marginals(sde, s)
        pace = transition(marginals(sde, t), to).retention ** 2
        level = Level(to.t, to.sigma, pace)
        return make_plan(PCRow(self.draws(len(t)), coefficients(move), coefficients(level)), times)

    def step(
        self, denoise: Denoise, x: Array, row: PCRow[Array], history: tuple, noise: Noise
    ) -> tuple[Array, tuple]:
        x = self.predict(denoise, x, row, noise, row.draw)
        first = row.draw + (self.predictor != "none")
        return self.correct(denoise, x, row, noise, first), history

    def predict(self, denoise: Denoise, x: Array, row: PCRow[Array], noise: Noise, draw: Array) -> Array:
        """The predictor's move of ``row``: ``(B, *D) -> (B, *D)``, with noise number ``draw``."""
        if PREDICTORS[self.predictor] is None:
            return x
        return row.predict.mean(denoise, x) + row.predict.noise_gain * noise(draw)

    def correct(self, denoise: Denoise, x: Array, row: PCRow[Array], noise: Noise, draw: Array) -> Array:
        """The corrector's moves of ``row``, with the noise from number ``draw`` on."""
        corrector = CORRECTORS[self.corrector]
        if corrector is None:
            return x

        def move(i: Array | int, x: Array) -> Array:
            return corrector(denoise, x, row.correct, noise(draw + i), self.snr, NORMS[self.norm])

        return jax.lax.fori_loop(0, self.corrector_steps, move, x)

"""Predictor-corrector sampling with any table as the predictor (arXiv:2011.13456, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple

import jax
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.names import ReadIf, nearest
from score_sde.sde import SDE
from score_sde.solvers.base import N, Noise, Plan, StepSolver, coefficients, make_plan, marginals
from score_sde.solvers.langevin import CORRECTORS, NORMS, Level
from score_sde.solvers.multistep_methods import MULTISTEP
from score_sde.solvers.plms import PLMS, PNDM
from score_sde.solvers.predictors import transition
from score_sde.solvers.runge_kutta import RUNGE_KUTTA
from score_sde.solvers.singlestep import SINGLESTEP
from score_sde.solvers.stochastic import DPMppSDE, StochasticHeun
from score_sde.solvers.table import Memory, Row, Start, Table

PREDICTORS = {
    **MULTISTEP,
    "plms": PLMS,
    "pndm": PNDM,
    **RUNGE_KUTTA,
    **SINGLESTEP,
    "dpmpp_sde": DPMppSDE,
    "stochastic_heun": StochasticHeun,
}


class CorrectedRow(NamedTuple, Generic[N]):
    """A row of the predictor's table; the corrector's level, and the number of its first noise."""

    predict: Row[N]
    correct: Level[N]
    draw: N


class CorrectedRows(NamedTuple, Generic[N]):
    """The rows, and the predictor's move before the first."""

    rows: CorrectedRow[N]
    start: Start[N]


@dataclass(frozen=True, kw_only=True)
class Corrected(StepSolver):
    """Any other solver with its own defaults, and Langevin moves at the end of each of its steps.

    Attributes:
      table: the predictor, a key such as ``dpmpp_2m`` or ``heun``.
      corrector: ``langevin`` or ``ald``.
      corrector_steps, snr, norm: as in ``PC``.

    Raises:
      ValueError: an unknown name or an impossible number.
    """

    table: str = "ddim"
    corrector: str = "langevin"
    corrector_steps: int = 1
    snr: float = 0.16
    norm: str = "sample"
    read_if: ClassVar[ReadIf] = {"norm": ("corrector", ("langevin",))}

    def __post_init__(self) -> None:
        moves = {key: move for key, move in CORRECTORS.items() if move is not None}
        for name, allowed in (("table", PREDICTORS), ("corrector", moves), ("norm", NORMS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(allowed)}{nearest(str(value), allowed)}"
                )
        if self.corrector_steps < 1 or self.snr <= 0:
            raise ValueError(
                f"need corrector_steps >= 1 and snr > 0, got {self.corrector_steps} and {self.snr}"
            )

    @property
    def couples_batch(self) -> bool:
        return self.corrector == "langevin" and self.norm == "batch"

    @property
    def evaluations(self) -> int:
        return PREDICTORS[self.table]().evaluations + self.corrector_steps

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        rows, start = PREDICTORS[self.table](denoise=False).plan(sde, times).rows
        step = np.cumsum(rows.closes) - rows.closes  # the step that each row belongs to
        at, to = marginals(sde, np.asarray(times)[:-1]), marginals(sde, np.asarray(times)[1:])
        if to.sigma[-1] == 0:
            raise ValueError("a corrector needs noise: end the grid above the time where sigma is zero")
        level = Level(to.t, to.sigma, transition(at, to).retention ** 2)
        level = Level(*(column[step] for column in level))
        draw = int(rows.draw.max()) + 1 + step * self.corrector_steps
        row = CorrectedRow(rows, coefficients(level), draw.astype(np.int32))
        return make_plan(CorrectedRows(row, start), times)

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        return Table().begin(x, plan, noise)

    def rows(self, plan: Plan) -> CorrectedRow[Array]:
        return plan.rows.rows

    def bounds(self, row: CorrectedRow[Array]) -> tuple[Array, Array]:
        return row.predict.opens, row.predict.closes

    def init(self, x: Array, rows: CorrectedRow[Array]) -> Memory:
        return Table().init(x, rows.predict)

    def step(
        self, denoise: Denoise, x: Array, row: CorrectedRow[Array], history: Memory, noise: Noise
    ) -> tuple[Array, Memory]:
        x, history = Table().step(denoise, x, row.predict, history, noise)
        corrector = CORRECTORS[self.corrector]
        assert corrector is not None

        def move(i: Array | int, x: Array) -> Array:
            z = noise(row.draw + i).astype(x.dtype)
            return corrector(denoise, x, row.correct, z, self.snr, NORMS[self.norm])

        def correct(x: Array) -> Array:
            return jax.lax.fori_loop(0, self.corrector_steps, move, x)

        return jax.lax.cond(row.predict.closes, correct, lambda x: x, x), history

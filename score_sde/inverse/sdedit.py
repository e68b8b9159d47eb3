"""SDEdit (Meng et al. 2022, arXiv:2108.01073): noise is added to a picture, and taken away again."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jax import Array

from score_sde.arrays import Tree
from score_sde.denoiser import Denoise
from score_sde.inverse.base import MEASURED, Posterior
from score_sde.inverse.steps import Level, MeasuredSolver
from score_sde.sde import SDE
from score_sde.solvers import Noise, Plan, Solver, StepSolver
from score_sde.solvers.base import coefficients, marginals


@dataclass(frozen=True, kw_only=True)
class SDEdit(Posterior):
    """Samples start from ``alpha A^+ y + sigma z`` at a time on the way, and are then drawn without ``y``.

    The later the start, the closer the result is to the picture; nothing else holds it there.  The noise of
    the measurement is not read.

    Attributes:
      strength: share of the steps of the grid that is taken, 0 to 1: of 50 steps, 0.6 takes the last 30.

    Raises:
      ValueError: another strength; when it is bound, a solver without steps.
    """

    strength: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength = {self.strength}: must be above 0 and at most 1")

    def steps(self, solver: Solver) -> Solver:
        if not isinstance(solver, StepSolver):
            raise ValueError(
                f"SDEdit takes a part of the steps, and {type(solver).__name__} chooses its steps on the "
                "way: choose a solver with fixed steps"
            )
        return FromPicture(method=self, inner=solver, strength=self.strength, denoise=solver.denoise)


class Later(NamedTuple):
    """Rows of a plan: those of the solver inside, and the level at which they start."""

    inner: Tree
    start: Level


@dataclass(frozen=True, kw_only=True)
class FromPicture(MeasuredSolver):
    """The last steps of another solver, from the noisy measurement.

    Attributes:
      inner: the solver.
      strength: share of the steps.
    """

    inner: StepSolver
    strength: float

    @property
    def program(self) -> StepSolver:
        inner = self.inner.program
        assert isinstance(inner, StepSolver)
        return replace(self, inner=inner, strength=1.0)

    @property
    def couples_batch(self) -> bool:
        return self.inner.couples_batch

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        steps = len(times) - 1
        times = times[steps - max(1, round(self.strength * steps)) :]
        plan, at = self.inner.plan(sde, times), marginals(sde, times[:1])
        return plan._replace(rows=Later(plan.rows, coefficients(Level(at.alpha[0], at.sigma[0]))))

    def rows(self, plan: Plan) -> Tree:
        return self.inner.rows(_inside(plan))

    def bounds(self, row: Tree) -> tuple[Array | bool, Array | bool]:
        return self.inner.bounds(row)

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        start, given = plan.rows.start, self.measurement
        picture = self.method.operator.pseudo_inverse(given[MEASURED], given)
        return self.inner.begin(start.alpha * picture + start.sigma * noise(0), _inside(plan), noise)

    def init(self, x: Array, rows: Tree) -> Tree:
        return self.inner.init(x, rows)

    def step(self, denoise: Denoise, x: Array, row: Tree, history: Tree, noise: Noise) -> tuple[Array, Tree]:
        return self.inner.step(denoise, x, row, history, noise)

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        return self.inner.finish(denoise, x, _inside(plan))


def _inside(plan: Plan) -> Plan:
    return plan._replace(rows=plan.rows.inner)

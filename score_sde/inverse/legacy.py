"""The official code's inpainting and colourisation, digit for digit, where they differ from the right ones.

Published pictures were made with them; new work should use ``replacement``.

- The known part is drawn after the corrector and again after the predictor, both times at the level at which
  the step *started*, so that the unknown part is a step ahead of it.
- The state begins with the known part without noise.
- The result is the last state with the known part's mean, not the expected clean sample: the unknown part
  keeps the noise of its last step.
- The noise of the measurement is not read.
"""

from dataclasses import dataclass, replace
from typing import Generic, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.inverse.base import MEASURED, Posterior
from score_sde.inverse.steps import Level, MeasuredSolver
from score_sde.sde import SDE
from score_sde.solvers import LegacyPC, Noise, Plan, Solver
from score_sde.solvers.base import N, coefficients, marginals
from score_sde.solvers.pc import PCRow


@dataclass(frozen=True, kw_only=True)
class LegacyReplacement(Posterior):
    """See above.  Its steps are those of ``sampling.solver = 'legacy_pc'``.

    Raises (when it is bound):
      ValueError: another solver, or an operator whose singular values are not known.
    """

    def steps(self, solver: Solver) -> Solver:
        if not isinstance(solver, LegacyPC):
            raise ValueError(
                "legacy_replacement needs sampling.solver = 'legacy_pc', and the solver is "
                f"{type(solver).__name__}; replacement takes any solver with steps"
            )
        return LegacyReplaced(method=self, inner=solver, denoise=solver.denoise)


class Row(NamedTuple, Generic[N]):
    """A step: its number, the moves of the solver, and the level at which it starts."""

    number: N
    moves: PCRow[N]
    start: Level[N]


@dataclass(frozen=True, kw_only=True)
class LegacyReplaced(MeasuredSolver):
    """``LegacyPC`` with the known part drawn after each of its two moves.

    The solver inside draws the even numbers of the noise, the known part the odd ones.
    """

    inner: LegacyPC

    @property
    def couples_batch(self) -> bool:
        return self.inner.couples_batch

    @property
    def evaluations(self) -> int:
        return self.inner.evaluations

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        # The last noise is kept in the unknown part: that is the fault.
        plan = replace(self.inner, denoise=False).plan(sde, times)
        at = marginals(sde, plan.rows.correct.t)
        start = coefficients(Level(at.alpha, at.sigma))
        return plan._replace(rows=Row(np.arange(len(at.t), dtype=np.int32), plan.rows, start))

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        return self._known(x, jnp.ones(()))

    def step(
        self, denoise: Denoise, x: Array, row: Row[Array], history: tuple, noise: Noise
    ) -> tuple[Array, tuple]:
        inner, draw = self.inner, row.moves.draw
        corrector_draws = 0 if inner.corrector == "none" else inner.corrector_steps

        def solver_noise(i: Array | int) -> Array:
            return noise(2 * i)

        x = inner.correct(denoise, x, row.moves, solver_noise, draw)
        x = self._drawn(x, row.start, noise(4 * row.number + 1))
        x = inner.predict(denoise, x, row.moves, solver_noise, draw + corrector_draws)
        return self._drawn(x, row.start, noise(4 * row.number + 3)), history

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        return self._known(x, plan.rows.start.alpha[-1]) if self.denoise else x

    def _known(self, x: Array, alpha: Array) -> Array:
        """``x`` with ``alpha A^+ y`` as its measured part."""
        operator, given = self.method.operator, self.measurement
        return x + operator.pseudo_inverse(alpha * given[MEASURED] - operator.apply(x, given), given)

    def _drawn(self, x: Array, level: Level[Array], z: Array) -> Array:
        return self._known(x, level.alpha) + level.sigma * self.method.operator.of_seen(
            jnp.ones_like, z, self.measurement
        )

"""Solvers whose steps read a measurement."""

import abc
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Tree, expand
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise
from score_sde.inverse.base import MEASURED, LinearOperator, Posterior
from score_sde.sde import SDE
from score_sde.solvers import Noise, Plan, Solver, StepSolver
from score_sde.solvers.base import N, coefficients, marginals


@dataclass(frozen=True, kw_only=True)
class MeasuredSolver(StepSolver):
    """A solver that reads the measurement.

    Attributes:
      method: whose steps it takes.
      measurement: entries of ``cond`` of the method, ``(B, ...)`` each; none before a batch is given.
    """

    method: Posterior
    measurement: Cond = field(default_factory=dict, compare=False)

    def given(self, cond: Cond) -> StepSolver:
        return replace(self, measurement=self.method.taken(cond)[0])


class Level(NamedTuple, Generic[N]):
    """Signal and noise of the process at a time: scalars, or ``(n,)`` for the rows of a plan."""

    alpha: N
    sigma: N


class Step(NamedTuple, Generic[N]):
    """Where a row of another solver belongs; scalars, or ``(n,)``.

    Attributes:
      number: of the row, from 0.
      t, start: time and level at which its step of the grid starts.
      end: the level at which that step ends.
      ends: whether the step ends with this row; never on a last move to the clean sample.
    """

    number: N
    t: N
    start: Level[N]
    end: Level[N]
    ends: N


class Around(NamedTuple):
    """Rows of a plan: those of the solver inside, and where each belongs."""

    inner: Tree
    step: Step


@dataclass(frozen=True, kw_only=True)
class BetweenSteps(Posterior):
    """A method that acts before and after each step of any solver that takes the steps of the grid."""

    def before(self, denoise: Denoise, x: Array, step: Step[Array], given: Cond) -> Array:
        """What ``after`` needs of the state before the step: ``(B, *D)``."""
        return jnp.zeros_like(x)

    @abc.abstractmethod
    def after(self, x: Array, known: Array, step: Step[Array], z: Array, given: Cond) -> Array:
        """The state ``(B, *D)`` after the step.

        Args:
          x: the state that the solver has come to, at ``step.end``.
          known: what ``before`` gave.
          z: unit normal noise, ``(B, *D)``.
        """

    def steps(self, solver: Solver) -> Solver:
        if not isinstance(solver, StepSolver):
            raise ValueError(
                f"{type(self).__name__} acts between steps, and {type(solver).__name__} chooses its steps on "
                "the way: choose a solver with fixed steps, or the method mmps, pigdm or ddnm"
            )
        return Between(method=self, between=self, inner=solver, denoise=solver.denoise)


@dataclass(frozen=True, kw_only=True)
class Between(MeasuredSolver):
    """Another solver, with what a method does before and after its steps.

    The solver inside draws the even numbers of the noise, the method the odd ones.

    Attributes:
      inner: the solver.
      between: the method.
    """

    inner: StepSolver
    between: BetweenSteps

    @property
    def program(self) -> StepSolver:
        inner = self.inner.program
        assert isinstance(inner, StepSolver)
        return replace(self, inner=inner)

    @property
    def couples_batch(self) -> bool:
        return self.inner.couples_batch

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        plan, count = self.inner.plan(sde, times), len(times) - 1
        closes = np.broadcast_to(
            np.asarray(self.inner.bounds(self.inner.rows(plan))[1]), self.inner.count(plan)
        )
        of_step = np.cumsum(closes) - closes
        if not count <= closes.sum() <= count + 1:
            raise ValueError(
                f"{type(self.inner).__name__} takes {closes.sum()} steps on a grid of {count}: a method that "
                "acts between steps needs a solver that goes through the grid once"
            )
        at, i = marginals(sde, times), np.minimum(of_step, count - 1)
        start, end = (coefficients(Level(at.alpha[j], at.sigma[j])) for j in (i, i + 1))
        number = np.arange(len(i), dtype=np.int32)
        step = Step(number, coefficients(at.t[i]), start, end, closes & (of_step < count))
        return plan._replace(rows=Around(plan.rows, step))

    def rows(self, plan: Plan) -> Around:
        return Around(self.inner.rows(_inside(plan)), plan.rows.step)

    def bounds(self, row: Around) -> tuple[Array | bool, Array | bool]:
        return self.inner.bounds(row.inner)

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        return self.inner.begin(x, _inside(plan), lambda i: noise(2 * i))

    def init(self, x: Array, rows: Around) -> tuple[Tree, Array]:
        return self.inner.init(x, rows.inner), jnp.zeros_like(x)

    def step(
        self, denoise: Denoise, x: Array, row: Around, history: tuple[Tree, Array], noise: Noise
    ) -> tuple[Array, tuple[Tree, Array]]:
        inner, known = history
        opens, given = self.inner.bounds(row.inner)[0], self.measurement
        known = jax.lax.cond(opens, lambda: self.between.before(denoise, x, row.step, given), lambda: known)
        x, inner = self.inner.step(denoise, x, row.inner, inner, lambda i: noise(2 * i))
        x = jax.lax.cond(
            row.step.ends,
            lambda: self.between.after(x, known, row.step, noise(2 * row.step.number + 1), given),
            lambda: x,
        )
        return x, (inner, known)

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        return self.inner.finish(denoise, x, _inside(plan))


def _inside(plan: Plan) -> Plan:
    return plan._replace(rows=plan.rows.inner)


def impose(
    operator: LinearOperator, x: Array, level: Level[Array], z: Array, given: Cond, noise_std: Array
) -> Array:
    """``x`` whose measured part is drawn anew from ``q(x_t | y)``, at one noise level: ``(B, *D)``.

    With ``A = U S V^T``, the part of ``V^T x`` along a singular value ``s`` becomes ``alpha y / s`` and noise
    of variance ``sigma^2 - alpha^2 noise_std^2 / s^2``, for ``y / s`` has noise of its own.  Where that is
    more than the noise of the state, ``x`` stays.

    Args:
      z: unit normal noise, ``(B, *D)``.
      noise_std: of the measurement, ``()`` or ``(B,)``.
    """
    alpha, sigma = level
    y = given[MEASURED]
    own = (alpha * expand(noise_std, y)) ** 2

    def counts(eigenvalues: Array) -> Array:
        return (own <= sigma**2 * eigenvalues).astype(x.dtype)

    def spread(eigenvalues: Array) -> Array:
        return jnp.sqrt(jnp.maximum(sigma**2 - own / eigenvalues, 0.0))

    known = operator.back(counts, alpha * y - operator.apply(x, given), given)
    return x + known + operator.of_seen(spread, z, given)

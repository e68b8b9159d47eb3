"""RePaint (Lugmayr et al. 2022, arXiv:2201.09865): go back and forth, so that the two parts agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.inverse.base import Posterior
from score_sde.inverse.steps import Level, MeasuredSolver, impose
from score_sde.sde import SDE
from score_sde.solvers import Affine, Noise, Plan, Solver
from score_sde.solvers.base import N, coefficients, make_plan, marginals, quiet
from score_sde.solvers.predictors import ancestral, transition


class Visit(NamedTuple):
    """A step down from point ``start`` of the grid to the next one, then noise up to point ``back_to``."""

    start: int
    back_to: int


def visits(steps: int, jump_length: int, resamplings: int) -> Iterator[Visit]:
    """The order in which the steps of a grid are taken (arXiv:2201.09865, appendix B).

    At every ``jump_length``-th level, counted from the last, the way goes up ``jump_length`` steps and down
    again, ``resamplings - 1`` times.
    """
    left = {level: resamplings - 1 for level in range(1, steps - jump_length + 1, jump_length)}
    level = steps
    while level > 0:
        level -= 1
        jumps = left.get(level, 0) > 0
        if jumps:
            left[level] -= 1
        yield Visit(steps - level - 1, steps - level - (jump_length if jumps else 0))
        level += jump_length if jumps else 0


@dataclass(frozen=True, kw_only=True)
class RePaint(Posterior):
    """Before each step the measured part is drawn from ``q(x_t | y)``; the way goes back and forth.

    Its steps are ancestral (DDPM), on the grid of the config: the solver of the config is not read.  Noise is
    added by the forward process from one level to a higher one.  The paper's 250 steps take 2410 evaluations.
    The measurement is taken as exact: its noise is not read.

    Attributes:
      jump_length: steps that the way goes back.
      resamplings: how often each stretch is gone through.

    Raises:
      ValueError: one of them is not positive; when it is bound, an operator without known singular values.
    """

    jump_length: int = 10
    resamplings: int = 10

    def __post_init__(self) -> None:
        for name in ("jump_length", "resamplings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be 1 or more")

    def steps(self, solver: Solver) -> Solver:
        return BackAndForth(
            method=self, jump_length=self.jump_length, resamplings=self.resamplings, denoise=solver.denoise
        )


class Row(NamedTuple, Generic[N]):
    """A visit: its number, the level where it starts, the step, and the forward kernel after it."""

    number: N
    start: Level[N]
    move: Affine[N]
    retention: N
    spread: N


@dataclass(frozen=True, kw_only=True)
class BackAndForth(MeasuredSolver):
    """Ancestral steps in the order of ``visits``, with the known part imposed before each."""

    jump_length: int
    resamplings: int

    @property
    def evaluations(self) -> int:
        return 1

    @quiet
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        way = list(visits(len(times) - 1, self.jump_length, self.resamplings))
        down, up = np.array([v.start for v in way]), np.array([v.back_to for v in way])
        at = marginals(sde, times)
        kernel = transition(at.pick(up), at.pick(down + 1))
        row = Row(
            np.arange(len(way), dtype=np.int32),
            Level(at.alpha[down], at.sigma[down]),
            ancestral(sde, times[down], times[down + 1]),
            kernel.retention,
            np.sqrt(np.maximum(kernel.variance, 0.0)),
        )
        return make_plan(Row(row.number, *coefficients(tuple(row[1:]))), times)

    def step(
        self, denoise: Denoise, x: Array, row: Row[Array], history: tuple, noise: Noise
    ) -> tuple[Array, tuple]:
        first = 1 + 3 * row.number
        exact, given = jnp.zeros(()), self.measurement
        x = impose(self.method.operator, x, row.start, noise(first), given, exact)
        x = row.move.mean(denoise, x) + row.move.noise_gain * noise(first + 1)
        return row.retention * x + row.spread * noise(first + 2), history

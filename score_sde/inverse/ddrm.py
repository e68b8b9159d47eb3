"""Denoising diffusion restoration (Kawar et al. 2022, arXiv:2201.11793)."""

from dataclasses import dataclass
from typing import Generic, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand
from score_sde.denoiser import Denoise
from score_sde.inverse.base import MEASURED, NOISE_STD, Posterior
from score_sde.inverse.steps import Level, MeasuredSolver, impose
from score_sde.sde import SDE
from score_sde.solvers import Noise, Plan, Solver
from score_sde.solvers.base import N, coefficients, make_plan, marginals


@dataclass(frozen=True, kw_only=True)
class DDRM(Posterior):
    """Each singular direction of ``A`` is sampled by its own rule (eq. 7 and 8), with its own step.

    Directions that are not measured take DDIM steps.  Those that are measured are drawn around the
    measurement while the noise of the state is more than that of the measurement, and around a mean of
    estimate and measurement afterwards.  The solver of the config is not read, its grid is.

    Attributes:
      eta: noise of directions that are not measured, or badly; 0 to 1.
      eta_measured: weight of the measurement in its directions, ``eta_b``; 0 to 1.

    Raises:
      ValueError: one of them is out of range; when it is bound, an operator without known singular values.
    """

    eta: float = 0.85
    eta_measured: float = 1.0

    def __post_init__(self) -> None:
        for name in ("eta", "eta_measured"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be between 0 and 1")

    def steps(self, solver: Solver) -> Solver:
        return SpectralSteps(
            method=self, eta=self.eta, eta_measured=self.eta_measured, denoise=solver.denoise
        )


class Row(NamedTuple, Generic[N]):
    """A step of the grid: its number, its first time, and the levels between which it leads."""

    number: N
    t: N
    start: Level[N]
    end: Level[N]


@dataclass(frozen=True, kw_only=True)
class SpectralSteps(MeasuredSolver):
    """The steps of ``DDRM``, in ``x / alpha``, whose noise is ``sigma / alpha``."""

    eta: float
    eta_measured: float

    @property
    def evaluations(self) -> int:
        return 1

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        at, n = marginals(sde, times), len(times) - 1
        start, end = (Level(at.alpha[part], at.sigma[part]) for part in (slice(None, n), slice(1, None)))
        real = coefficients((at.t[:n], start, end))
        return make_plan(Row(np.arange(n, dtype=np.int32), *real), times)

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        given = self.measurement
        first = Level(plan.rows.start.alpha[0], plan.rows.start.sigma[0])
        return impose(self.method.operator, x, first, noise(1), given, given[NOISE_STD])

    def step(
        self, denoise: Denoise, x: Array, row: Row[Array], history: tuple, noise: Noise
    ) -> tuple[Array, tuple]:
        operator, given = self.method.operator, self.measurement
        level, before = row.end.sigma / row.end.alpha, row.start.sigma / row.start.alpha
        own = expand(given[NOISE_STD], given[MEASURED])
        keep = float(np.sqrt(1.0 - self.eta**2))

        def measured_well(eigenvalues: Array) -> Array:
            return level**2 * eigenvalues >= own**2

        def weight(eigenvalues: Array) -> Array:
            poor = keep * level * jnp.sqrt(eigenvalues) / jnp.maximum(own, 1e-12)
            return jnp.where(measured_well(eigenvalues), self.eta_measured, poor)

        def spread(eigenvalues: Array) -> Array:
            rest = level**2 - (self.eta_measured * own) ** 2 / eigenvalues
            return jnp.where(measured_well(eigenvalues), jnp.sqrt(jnp.maximum(rest, 0.0)), self.eta * level)

        x0, z = denoise(x, row.t).x0, noise(2 + row.number)
        free = keep * level / before * (x / row.start.alpha - x0) + self.eta * level * z
        free = free - operator.of_seen(jnp.ones_like, free, given)
        seen = operator.back(weight, given[MEASURED] - operator.apply(x0, given), given)
        return row.end.alpha * (x0 + free + seen + operator.of_seen(spread, z, given)), history

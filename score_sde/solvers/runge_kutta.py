"""Runge-Kutta methods for the probability-flow ODE, with the churn of EDM (arXiv:2206.00364, algorithm 2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from score_sde.config import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals, times_at
from score_sde.solvers.table import PREDICTIONS, Rows, TableSolver


class Tableau(NamedTuple):
    """Butcher's: stage ``j`` lies at ``c_j`` and starts from the slopes before it, weighted by ``a_j``."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


EULER = Tableau((0.0,), ((),), (1.0,))
RK4_TABLEAU = Tableau(
    (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)


def second_order(alpha: float) -> Tableau:
    """The two-stage methods of order 2 (arXiv:2206.00364, appendix D.2): 1 is Heun, 1/2 the midpoint rule."""
    return Tableau((0.0, alpha), ((), (alpha,)), (1.0 - 0.5 / alpha, 0.5 / alpha))


class Frame(NamedTuple):
    """The variables in which the ODE is integrated: ``x = scale y``, ``dy / dw = prediction``."""

    prediction: str
    scale: Callable[[Marginals], np.ndarray]
    variable: Callable[[Marginals], np.ndarray]


def _at_times(sde: SDE, w: np.ndarray, at: Marginals, to: Marginals) -> Marginals:
    return marginals(sde, w)


def _at_levels(sde: SDE, w: np.ndarray, at: Marginals, to: Marginals) -> Marginals:
    """The process where ``rho`` is ``w``, between two times whose values are kept to the last bit."""
    times = times_at(sde, -np.log(w), float(to.t), float(at.t))
    times = np.where(w == at.rho, at.t, np.where(w == to.rho, to.t, times))
    return marginals(sde, times)


FRAMES: dict[str, tuple[Frame, Callable[..., Marginals]]] = {
    "t": (Frame("velocity", lambda at: np.ones_like(at.t), lambda at: np.asarray(at.t)), _at_times),
    "rho": (Frame("noise", lambda at: np.asarray(at.alpha), lambda at: at.rho), _at_levels),
}


def raised(sde: SDE, at: Marginals, factor: float) -> Marginals:
    """The process where the noise level ``sigma / alpha`` is ``factor`` times that at ``at``; at most infinite
    times, or ``t_max`` for a process that ends there."""
    target, high = float(at.lam) - math.log(factor), float(at.t)
    for _ in range(64):
        if not marginals(sde, np.array([high])).lam[0] > target:
            break
        high *= 2.0
    if not np.isfinite(marginals(sde, np.array([high])).lam[0]):
        high = max(sde.t_max, float(at.t))
    return marginals(sde, times_at(sde, np.array([target]), float(at.t), high)).pick(0)


@dataclass(frozen=True, kw_only=True)
class Churned(TableSolver):
    """A deterministic one-step method that adds noise before each step and removes it within.

    Attributes:
      s_churn: noise in all, shared by the steps: the level grows by ``min(s_churn / steps, sqrt(2) - 1)``.
      s_min, s_max: levels ``sigma / alpha`` between which that happens.
      s_noise: factor of the noise.
    """

    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.s_churn < 0 or self.s_noise < 0 or not 0 <= self.s_min <= self.s_max:
            raise ValueError(
                "need s_churn >= 0, s_noise >= 0 and 0 <= s_min <= s_max, got "
                f"{self.s_churn}, {self.s_noise}, {self.s_min} and {self.s_max}"
            )

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        steps = len(path.t) - 1
        gamma = min(self.s_churn / steps, math.sqrt(2.0) - 1.0)
        for i in range(steps):
            at, to = path.pick(i), path.pick(i + 1)
            if gamma > 0 and self.s_min <= at.rho <= self.s_max:
                hat = raised(sde, at, 1.0 + gamma)
                spread = hat.alpha * np.sqrt(hat.rho**2 - at.rho**2) * self.s_noise
                rows.lift(hat.alpha / at.alpha, spread, i + 1)
                at = hat
            self.write_step(sde, at, to, rows, i + 1)

    def write_step(self, sde: SDE, at: Marginals, to: Marginals, rows: Rows, draw: int) -> None:
        """The rows of one step, whose noise has the number ``draw``."""
        raise NotImplementedError


def write_tableau(sde: SDE, at: Marginals, to: Marginals, rows: Rows, tableau: Tableau, space: str) -> None:
    """Fill in one Runge-Kutta step; a step to no noise is Euler's, which needs no evaluation there."""
    frame, locate = FRAMES[space]
    c, a, b = EULER if to.sigma == 0 else tableau
    start, end = float(frame.variable(at)), float(frame.variable(to))
    width = end - start
    stages = locate(
        sde, np.array([start if x == 0.0 else end if x == 1.0 else start + x * width for x in c]), at, to
    )
    scales, unit = frame.scale(stages), float(frame.scale(at))
    for j in range(len(c)):
        last = j + 1 == len(c)
        scale = float(frame.scale(to)) if last else float(scales[j + 1])
        slopes = b if last else a[j + 1]
        rows.add(
            float(stages.t[j]),
            PREDICTIONS[frame.prediction](sde, stages.pick(j)),
            anchor=scale / unit,
            weights=[scale * width * w for w in reversed(slopes)],
            opens=j == 0,
            closes=last,
        )


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Churned):
    """An explicit Runge-Kutta method on the probability-flow ODE.

    Attributes:
      space: ``t``: dx/dt (arXiv:2011.13456, eq. 13); ``rho``: d(x/alpha) / d(sigma/alpha), the same for EDM's
        process.
    """

    space: str = "t"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in FRAMES:
            raise ValueError(
                f"space = {self.space!r} is not one of: {', '.join(FRAMES)}{nearest(self.space, FRAMES)}"
            )

    @property
    def tableau(self) -> Tableau:
        """The method's coefficients."""
        raise NotImplementedError

    @property
    def evaluations(self) -> int:
        return len(self.tableau.c)

    def write_step(self, sde: SDE, at: Marginals, to: Marginals, rows: Rows, draw: int) -> None:
        write_tableau(sde, at, to, rows, self.tableau, self.space)


@dataclass(frozen=True, kw_only=True)
class Euler(RungeKutta):
    """Euler's method; with ``space = rho`` it is DDIM."""

    @property
    def tableau(self) -> Tableau:
        return EULER


@dataclass(frozen=True, kw_only=True)
class Heun(RungeKutta):
    """Heun's method, EDM's sampler (arXiv:2206.00364, algorithms 1 and 2), and its relatives.

    Attributes:
      stage: where the second evaluation lies, as a share of the step; 1 is Heun's, 2/3 Ralston's.
    """

    stage: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.stage <= 1:
            raise ValueError(f"stage = {self.stage}: must be in (0, 1]")

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def tableau(self) -> Tableau:
        return second_order(self.stage)


@dataclass(frozen=True, kw_only=True)
class Midpoint(RungeKutta):
    """The midpoint rule."""

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def tableau(self) -> Tableau:
        return second_order(0.5)


@dataclass(frozen=True, kw_only=True)
class RK4(RungeKutta):
    """The classical method of order 4."""

    @property
    def accuracy(self) -> float:
        return 4

    @property
    def tableau(self) -> Tableau:
        return RK4_TABLEAU


RUNGE_KUTTA = {"euler": Euler, "heun": Heun, "midpoint": Midpoint, "rk4": RK4}

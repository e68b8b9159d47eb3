"""Runge-Kutta methods for the probability-flow ODE, with the churn of EDM (arXiv:2206.00364, algorithm 2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from score_sde.integrate.tableaus import CLASSICAL, EULER, Tableau, second_order
from score_sde.names import ReadIf, nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals, times_at
from score_sde.solvers.table import PREDICTIONS, Prediction, Rows, TableSolver


class Frame(NamedTuple):
    """The variables in which the ODE is integrated: ``x = scale y``, ``dy / dw = prediction``."""

    prediction: str
    scale: Callable[[Marginals], np.ndarray]
    variable: Callable[[Marginals], np.ndarray]
    time: Callable[[SDE, np.ndarray, float], np.ndarray]


FRAMES: dict[str, Frame] = {
    "t": Frame("velocity", lambda at: np.ones_like(at.t), lambda at: at.t, lambda sde, w, top: w),
    "rho": Frame(
        "noise",
        lambda at: at.alpha,
        lambda at: at.rho,
        lambda sde, w, top: times_at(sde, -np.log(w), 0.0, top),
    ),
}


def raised(sde: SDE, at: Marginals, factor: float) -> Marginals:
    """The process where the noise level ``sigma / alpha`` is ``factor`` times that at ``at`` ``(n,)``.

    Times beyond ``t_max`` are taken where the process is defined there; where it ends, the level is the last.
    """
    target, high = at.lam - math.log(factor), float(np.max(at.t))
    for _ in range(64):
        if not marginals(sde, np.array([high])).lam[0] > target.min():
            break
        high *= 2.0
    if not np.isfinite(marginals(sde, np.array([high])).lam[0]):
        high = max(sde.t_max, float(np.max(at.t)))
    return marginals(sde, times_at(sde, target, float(np.min(at.t)), high))


class Churn(NamedTuple):
    """EDM's noise before each step.  The fields are described in ``Churned``."""

    s_churn: float
    s_min: float
    s_max: float

    def apply(self, sde: SDE, at: Marginals) -> tuple[Marginals, list[tuple[float, float] | None]]:
        """Where the steps start after the noise, and how to get there: ``gain x + noise z``, or None."""
        gamma = min(self.s_churn / len(at.t), math.sqrt(2.0) - 1.0)
        noisy = (at.rho >= self.s_min) & (at.rho <= self.s_max) & (gamma > 0)
        if not noisy.any():
            return at, [None] * len(at.t)
        hat = raised(sde, at, 1.0 + gamma)
        hat = Marginals(*(np.where(noisy, new, old) for new, old in zip(hat, at, strict=True)))
        spread = hat.alpha * np.sqrt(hat.rho**2 - at.rho**2)
        gain = hat.alpha / at.alpha
        return hat, [
            (float(g), float(c)) if on else None for g, c, on in zip(gain, spread, noisy, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Churned(TableSolver):
    """A deterministic one-step method that adds noise before each step and removes it within.

    Attributes:
      s_churn: noise in all, shared by the steps: the level grows by ``min(s_churn / steps, sqrt(2) - 1)``.
      s_min, s_max: levels ``sigma / alpha`` between which that happens.
    """

    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    read_if: ClassVar[ReadIf] = {"s_min": ("s_churn", bool), "s_max": ("s_churn", bool)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s_churn < 0 or not 0 <= self.s_min <= self.s_max:
            raise ValueError(
                "need s_churn >= 0 and 0 <= s_min <= s_max, got "
                f"{self.s_churn}, {self.s_min} and {self.s_max}"
            )

    @property
    def churn(self) -> Churn:
        """The noise before each step."""
        return Churn(self.s_churn, self.s_min, self.s_max)


def write_tableau(
    sde: SDE,
    at: Marginals,
    to: Marginals,
    rows: Rows,
    tableau: Tableau,
    space: str,
    lifts: list[tuple[float, float] | None] | None = None,
) -> None:
    """Fill in Runge-Kutta steps from ``at`` to ``to``, ``(n,)`` each.

    A step to no noise is Euler's, which needs no evaluation there.

    Args:
      lifts: noise before each step, see ``Churn.apply``.
    """
    frame, count = FRAMES[space], len(at.t)
    start, end = frame.variable(at)[:, None], frame.variable(to)[:, None]
    c = np.array(tableau.c)
    stage_w = start + c * (end - start)
    times = frame.time(sde, stage_w.ravel(), float(np.max(at.t))).reshape(count, -1)
    times = np.where(c == 0.0, at.t[:, None], np.where(c == 1.0, to.t[:, None], times))
    stages = marginals(sde, times.ravel())
    predictions = PREDICTIONS[frame.prediction](sde, stages)
    of_x0, of_noise = (np.broadcast_to(p, times.size).reshape(times.shape) for p in predictions)
    scales, units, ends = frame.scale(stages).reshape(times.shape), frame.scale(at), frame.scale(to)
    widths = (end - start)[:, 0]
    for i in range(count):
        lift = lifts[i] if lifts else None
        if lift is not None:
            rows.lift(*lift, i + 1)
        _, a, b = EULER if to.sigma[i] == 0 else tableau
        for j in range(len(a)):
            last = j + 1 == len(a)
            scale = ends[i] if last else scales[i, j + 1]
            slopes = b if last else a[j + 1]
            rows.add(
                times[i, j],
                Prediction(of_x0[i, j], of_noise[i, j]),
                anchor=scale / units[i],
                weights=[scale * widths[i] * w for w in reversed(slopes)],
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

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        at, lifts = self.churn.apply(sde, path.pick(slice(-1)))
        write_tableau(sde, at, path.pick(slice(1, None)), rows, self.tableau, self.space, lifts)


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
      stage: where the second evaluation is, as a share of the step; 1 is Heun's, 2/3 Ralston's.
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
        return CLASSICAL


RUNGE_KUTTA = {"euler": Euler, "heun": Heun, "midpoint": Midpoint, "rk4": RK4}

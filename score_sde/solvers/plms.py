"""PNDM: Adams-Bashforth on the noise after a start by a one-step method (arXiv:2202.09778, section 3.3)."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals
from score_sde.solvers.published import ADAMS_BASHFORTH
from score_sde.solvers.table import Rows, TableSolver, predict_noise


@dataclass(frozen=True, kw_only=True)
class AdamsAfterStart(TableSolver):
    """Weights of equal steps on any grid, like ``IPNDM``, after a start that takes more evaluations.

    Of order 2 on a smooth grid, of order 4 only on one with equal steps in sigma / alpha.

    Attributes:
      start_steps: steps of the start.
    """

    start_steps: ClassVar[int]

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def evaluations(self) -> int:
        return 1

    @abc.abstractmethod
    def start(self, sde: SDE, at: Marginals, to: Marginals, rows: Rows) -> None:
        """Fill in one step of the start, which ends with noise."""

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        places = []  # the row at which each step begins
        for i in range(len(path.t) - 1):
            at, to = path.pick(i), path.pick(i + 1)
            places.append(rows.count)
            if i < self.start_steps and to.sigma > 0:
                self.start(sde, at, to, rows)
                continue
            past = places[::-1][:4]
            weights = np.zeros(places[-1] - past[-1] + 1)
            weights[places[-1] - np.array(past)] = ADAMS_BASHFORTH[len(past) - 1]
            scale = to.alpha * (to.rho - at.rho)
            rows.add(at.t, predict_noise(sde, at), x=to.alpha / at.alpha, weights=scale * weights)


def transfer(
    sde: SDE,
    at: Marginals,
    to: Marginals,
    stages: tuple[tuple[Marginals, Marginals, tuple[float, ...]], ...],
    rows: Rows,
) -> None:
    """Fill in one step from ``at`` to ``to``: stages that move from its start by a mean of the noises so far.

    Args:
      stages: where each evaluates, where it goes to, and the weights of the noises, newest first.
    """
    for j, (here, there, weights) in enumerate(stages):
        scale = there.alpha * (there.rho - at.rho)
        rows.add(
            here.t,
            predict_noise(sde, here),
            anchor=there.alpha / at.alpha,
            weights=scale * np.array(weights),
            opens=j == 0,
            closes=j + 1 == len(stages),
        )


@dataclass(frozen=True, kw_only=True)
class PLMS(AdamsAfterStart):
    """Pseudo linear multistep; its first step is the improved Euler method, one evaluation more."""

    start_steps = 1

    def start(self, sde: SDE, at: Marginals, to: Marginals, rows: Rows) -> None:
        transfer(sde, at, to, ((at, to, (1.0,)), (to, to, (0.5, 0.5))), rows)


@dataclass(frozen=True, kw_only=True)
class PNDM(AdamsAfterStart):
    """The same after three steps with the weights of Runge and Kutta, nine evaluations more (eq. 13)."""

    start_steps = 3

    def start(self, sde: SDE, at: Marginals, to: Marginals, rows: Rows) -> None:
        middle = marginals(sde, np.array([0.5 * (at.t + to.t)])).pick(0)
        last = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
        transfer(
            sde,
            at,
            to,
            ((at, middle, (1.0,)), (middle, middle, (1.0,)), (middle, to, (1.0,)), (to, to, last)),
            rows,
        )

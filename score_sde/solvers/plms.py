"""PLMS: Adams-Bashforth on the noise, with a better first step (arXiv:2202.09778, section 3.3)."""

from dataclasses import dataclass

import numpy as np

from score_sde.sde import SDE
from score_sde.solvers.base import Marginals
from score_sde.solvers.published import ADAMS_BASHFORTH
from score_sde.solvers.table import Rows, TableSolver, predict_noise


@dataclass(frozen=True, kw_only=True)
class PLMS(TableSolver):
    """Pseudo linear multistep: the weights of equal steps on any grid, like ``IPNDM``; its first step is the
    improved Euler method, which costs one evaluation more.

    Of order 2 on a smooth grid, of order 4 only on one with equal steps in sigma / alpha.
    """

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def evaluations(self) -> int:
        return 1

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        at, to = path.pick(slice(-1)), path.pick(slice(1, None))
        carry, scale = to.alpha / at.alpha, to.alpha * (to.rho - at.rho)
        again = bool(to.sigma[0] > 0)  # a step to no noise has no second evaluation
        first = predict_noise(sde, at.pick(0))
        rows.add(at.t[0], first, x=carry[0], weights=[scale[0]], closes=not again)
        if again:
            second, half = predict_noise(sde, to.pick(0)), 0.5 * scale[0]
            rows.add(to.t[0], second, anchor=carry[0], weights=[half, half], opens=False)
        for i in range(1, len(at.t)):
            weights = scale[i] * np.array(ADAMS_BASHFORTH[min(i, 3)])
            if i <= 3:  # between the newer predictions and the first lies that of the first step's end
                weights = np.insert(weights, i, 0.0)
            rows.add(at.t[i], predict_noise(sde, at.pick(i)), x=carry[i], weights=weights)

"""Reverse-SDE methods of two evaluations a step, and restarts."""

from dataclasses import dataclass

import numpy as np

from score_sde.integrate.tableaus import second_order
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals, on_host, times_at
from score_sde.solvers.predictors import transition
from score_sde.solvers.runge_kutta import write_tableau
from score_sde.solvers.singlestep import between, split
from score_sde.solvers.table import X0, Prediction, Rows, TableSolver


@dataclass(frozen=True, kw_only=True)
class DPMppSDE(TableSolver):
    """SDE-DPM-Solver++, singlestep with two evaluations, "DPM++ SDE" (arXiv:2211.01095, appendix).

    A step goes to the middle in log-SNR, with noise of its own, and then from the start to the end.

    Attributes:
      eta: noise; 1 is the reverse SDE.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta < 0:
            raise ValueError(f"eta = {self.eta}: must be 0 or more")

    @property
    def accuracy(self) -> float:
        return 1 if self.eta else 2

    @property
    def evaluations(self) -> int:
        return 2

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        at, to = path.pick(slice(-1)), path.pick(slice(1, None))
        middle = between(sde, at, to, (0.5,)).pick((slice(None), 0))
        first, first_up = split(at, middle, self.eta)
        down, up = split(at, to, self.eta)
        # With the middle at half the step the second prediction gets all the weight.
        first_carry, carry = first.sigma / at.sigma, down.sigma / at.sigma
        first_weight, weight = first.alpha - first_carry * at.alpha, down.alpha - carry * at.alpha
        for i in range(len(at.t)):
            if to.sigma[i] == 0:
                rows.add(at.t[i], X0, weights=[to.alpha[i]])
                continue
            rows.add(
                at.t[i],
                X0,
                anchor=first_carry[i],
                weights=[first_weight[i]],
                noise=first_up[i],
                draw=2 * i + 1,
                closes=False,
            )
            rows.add(
                middle.t[i],
                X0,
                anchor=carry[i],
                weights=[weight[i]],
                noise=up[i],
                draw=2 * i + 2,
                opens=False,
            )


@dataclass(frozen=True, kw_only=True)
class StochasticHeun(TableSolver):
    """Heun's method on the reverse SDE, of weak order 2 (Kloeden & Platen 1992, section 15.1).

    Both evaluations see the same increment, whose variance is the integral of ``g^2`` over the step.

    Attributes:
      noise_scale: factor of the noise; 1 is the reverse SDE (arXiv:2011.13456, eq. 6), 0 the flow.
    """

    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_scale < 0:
            raise ValueError(f"noise_scale = {self.noise_scale}: must be 0 or more")

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def evaluations(self) -> int:
        return 2

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        f, square = on_host(sde.drift, path.t), on_host(sde.diffusion, path.t) ** 2
        # f x - (1 + noise_scale^2) / 2 g^2 score, with x and the score in terms of x0 and the noise
        of_x0 = f * path.alpha
        of_noise = f * path.sigma + 0.5 * (1.0 + self.noise_scale**2) * square / path.sigma
        points, weights = np.polynomial.legendre.leggauss(8)
        for i in range(len(path.t) - 1):
            t, s = float(path.t[i]), float(path.t[i + 1])
            inside = 0.5 * (t + s) + 0.5 * (t - s) * points
            variance = 0.5 * (t - s) * np.sum(weights * on_host(sde.diffusion, inside) ** 2)
            noise, draw = self.noise_scale * np.sqrt(variance), i + 1
            slope = Prediction(float(of_x0[i]), float(of_noise[i]))
            if path.sigma[i + 1] == 0:
                rows.add(t, X0, weights=[path.alpha[i + 1]])
                continue
            rows.add(t, slope, anchor=1.0, weights=[s - t], noise=noise, draw=draw, closes=False)
            slope = Prediction(float(of_x0[i + 1]), float(of_noise[i + 1]))
            half = 0.5 * (s - t)
            rows.add(s, slope, anchor=1.0, weights=[half, half], noise=noise, draw=draw, opens=False)


@dataclass(frozen=True, kw_only=True)
class Restart(TableSolver):
    """Restart sampling (Xu et al. 2023, arXiv:2306.14878, algorithm 1): Heun's method, and between two noise
    levels some times over, with fresh noise before each.

    Attributes:
      restarts: how often to go back.
      restart_steps: steps of each return, evenly in sigma^(1/7).
      restart_min, restart_max: levels ``sigma / alpha`` between which that happens; the restart begins at the
        first time of the grid below ``restart_min`` (0.06 and 0.3 in the paper, for CIFAR-10).
    """

    restarts: int = 2
    restart_steps: int = 4
    restart_min: float = 0.06
    restart_max: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 0 or self.restart_steps < 1 or not 0 < self.restart_min < self.restart_max:
            raise ValueError(
                "need restarts >= 0, restart_steps >= 1 and 0 < restart_min < restart_max, got "
                f"{self.restarts}, {self.restart_steps}, {self.restart_min} and {self.restart_max}"
            )

    @property
    def accuracy(self) -> float:
        return 2

    @property
    def evaluations(self) -> int:
        return 2

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        inside = np.flatnonzero((path.rho[1:] <= self.restart_min) & (path.sigma[1:] > 0))
        first = int(inside[0]) + 1 if len(inside) else len(path.t) - 1
        self._heun(sde, path.pick(slice(first + 1)), rows)
        if len(inside) and path.rho[0] > self.restart_max:
            self._restart(sde, path.pick(first), float(path.t[0]), rows)
        self._heun(sde, path.pick(slice(first, None)), rows)

    def _heun(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        if len(path.t) > 1:
            at, to = path.pick(slice(-1)), path.pick(slice(1, None))
            write_tableau(sde, at, to, rows, second_order(1.0), "rho")

    def _restart(self, sde: SDE, low: Marginals, top: float, rows: Rows) -> None:
        count = self.restart_steps
        levels = np.linspace(self.restart_max ** (1 / 7), float(low.rho) ** (1 / 7), count + 1) ** 7
        times = times_at(sde, -np.log(levels), float(low.t), top)
        times[-1] = low.t
        path = marginals(sde, times)
        jump = transition(path.pick(0), low)
        for k in range(self.restarts):
            rows.lift(float(jump.retention), float(np.sqrt(jump.variance)), k + 1)
            self._heun(sde, path, rows)


STOCHASTIC = {"dpmpp_sde": DPMppSDE, "stochastic_heun": StochasticHeun, "restart": Restart}

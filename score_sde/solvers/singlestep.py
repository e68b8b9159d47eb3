"""DPM-Solver and DPM-Solver++ with several evaluations a step, and their ancestral forms.

Between ``t`` and ``s`` the prediction is evaluated at one or two further nodes, at shares ``r`` of the step
in log-SNR (arXiv:2206.00927, algorithms 1 and 2; arXiv:2211.01095, algorithm 1).  Units as in ``published``.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from score_sde.names import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals, times_at
from score_sde.solvers.published import phis
from score_sde.solvers.runge_kutta import Churned
from score_sde.solvers.table import PREDICTIONS, X0, Rows

SHARES = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


def split(at: Marginals, to: Marginals, eta: float) -> tuple[Marginals, np.ndarray]:
    """An ancestral step's two halves: the level to go down to, and the noise to come back up with.

    ``rho_up^2 = eta^2 rho_s^2 (1 - rho_s^2 / rho_t^2)`` (arXiv:2010.02502, eq. 16), at most ``rho_s^2``.
    """
    up = np.minimum(to.rho, eta * np.sqrt(to.rho**2 * (at.rho**2 - to.rho**2)) / at.rho)
    down = to._replace(sigma=to.alpha * np.sqrt(to.rho**2 - up**2))
    return down, to.alpha * up


def _slopes(prediction: str, form: str, z: float, r: tuple[float, ...]) -> np.ndarray:
    """Weights of the predictions at shares ``0, r...`` over a whole step of exponent ``z``."""
    phi_1, phi_2, phi_3 = phis(z, 3)
    if not r:
        return np.array([phi_1])
    if len(r) == 1:
        slope = (phi_2 if form == "taylor" else 0.5 * phi_1) / r[0]
        return np.array([phi_1 - slope, slope])
    if form != "taylor":
        slope = phi_2 / r[1]
        return np.array([phi_1 - slope, 0.0, slope])
    near, far = np.array([-1.0, 1.0, 0.0]) / r[0], np.array([-1.0, 0.0, 1.0]) / r[1]
    rise = (r[1] * near - r[0] * far) / (r[1] - r[0])
    curve = 2.0 * (far - near) / (r[1] - r[0])
    return np.array([phi_1, 0.0, 0.0]) + phi_2 * rise + phi_3 * curve


def _inner(z: float, r: tuple[float, ...], j: int, form: str) -> np.ndarray:
    """Weights for the stage at ``r_j``: first order to the first node, linear to the second."""
    if j == 0:
        return np.array([phis(z * r[0], 1)[0]])
    phi_1, phi_2 = phis(z * r[1], 2)
    slope = (phi_2 if form == "taylor" else 0.5 * phi_1) * r[1] / r[0]
    return np.array([phi_1 - slope, slope])


def write_step(
    sde: SDE,
    at: Marginals,
    to: Marginals,
    nodes: Marginals,
    rows: Rows,
    *,
    prediction: str,
    form: str,
    inner: str,
    noise: float = 0.0,
    draw: int = 1,
) -> None:
    """Fill in one step from ``at`` to the level of ``to`` with stages at ``nodes``, noise at its end."""
    if to.sigma == 0 or len(nodes.t) == 0:
        carry = to.sigma / at.sigma
        rows.add(at.t, X0, x=carry, weights=[to.alpha - carry * at.alpha], noise=noise, draw=draw)
        return
    h = float(to.lam - at.lam)
    r = tuple((nodes.lam - at.lam) / h)
    z = -h if prediction == "x0" else h
    stages = [at, *(nodes.pick(j) for j in range(len(r)))]
    for j, stage in enumerate(stages):
        last = j == len(r)
        target = to if last else stages[j + 1]
        weights = _slopes(prediction, form, z, r) if last else _inner(z, r, j, inner)
        x0 = prediction == "x0"
        carry, scale = (
            (target.sigma / at.sigma, target.alpha) if x0 else (target.alpha / at.alpha, target.sigma)
        )
        rows.add(
            float(stage.t),
            PREDICTIONS[prediction](sde, stage),
            anchor=carry,
            weights=-scale * weights[::-1],
            noise=noise if last else 0.0,
            draw=draw,
            opens=j == 0,
            closes=last,
        )


def between(sde: SDE, at: Marginals, to: Marginals, shares: tuple[float, ...]) -> Marginals:
    """The process at shares of steps in log-SNR: ``(n,)`` each to ``(n, k)``.

    A step that ends without noise has no middle; its entries are of time 0 and not to be used.
    """
    length = np.where(to.sigma > 0, to.lam - at.lam, np.inf)
    lam = at.lam[:, None] + np.array(shares) * length[:, None]
    nodes = marginals(sde, times_at(sde, lam.ravel(), 0.0, float(np.max(at.t))))
    return Marginals(*(column.reshape(lam.shape) for column in nodes))


@dataclass(frozen=True, kw_only=True)
class SingleStep(Churned):
    """DPM-Solver of order 2 or 3, each step from its start only.

    Attributes:
      eta: ancestral noise after each step; 0 none, 1 as much as the reverse SDE.
      stages: where the inner evaluations are: ``log_snr``, evenly in log-SNR within each step of the grid;
        ``grid``, at the grid's own points, so that a step takes several of its intervals, and the grid has as
        many intervals as there are evaluations (the published way); or ``even``, as many evaluations, in
        steps that are even in log-SNR between the grid's ends ("DPM-Solver-fast").
      form: ``midpoint``, or ``taylor``, which is the exact integral.
      inner: the same for the third evaluation's place.
    """

    prediction: ClassVar[str]
    order: ClassVar[int]

    eta: float = 0.0
    stages: str = "log_snr"
    form: str = "midpoint"
    inner: str = "taylor"

    def __post_init__(self) -> None:
        super().__post_init__()
        forms = ("midpoint", "taylor")
        for name, table in (("stages", ("log_snr", "grid", "even")), ("form", forms), ("inner", forms)):
            value = getattr(self, name)
            if value not in table:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(table)}{nearest(value, table)}"
                )
        if (
            self.eta < 0
            or (self.eta and self.s_churn)
            or (self.stages != "log_snr" and (self.eta or self.s_churn))
        ):
            raise ValueError(
                f"eta = {self.eta} and s_churn = {self.s_churn}: eta must be 0 or more, not both can be on, "
                f"and neither with stages = {self.stages!r}"
            )

    @property
    def accuracy(self) -> float:
        return self.order

    @property
    def evaluations(self) -> int:
        return self.order if self.stages == "log_snr" else 1

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        step = partial(write_step, prediction=self.prediction, form=self.form, inner=self.inner)
        if self.stages != "log_snr":
            parts, i = orders(len(path.t) - 1, self.order), 0
            if self.stages == "even":
                path = spread(sde, path, parts)
            if path.sigma[-1] == 0 and parts[-1] > 1:  # the step to no noise has one evaluation
                parts = [*parts[:-1], parts[-1] - 1, 1]
            for order in parts:
                nodes = path.pick(slice(i + 1, i + order))
                step(sde, path.pick(i), path.pick(i + order), nodes, rows)
                i += order
            return
        at, lifts = self.churn.apply(sde, path.pick(slice(-1)))
        to, up = path.pick(slice(1, None)), np.zeros(len(at.t))
        if self.eta:
            to, up = split(at, to, self.eta)
        nodes = between(sde, at, to, SHARES[self.order])
        for i, lift in enumerate(lifts):
            if lift is not None:
                rows.lift(*lift, i + 1)
            inner = nodes.pick(i)
            step(sde, at.pick(i), to.pick(i), inner, rows, noise=float(up[i]), draw=i + 1)


def spread(sde: SDE, path: Marginals, parts: list[int]) -> Marginals:
    """Between the ends of a path steps that are even in log-SNR, each with its ``parts`` even within it.

    Raises:
      ValueError: an end has no finite log-SNR.
    """
    ends = path.lam[[0, -1]]
    if not np.all(np.isfinite(ends)):
        raise ValueError("stages = 'even': the grid starts where alpha > 0, and ends where sigma > 0")
    shares = [i + j / part for i, part in enumerate(parts) for j in range(1, part + 1)]
    lam = ends[0] + (ends[1] - ends[0]) * np.array(shares[:-1]) / len(parts)
    inner = times_at(sde, lam, float(path.t[-1]), float(path.t[0]))
    return marginals(sde, np.concatenate([path.t[:1], inner, path.t[-1:]]))


def orders(evaluations: int, order: int) -> list[int]:
    """How DPM-Solver shares evaluations out among its steps (arXiv:2206.00927, section 3.4)."""
    count, left = divmod(evaluations, order)
    if order == 3 and left == 0:
        return [3] * (count - 1) + [2, 1]
    return [order] * count + ([left] if left else [])


@dataclass(frozen=True, kw_only=True)
class DPM2S(SingleStep):
    """DPM-Solver-2 (arXiv:2206.00927, algorithm 1); with ``eta`` the ancestral "DPM2 a"."""

    prediction: ClassVar[str] = "noise"
    order: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True)
class DPM3S(SingleStep):
    """DPM-Solver-3 (arXiv:2206.00927, algorithm 2)."""

    prediction: ClassVar[str] = "noise"
    order: ClassVar[int] = 3


@dataclass(frozen=True, kw_only=True)
class DPMpp2S(SingleStep):
    """DPM-Solver++ (2S) (arXiv:2211.01095, algorithm 1); ``eta`` makes it "DPM++ 2S a"."""

    prediction: ClassVar[str] = "x0"
    order: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True)
class DPMpp3S(SingleStep):
    """DPM-Solver++ (3S), from its code."""

    prediction: ClassVar[str] = "x0"
    order: ClassVar[int] = 3


SINGLESTEP = {"dpm_2s": DPM2S, "dpm_3s": DPM3S, "dpmpp_2s": DPMpp2S, "dpmpp_3s": DPMpp3S}

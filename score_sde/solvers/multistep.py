"""Multistep methods: one formula, planned on the host (Zhang & Chen 2023, arXiv:2204.13902, eq. 14;
Lu et al. 2022, arXiv:2211.01095, eq. 9; Zhao et al. 2023, arXiv:2302.04867).

With ``lam = log(alpha / sigma)``, ``rho = sigma / alpha``, ``h = lam_s - lam_t`` and noise rate ``tau`` the
reverse SDE from ``t`` to ``s`` is solved up to an integral over the prediction:

    x_s = (sigma_s/sigma_t) e^{-tau h} x_t + sigma_s int (1+tau) e^{lam - tau (lam_s - lam)} D dlam + noise
    x_s = (alpha_s/alpha_t) x_t + alpha_s (1+tau) int eps drho + noise
    x_s = x_t + int velocity dt

A multistep method puts a polynomial through past predictions into it; a corrector the polynomial that goes
through the prediction at ``s`` as well.  That one is known at the next step only, which begins with the
difference: a corrector is a change of weights, and costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from score_sde.names import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Marginals, marginals
from score_sde.solvers.published import FORMS, Form, Span
from score_sde.solvers.quadrature import lagrange_integrals
from score_sde.solvers.table import PREDICTIONS, WIDTH, X0, Prediction, Rows, Scalar

# How eta becomes the share of the old noise that a step keeps, e^{-tau h}.


def keep_ddim(eta: float, h: float) -> float:
    """``1 - e^{-2 tau h} = eta^2 (1 - e^{-2h})``: DDIM's eta (arXiv:2010.02502, eq. 16)."""
    return float(np.sqrt((1.0 - eta**2) + eta**2 * np.exp(-2.0 * h))) if eta else 1.0


def keep_rate(eta: float, h: float) -> float:
    """``tau = eta``, as in SDE-DPM-Solver++ (arXiv:2211.01095, section 5)."""
    return float(np.exp(-eta * h)) if eta else 1.0


NOISE_RULES: dict[str, Callable[[float, float], float]] = {"ddim": keep_ddim, "rate": keep_rate}


class Move(NamedTuple):
    """One move from ``t`` to ``s``: ``carry x + sum_j weights_j m_j + noise z``."""

    carry: Scalar
    weights: np.ndarray
    noise: Scalar


class Step(NamedTuple):
    """A step of a process and what the formula needs of it.

    Attributes:
      at, to: the process at ``t`` and at ``s``, scalars.
      kept: ``e^{-tau h}``.
    """

    sde: SDE
    at: Marginals
    to: Marginals
    kept: float

    @property
    def h(self) -> float:
        """Length in ``lam``; infinite at an end without noise or without signal."""
        return float(self.to.lam - self.at.lam)

    @property
    def finite(self) -> bool:
        """Whether both ends have noise and signal."""
        return bool(np.isfinite(self.h))

    @property
    def growth(self) -> float:
        """``1 + tau``."""
        return 1.0 if self.kept == 1.0 else 1.0 - np.log(self.kept) / self.h


def first_order(step: Step) -> Move:
    """DDIM (arXiv:2010.02502, eq. 12), also from no signal and to no noise: ``m_0 = x0``."""
    at, to, kept = step.at, step.to, step.kept
    carry = to.sigma / at.sigma * kept
    return Move(carry, np.array([to.alpha - carry * at.alpha]), to.sigma * np.sqrt(1.0 - kept**2))


# The variable in which the polynomial is one, as a function of the process at some times.
BASES: dict[str, Callable[[Marginals], np.ndarray]] = {
    "lam": lambda at: at.lam,
    "rho": lambda at: at.rho,
    "t": lambda at: np.asarray(at.t),
}


def _lam_of(basis: str, sde: SDE, u: np.ndarray) -> np.ndarray:
    if basis == "lam":
        return u
    return -np.log(u) if basis == "rho" else marginals(sde, u).lam


def _rho_of(basis: str, sde: SDE, u: np.ndarray) -> np.ndarray:
    if basis == "rho":
        return u
    return np.exp(-u) if basis == "lam" else marginals(sde, u).rho


def exact_weights(step: Step, nodes: Marginals, prediction: str, basis: str) -> np.ndarray:
    """The integral above with Lagrange polynomials through ``nodes``, in their order: ``(k,)``."""
    variable = BASES[basis]
    u, start, end = variable(nodes), float(variable(step.at)), float(variable(step.to))
    sde, growth = step.sde, step.growth
    if prediction == "x0":
        end_lam = float(step.to.lam)
        scale = float(step.to.alpha)

        def measure(u: np.ndarray) -> np.ndarray:
            return np.exp(growth * (_lam_of(basis, sde, u) - end_lam))

    elif prediction == "noise":
        scale = float(step.to.alpha) * growth

        def measure(u: np.ndarray) -> np.ndarray:
            return _rho_of(basis, sde, u)

    else:
        scale = 1.0

        def measure(u: np.ndarray) -> np.ndarray:
            return u

    return scale * lagrange_integrals(u, start, end, measure)


def published_weights(
    step: Step, nodes: Marginals, prediction: str, form: Form, corrects: bool
) -> np.ndarray:
    """The weights that a paper's code has in place of the integral; nodes and result as above."""
    past = nodes.lam[1:] if corrects else nodes.lam
    ratios = (past - step.at.lam) / step.h
    if prediction == "x0":
        return -step.to.alpha * form(Span(-step.growth * step.h, ratios), corrects)
    return -step.to.sigma * step.growth * form(Span(step.h, ratios), corrects)


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a multistep method weighs its past: the arguments of the formula.

    Attributes:
      prediction: ``x0``, ``noise`` or ``velocity``.
      basis: ``lam``, ``rho`` or ``t``, for the exact form.
      form: ``exact``, or the name of published weights.
    """

    prediction: str
    basis: str
    form: str

    def __post_init__(self) -> None:
        tables = (("prediction", PREDICTIONS), ("basis", BASES), ("form", {"exact": None, **FORMS}))
        for name, table in tables:
            value = getattr(self, name)
            if value not in table:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(table)}{nearest(str(value), table)}"
                )
        if self.prediction == "velocity" and (self.basis, self.form) != ("t", "exact"):
            raise ValueError("prediction = 'velocity' has basis = 't' and form = 'exact' only")

    def predict(self, sde: SDE, at: Marginals) -> Prediction:
        """What is remembered of the evaluation at ``at``."""
        return PREDICTIONS[self.prediction](sde, at)

    def reaches(self, to: Marginals) -> bool:
        """Whether a polynomial of degree one and more can be integrated up to ``to``."""
        if self.form != "exact" or self.prediction == "x0" or self.basis == "lam":
            return bool(to.sigma > 0)
        return True

    def weights(self, step: Step, nodes: Marginals, corrects: bool = False) -> np.ndarray:
        """Weights of the predictions at ``nodes``, newest first; a corrector's include ``step.to``."""
        if self.form == "exact":
            return exact_weights(step, nodes, self.prediction, self.basis)
        return published_weights(step, nodes, self.prediction, FORMS[self.form], corrects)

    def move(self, step: Step, nodes: Marginals) -> Move:
        """The predictor through ``nodes``, newest first."""
        at, to, kept = step.at, step.to, step.kept
        weights = self.weights(step, nodes)
        if self.prediction == "x0":
            return Move(to.sigma / at.sigma * kept, weights, to.sigma * np.sqrt(1.0 - kept**2))
        if self.prediction == "velocity":
            return Move(1.0, weights, 0.0)
        spread = to.alpha * np.sqrt((step.growth - 1.0) * (at.rho**2 - to.rho**2))
        return Move(to.alpha / at.alpha, weights, spread)


def write(
    rows: Rows,
    sde: SDE,
    path: Marginals,
    method: Method,
    *,
    order: int,
    corrector: int,
    keep: Callable[[float], float],
    lower_final: bool,
) -> None:
    """Fill a table with a multistep method of ``order`` past predictions, ``corrector`` for the corrector."""
    count = len(path.t) - 1
    first = 1 if path.alpha[0] == 0 and method.prediction != "velocity" else 0  # no polynomial through it
    change = np.zeros(WIDTH)  # what the corrector adds to the weights of the next step

    def nodes(newest: int, size: int) -> Marginals:
        return path.pick(np.arange(newest, newest - size, -1))

    for i in range(count):
        at, to = path.pick(i), path.pick(i + 1)
        step = Step(sde, at, to, keep(float(to.lam - at.lam)))
        room = min(i + 1 - first, count - i) if lower_final else i + 1 - first
        size = min(order, room)
        predicted = i >= first and method.reaches(to)
        prediction = method.predict(sde, at) if predicted else X0
        move = method.move(step, nodes(i, size)) if predicted else first_order(step)
        weights = move.carry * change
        weights[: len(move.weights)] += move.weights
        rows.add(at.t, prediction, x=move.carry, weights=weights, noise=move.noise, draw=i + 1)
        change = np.zeros(WIDTH)
        if corrector and predicted and i + 1 < count:
            size = min(corrector, room)
            change[: size + 1] = method.weights(step, nodes(i + 1, size + 1), corrects=True)
            change[1 : 1 + len(move.weights)] -= move.weights

"""The weights of published multistep codes, where they are not the integral of a Lagrange polynomial.

They agree with the integral as the step shrinks, but not at the step sizes that people use.  A form gives
weights ``g`` for the predictions, newest first, in units in which the first-order method is
``g_0 = expm1(z)``: with ``z = -(1 + tau) h`` and the factor ``-alpha_s`` for x0-prediction, ``z = h`` and the
factor ``-(1 + tau) sigma_s`` for noise-prediction.
"""

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """A step as a form sees it.

    Attributes:
      z: the exponent of the step.
      ratios: ``(lam_j - lam_t) / h`` of the predictions used, newest first: 0, then negative.
    """

    z: float
    ratios: np.ndarray


# (span, whether it corrects) -> weights (k,); a corrector's have that of the end of the step in front.
Form = Callable[[Span, bool], np.ndarray]


def phis(z: float, count: int) -> list[float]:
    """``phi_1 = expm1(z)``, ``phi_{k+1} = phi_k / z - 1 / k!``, as the papers scale them."""
    if abs(z) < 1.0:  # by the series, for the recursion loses a digit with every division by a small z
        return [sum(z ** (j - k + 1) / factorial(j) for j in range(k, k + 18)) for k in range(1, count + 1)]
    values = [float(np.expm1(z))]
    for k in range(1, count):
        values.append(values[-1] / z - 1.0 / factorial(k))
    return values


def _dpm(span: Span, second: Callable[[float], float]) -> np.ndarray:
    """DPM-Solver and DPM-Solver++, multistep (arXiv:2211.01095, algorithm 2, and its code for order 3)."""
    z, r = span
    phi_1, phi_2, phi_3 = phis(z, 3)
    if len(r) == 1:
        return np.array([phi_1])
    newer = np.array([1.0, -1.0, 0.0]) / (r[0] - r[1])
    if len(r) == 2:
        return (np.array([phi_1, 0.0, 0.0]) + second(z) * newer)[:2]
    older = np.array([0.0, 1.0, -1.0]) / (r[1] - r[2])
    curve = (newer - older) / (r[0] - r[2])
    slope = newer + (r[0] - r[1]) * curve
    # Taylor's formula has 2 phi_3 here; with the published phi_3 the method stays of order 2.
    return np.array([phi_1, 0.0, 0.0]) + phi_2 * slope + phi_3 * curve


def midpoint(span: Span, corrects: bool) -> np.ndarray:
    """The two-step method that DPM-Solver++ calls 2M: ``phi_1 / 2`` for the slope."""
    _no_corrector(corrects, len(span.ratios), 3)
    return _dpm(span, lambda z: 0.5 * np.expm1(z))


def taylor(span: Span, corrects: bool) -> np.ndarray:
    """The other two-step choice, ``phi_2`` for the slope; also called ``heun``."""
    _no_corrector(corrects, len(span.ratios), 3)
    return _dpm(span, lambda z: phis(z, 2)[1])


def adams(span: Span, corrects: bool) -> np.ndarray:
    """iPNDM: Adams-Bashforth weights of equal steps on any grid (arXiv:2202.09778, eq. 11-12)."""
    _no_corrector(corrects, len(span.ratios), 4)
    return np.expm1(span.z) * np.array(ADAMS_BASHFORTH[len(span.ratios) - 1])


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _no_corrector(corrects: bool, size: int, most: int) -> None:
    if corrects or size > most:
        raise ValueError(f"this form has no corrector and at most order {most}; form = 'exact' has any")


def _differences(r: np.ndarray, corrects: bool) -> np.ndarray:
    """Rows ``(m_j - m_0) / r_j`` in terms of the weights: older predictions, then the end of the step."""
    size = len(r) + corrects
    table = []
    for j in range(1, len(r)):
        row = np.zeros(size)
        row[int(corrects)], row[j + corrects] = -1.0 / r[j], 1.0 / r[j]
        table.append(row)
    if corrects:
        row = np.zeros(size)
        row[1], row[0] = -1.0, 1.0
        table.append(row)
    return np.array(table).reshape(-1, size)


def _unipc(span: Span, corrects: bool, scale: float) -> np.ndarray:
    """UniPC with ``B(h) = scale`` (arXiv:2302.04867, eq. 5-9)."""
    z, r = span
    size = len(r) + corrects
    weights = np.zeros(size)
    weights[int(corrects)] = np.expm1(z)
    steps = np.append(r[1:], 1.0) if corrects else r[1:]
    count = len(steps)
    if count == 0:
        return weights
    if count == 1:
        rhos = np.array([0.5])  # the paper's choice for the smallest systems
    else:
        powers = np.vander(steps, count, increasing=True).T
        terms = phis(z, count + 1)[1:]
        rhos = np.linalg.solve(powers, [phi * factorial(k + 1) / scale for k, phi in enumerate(terms)])
    return weights + scale * rhos @ _differences(r, corrects)


def bh1(span: Span, corrects: bool) -> np.ndarray:
    """UniPC, ``B(h) = h``."""
    return _unipc(span, corrects, span.z)


def bh2(span: Span, corrects: bool) -> np.ndarray:
    """UniPC, ``B(h) = e^h - 1``."""
    return _unipc(span, corrects, float(np.expm1(span.z)))


def vary(span: Span, corrects: bool) -> np.ndarray:
    """UniPC's varying coefficients (arXiv:2302.04867, appendix C), as its code has them.

    There the corrector of three and more nodes takes the weight of the newest one from the last row but one
    of the inverse, so that it gains no order.
    """
    z, r = span
    weights = np.zeros(len(r) + corrects)
    weights[int(corrects)] = np.expm1(z)
    steps = np.append(r[1:], 1.0) if corrects else r[1:]
    count = len(steps)
    if count == 0:
        return weights
    columns = [steps**k / factorial(k + 1) for k in range(count)]
    inverse = np.linalg.inv(np.stack(columns, axis=1))
    terms = np.array(phis(z, count + 1)[1:])
    differences = _differences(r, corrects)
    if not corrects:
        return weights + terms @ inverse @ differences
    old, new = differences[:-1], differences[-1]
    weights = weights + terms[:-1] @ inverse[:-1, :-1] @ old if count > 1 else weights
    return weights + terms[-1] * inverse[max(count - 2, 0), -1] * new


FORMS: dict[str, Form] = {
    "midpoint": midpoint,
    "taylor": taylor,
    "bh1": bh1,
    "bh2": bh2,
    "vary": vary,
    "adams": adams,
}

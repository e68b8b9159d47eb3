"""Integrals of Lagrange polynomials, which replace every hand-derived coefficient of a multistep method."""

from collections.abc import Callable

import numpy as np
from numpy.polynomial import polynomial

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_Y, _DY = 0.5 * (_POINTS + 1.0), 0.5 * _WEIGHTS  # on [0, 1]


def lagrange_integrals(
    nodes: np.ndarray, start: float, end: float, measure: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``int_start^end l_j(u) dw(u)`` for the Lagrange polynomials ``l_j`` on ``nodes``: ``(k,) -> (k,)``.

    By parts, so that ``w`` needs no derivative: ``[l_j (w - w(start))] - int l_j' (w - w(start)) du``.
    The points of the Gauss-Legendre rule crowd quadratically at ``end``, where ``w`` may behave like a root.

    Args:
      measure: ``w``, elementwise, monotone between ``start`` and ``end``.
    """
    width = start - end
    u = end + width * _Y**2
    values = measure(np.concatenate([u, [end, start]]))
    rise, total = values[:-2] - values[-1], values[-2] - values[-1]
    scaled = (np.asarray(nodes, np.float64) - end) / width  # the polynomials in units of the step
    integrals = []
    for j, node in enumerate(scaled):
        others = np.delete(scaled, j)
        basis = polynomial.polyfromroots(others) / np.prod(node - others)
        slope = polynomial.polyval(_Y**2, polynomial.polyder(basis))
        # The integral runs from start (y = 1) to end (y = 0); the width of du cancels that of the slope.
        integrals.append(basis[0] * total + np.sum(_DY * 2.0 * _Y * slope * rise))
    return np.asarray(integrals)

"""Explicit Runge-Kutta methods without an error estimate, as tables."""

from typing import NamedTuple


class Tableau(NamedTuple):
    """Butcher's: stage ``j`` is at ``c_j`` and starts from the slopes before it, weighted by ``a_j``."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


EULER = Tableau((0.0,), ((),), (1.0,))
CLASSICAL = Tableau(
    c=(0.0, 0.5, 0.5, 1.0),
    a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)


def second_order(alpha: float) -> Tableau:
    """The two-stage methods of order 2 (arXiv:2206.00364, appendix D.2): 1 is Heun, 1/2 the midpoint rule."""
    return Tableau((0.0, alpha), ((), (alpha,)), (1.0 - 0.5 / alpha, 0.5 / alpha))

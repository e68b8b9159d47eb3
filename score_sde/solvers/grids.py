"""Time grids: ``n + 1`` decreasing times for ``n`` steps, float64."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Grid = Callable[[float, float, int], np.ndarray]


def uniform(start: float, end: float, steps: int) -> np.ndarray:
    """Equal steps in ``t``: ``(steps + 1,)``."""
    return np.linspace(start, end, steps + 1)


@dataclass(frozen=True)
class Power:
    """Equal steps in ``t^(1/rho)`` (arXiv:2206.00364, eq. 5); there ``t`` is the noise level.

    Attributes:
      rho: 7 in the paper; 1 is uniform; larger puts more steps at the end.
    """

    rho: float = 7.0

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        return np.linspace(start ** (1 / self.rho), end ** (1 / self.rho), steps + 1) ** self.rho


GRIDS: dict[str, Callable[..., Grid]] = {"uniform": lambda: uniform, "power": Power}

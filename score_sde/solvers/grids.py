"""Time grids: ``n + 1`` decreasing times for ``n`` steps, float64."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from score_sde.runtime.files import read_json
from score_sde.sde import SDE
from score_sde.solvers.base import marginals, times_at

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


def quadratic(start: float, end: float, steps: int) -> np.ndarray:
    """Equal steps in the square root of ``t`` (DDIM, arXiv:2010.02502, appendix D.2)."""
    return Power(2.0)(start, end, steps)


@dataclass(frozen=True)
class LogSNR:
    """Equal steps in log-SNR (DPM-Solver, arXiv:2206.00927, section 3.3), the natural grid of its family.

    Attributes:
      sde: the process.
    """

    sde: SDE

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        lam = _finite_ends(self.sde, start, end, "log_snr").lam
        return _between(self.sde, start, end, np.linspace(lam[0], lam[1], steps + 1))


@dataclass(frozen=True)
class Karras:
    """Equal steps in ``(sigma / alpha)^(1/rho)`` (arXiv:2206.00364, eq. 5), for every process.

    Attributes:
      rho: 7 in the paper.
      sde: the process.
    """

    sde: SDE
    rho: float = 7.0

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        levels = _finite_ends(self.sde, start, end, "karras").rho
        with np.errstate(divide="ignore"):  # a level of zero at the end
            return _between(self.sde, start, end, -np.log(Power(self.rho)(levels[0], levels[1], steps)))


@dataclass(frozen=True)
class EDMSteps:
    """The grid of EDM's sampler: ``karras`` down to ``t_min`` in one step less, and then to the end.

    Attributes:
      rho: 7 in the paper.
      sde: the process; its ``t_min`` is the last time but one (0.002 for EDM).
    """

    sde: SDE
    rho: float = 7.0

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        low = self.sde.t_min
        if not end < low:
            raise ValueError(f"grid = 'edm' ends below t_min = {low}, got t_end = {end}; 0 is meant")
        return np.append(Karras(self.sde, self.rho)(start, low, max(steps - 1, 1))[:steps], end)


@dataclass(frozen=True)
class Shifted:
    """``uniform`` with every level ``sigma / alpha`` but the ends multiplied by ``shift``.

    For larger images, whose pixels share more of the signal: ``shift`` is the ratio of the sides
    (arXiv:2301.11093, eq. 3; arXiv:2403.03206, eq. 23, which this is for the flow).

    Attributes:
      shift: factor of the levels, the ratio of the image sides.
      sde: the process.
    """

    sde: SDE
    shift: float = 1.0

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"shift = {self.shift}: must be positive")

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        inner = marginals(self.sde, uniform(start, end, steps)[1:-1]).lam - np.log(self.shift)
        times = times_at(self.sde, inner, end, start)
        return np.concatenate([[start], times, [end]])


@dataclass(frozen=True)
class Listed:
    """Times as given, such as those of an optimised grid.

    Attributes:
      times: decreasing; they must have the length and the ends that are asked for.
    """

    times: tuple[float, ...] = ()

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        times = np.asarray(self.times, np.float64)
        if len(times) != steps + 1 or np.any(np.diff(times) >= 0):
            raise ValueError(
                f"times = {self.times}: a listed grid has steps + 1 = {steps + 1} decreasing times"
            )
        if times[0] > start * (1 + 1e-9) or times[-1] < 0:
            raise ValueError(f"times = {self.times}: must be between {start} and 0")
        return times


@dataclass(frozen=True)
class FromFile:
    """``Listed`` with the times of a JSON file ``{"times": [...]}``, as ``save_times`` writes them.

    Attributes:
      times_file: its path.
    """

    times_file: str | None = None

    def __call__(self, start: float, end: float, steps: int) -> np.ndarray:
        if self.times_file is None:
            raise ValueError("times_file is not set, and grid = 'file' needs it")
        try:
            times = read_json(Path(self.times_file))["times"]
            times = tuple(float(t) for t in times)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'times_file = {self.times_file!r}: must be a JSON file with {{"times": [...]}}: {error!r}'
            ) from error
        return Listed(times)(start, end, steps)


def save_times(path: Path, times: np.ndarray) -> None:
    """Write a grid for ``grid = 'file'``; its ends and its number of steps are the config's business."""
    path.write_text(json.dumps({"times": [float(t) for t in times]}) + "\n", encoding="utf-8")


def _finite_ends(sde: SDE, start: float, end: float, name: str):
    ends = marginals(sde, np.array([start, end]))
    if ends.alpha[0] == 0 or (name == "log_snr" and ends.sigma[1] == 0):
        raise ValueError(
            f"grid = {name!r} needs finite levels at its ends: start where alpha > 0"
            + (" and end where sigma > 0" if name == "log_snr" else "")
            + f", got times {start} and {end}"
        )
    return ends


def _between(sde: SDE, start: float, end: float, lam: np.ndarray) -> np.ndarray:
    return np.concatenate([[start], times_at(sde, lam[1:-1], end, start), [end]])


GRIDS: dict[str, Callable[..., Grid]] = {
    "uniform": lambda: uniform,
    "power": Power,
    "quadratic": lambda: quadratic,
    "log_snr": LogSNR,
    "karras": Karras,
    "edm": EDMSteps,
    "shifted": Shifted,
    "list": Listed,
    "file": FromFile,
}

"""The engine: a solver as a table of numbers, one row for each network evaluation, run by one loop.

A row says where to evaluate, what to remember, and how to move on:

    m_0 = of_x0 x0 + of_noise noise                              remembered; m_1 ... m_4 are the last ones
    x'  = x_gain x + anchor_gain anchor + sum_j weight_j m_j + noise_gain z

``x0`` and ``noise`` are what the model expects behind ``x`` at ``t``.  ``anchor`` is the state at the start
of the step, for steps of several evaluations.  Multistep, singlestep, corrected, stochastic and restarting
methods are all such tables, so that changing one for another changes no program: the network is compiled
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.sde import SDE
from score_sde.solvers.base import (
    Marginals,
    N,
    Noise,
    Plan,
    StepSolver,
    coefficients,
    make_plan,
    marginals,
    on_host,
)

Scalar = float | np.floating | np.ndarray  # of Python or numpy

Memory = tuple[Array, tuple[Array, ...]]  # the state at the start of the step, and what is remembered

WIDTH = 5  # values that a row can use, at least; narrower methods have zeros


class Row(NamedTuple, Generic[N]):
    """One evaluation; scalars, or columns ``(n,)``, ``weights`` ``(n, 5)`` or wider, of a table.

    Attributes:
      draw: number of the noise ``z``.
      opens, closes: whether a step begins, or ends, with this evaluation.
    """

    t: N
    of_x0: N
    of_noise: N
    x_gain: N
    anchor_gain: N
    weights: N
    noise_gain: N
    draw: N
    opens: N
    closes: N


class Start(NamedTuple, Generic[N]):
    """A move before the first evaluation, ``gain x + noise_gain z`` with noise number 1."""

    gain: N
    noise_gain: N


class Tables(NamedTuple, Generic[N]):
    """What the plan of a table solver holds as its rows."""

    rows: Row[N]
    start: Start[N]


class Prediction(NamedTuple):
    """What is remembered of an evaluation: ``of_x0 x0 + of_noise noise``, scalars."""

    of_x0: Scalar
    of_noise: Scalar


X0, NOISE = Prediction(1.0, 0.0), Prediction(0.0, 1.0)


def predict_x0(sde: SDE, at: Marginals) -> Prediction:
    """The denoised sample."""
    return X0


def predict_noise(sde: SDE, at: Marginals) -> Prediction:
    """The noise."""
    return NOISE


def predict_velocity(sde: SDE, at: Marginals) -> Prediction:
    """``dx/dt`` of the probability-flow ODE, ``alpha' x0 + sigma' noise``."""
    return Prediction(on_host(sde.alpha_slope, at.t), on_host(sde.sigma_slope, at.t))


PREDICTIONS = {"x0": predict_x0, "noise": predict_noise, "velocity": predict_velocity}


class Rows:
    """A table in the making, on the host in float64."""

    def __init__(self) -> None:
        self._rows: list[Row[Any]] = []
        self.start: Start[float] = Start(1.0, 0.0)

    def add(
        self,
        t: Scalar,
        prediction: Prediction,
        *,
        x: Scalar = 0.0,
        anchor: Scalar = 0.0,
        weights: Sequence[Scalar] | np.ndarray = (),
        noise: Scalar = 0.0,
        draw: int = 1,
        opens: bool = True,
        closes: bool = True,
    ) -> None:
        """Append an evaluation at ``t``."""
        weights = np.asarray(weights, np.float64)
        self._rows.append(Row(t, *prediction, x, anchor, weights, noise, draw, opens, closes))

    @property
    def count(self) -> int:
        """Evaluations so far."""
        return len(self._rows)

    def lift(self, gain: float, noise: float, draw: int) -> None:
        """Scale the last state and add noise to it: ``gain x + noise z``.  Before any row the draw is 1."""
        if not self._rows:
            self.start = Start(gain, noise)
            return
        row = self._rows[-1]
        if noise and row.noise_gain:
            raise ValueError("a row has one noise")
        self._rows[-1] = row._replace(
            x_gain=gain * row.x_gain,
            anchor_gain=gain * row.anchor_gain,
            weights=gain * row.weights,
            noise_gain=noise if noise else gain * row.noise_gain,
            draw=draw if noise else row.draw,
        )

    def tweedie(self, t: float) -> None:
        """Append the last move to the expected clean sample."""
        self.add(t, X0, weights=[1.0])

    def stack(self, s_noise: float = 1.0) -> Tables[np.ndarray]:
        """The table, as the device takes it, with every noise times ``s_noise``."""
        width = max(WIDTH, *(len(row.weights) for row in self._rows))
        padded = [
            row._replace(weights=np.pad(row.weights, (0, width - len(row.weights)))) for row in self._rows
        ]
        row = Row(*(np.asarray(column) for column in zip(*padded, strict=True)))
        row = row._replace(noise_gain=s_noise * row.noise_gain)
        start = self.start._replace(noise_gain=s_noise * self.start.noise_gain)
        whole = {"draw": row.draw.astype(np.int32), "opens": row.opens, "closes": row.closes}
        real = {k: coefficients(v) for k, v in row._asdict().items() if k not in whole}
        return Tables(Row(**real, **whole), coefficients(start))


@dataclass(frozen=True, kw_only=True)
class Table(StepSolver):
    """Runs tables.  Its plan is that of another solver; see ``TableSolver``."""

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        raise NotImplementedError("a Table runs the plans of others; it has none of its own")

    def init(self, x: Array, rows: Row[Array]) -> Memory:
        return x, (jnp.zeros_like(x),) * rows.weights.shape[1]

    def bounds(self, row: Row[Array]) -> tuple[Array, Array]:
        return row.opens, row.closes

    def step(
        self, denoise: Denoise, x: Array, row: Row[Array], history: Memory, noise: Noise
    ) -> tuple[Array, Memory]:
        anchor, values = history
        anchor = jnp.where(row.opens, x, anchor)
        values = (denoise(x, row.t).mix(row.of_x0, row.of_noise), *values[:-1])
        moved = row.x_gain * x + row.anchor_gain * anchor
        for j, value in enumerate(values):
            moved = moved + row.weights[j] * value
        return _add_noise(moved, row.noise_gain, row.draw, noise), (anchor, values)

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        start = plan.rows.start
        return _add_noise(start.gain * x, start.noise_gain, 1, noise)

    def rows(self, plan: Plan) -> Row[Array]:
        return plan.rows.rows

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        return x  # the last move is a row


def _add_noise(x: Array, gain: Array, draw: Array | int, noise: Noise | None) -> Array:
    if noise is None:
        return x
    return jax.lax.cond(gain != 0, lambda: x + gain * noise(draw).astype(x.dtype), lambda: x)


@dataclass(frozen=True, kw_only=True)
class TableSolver(Table):
    """A solver that is nothing but a table.

    With ``denoise`` the last row is Tweedie's move at the end of the grid, unless the noise there is zero
    already; it costs one evaluation.  The number of evaluations is the number of rows.

    Attributes:
      s_noise: factor of all noise that is added on the way; a little above 1 makes up for what networks
        take away (arXiv:2206.00364, section 4).
    """

    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.s_noise < 0:
            raise ValueError(f"s_noise = {self.s_noise}: must be 0 or more")

    @property
    def program(self) -> Table:
        return Table()

    def write(self, sde: SDE, path: Marginals, rows: Rows) -> None:
        """Fill the table for the steps between the times of ``path`` ``(n + 1,)``."""
        raise NotImplementedError

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        path, rows = marginals(sde, times), Rows()
        with np.errstate(divide="ignore", invalid="ignore"):  # refused with a message, below
            self.write(sde, path, rows)
        if self.denoise and path.sigma[-1] > 0:
            rows.tweedie(path.t[-1])
        return make_plan(rows.stack(self.s_noise), times)

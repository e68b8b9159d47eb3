"""Explicit methods on a grid that is given, each as a table of what is done after every evaluation.

All of them take a slope at a point, and continue from the last point of the grid that they have reached, by a
weighted sum of this slope and of those before it: Runge-Kutta methods by slopes within a step, Adams' methods
by those of the steps before (Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, sections
II.1 and III.1).  So one loop over the evaluations, with one field in it, is every method.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.integrate.tableaus import CLASSICAL, EULER, Tableau, second_order


class Evaluations(NamedTuple):
    """A method on a grid, for E evaluations that look back over K slopes.

    Attributes:
      points: where each slope is taken, ``(E,)``.
      weights: of that slope and of those before it, newest first, ``(E, K)``, in units of the grid.
      lands: whether the sum ends at a point of the grid, from which the next one starts, ``(E,)``.
      interval: of the grid, to which the evaluation belongs, ``(E,)`` integers.
    """

    points: Array
    weights: Array
    lands: Array
    interval: Array


Method = Callable[[Array], Evaluations]


def runge_kutta(grid: Array, tableau: Tableau) -> Evaluations:
    """A Runge-Kutta method on ``grid``, ``(N + 1,)``: E is N times its stages."""
    stages, steps = len(tableau.c), jnp.diff(grid)
    # After stage j comes the point of stage j + 1, after the last one that of the grid.
    sums = np.zeros((stages, stages))
    for j, row in enumerate((*tableau.a[1:], tableau.b)):
        sums[j, : len(row)] = row[::-1]
    return Evaluations(
        (grid[:-1, None] + jnp.outer(steps, jnp.array(tableau.c, grid.dtype))).ravel(),
        jnp.multiply.outer(steps, jnp.array(sums, grid.dtype)).reshape(-1, stages),
        jnp.tile(jnp.arange(stages) == stages - 1, steps.size),
        jnp.repeat(jnp.arange(steps.size), stages),
    )


def adams(grid: Array, order: int, halvings: int) -> Evaluations:
    """Adams-Bashforth: the integral of the polynomial through the last ``order`` slopes, on any grid.

    While there are fewer slopes the order is lower, for which the first step is halved ``halvings`` times: E
    is ``N + halvings``.
    """
    within = grid[0] + (grid[1] - grid[0]) * jnp.array(0.5 ** np.arange(halvings, 0, -1), grid.dtype)
    ends = jnp.concatenate([grid[:1], within, grid[1:]])
    points, steps = ends[:-1], jnp.diff(ends)
    count, back = points.size, jnp.arange(order)
    # Weights w with sum_k w_k x_k^m = int_0^1 x^m dx for m = 0 ... order - 1, where x_k is the place of the
    # slope k evaluations ago, in steps.  Slopes before the first have none.
    before = jnp.subtract.outer(jnp.arange(count), back)
    places = (points[jnp.maximum(before, 0)] - points[:, None]) / steps[:, None]
    known = before >= 0
    powers = jnp.where(known[:, None, :], places[:, None, :] ** back[None, :, None], 0.0)
    system = jnp.where(known[:, :, None], powers, jnp.eye(order)[None])
    integrals = jnp.where(known, 1.0 / (back[None] + 1.0), 0.0)
    weights = jnp.linalg.solve(system, integrals[:, :, None])[:, :, 0]
    interval = jnp.maximum(jnp.arange(count) - halvings, 0)
    return Evaluations(points, steps[:, None] * weights, jnp.ones(count, bool), interval)


METHODS: dict[str, Method] = {
    "euler": partial(runge_kutta, tableau=EULER),
    "heun": partial(runge_kutta, tableau=second_order(1.0)),
    "midpoint": partial(runge_kutta, tableau=second_order(0.5)),
    "rk4": partial(runge_kutta, tableau=CLASSICAL),
    "adams": partial(adams, order=4, halvings=8),
}

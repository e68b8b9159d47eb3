"""Step sizes of an embedded Runge-Kutta method, by its estimate of the error.

After a step of size ``h`` whose error is ``e`` times what is tolerated, of an estimate of order ``q``, comes
one of ``0.9 h e^(-1/q)`` (Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.4).
It may be smaller also after a step that was accepted, and is no larger after one that was not, as in scipy.
diffrax's own controllers never shrink a step that was accepted, so that where the equation gets harder along
the way many are made in vain.
"""

from collections.abc import Callable
from typing import TypeVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Tree

State = TypeVar("State")  # a pytree of arrays
Scalar = int | float | Array | np.ndarray

SAFETY = 0.9
LEAST, MOST = 0.2, 10.0  # of a step, relative to the one before it


def root_mean_square(tree: Tree) -> Array:
    """Over all entries of all arrays."""
    leaves = jax.tree.leaves(tree)
    return jnp.sqrt(sum(jnp.sum(a * a) for a in leaves) / sum(a.size for a in leaves))


def first_step(
    field: Callable[[Array, State], State],
    t0: Array,
    t1: Array,
    y0: State,
    sizes: "StepSizes",
    error_order: Scalar,
) -> tuple[Array, State]:
    """Size of the first step, by two slopes a little apart (the same section), and the slope at ``t0``.

    diffrax's own controllers do this for a term by itself, but within a solve, where it is wrapped, begin
    with 0.01: far too long where a slope is of the size of ``1 / t`` and ``t0`` is small.

    Args:
      field: ``(t: (), y) -> dy/dt`` with the structure of ``y0``.
      t0, t1: where the integration begins and, later, ends, ``()``.
      sizes: the tolerances.
      error_order: of the method's error estimate.

    Returns:
      The size, in units of time, ``()``, and the slope.
    """

    def relative(tree: Tree) -> Array:
        return sizes.norm(jax.lax.stop_gradient(jax.tree.map(jnp.divide, tree, scale)))

    scale = jax.tree.map(lambda y: sizes.atol + sizes.rtol * jnp.abs(y), y0)
    size = relative(y0)

    def probe(point: tuple[Array, State], _: None) -> tuple[tuple[Array, State], tuple[State, Array]]:
        slope = field(*point)
        steep = relative(slope)
        small = (size < 1e-5) | (steep < 1e-5)
        # No further than the end: where slopes are tiny, as at the prior, this would leave the process.
        h = jnp.where(small, 1e-6, jnp.minimum(0.01 * size / jnp.where(small, 1.0, steep), t1 - t0))
        moved = jax.tree.map(lambda y, k: y + h.astype(y.dtype) * k, y0, slope)
        return (t0 + h.astype(jnp.result_type(t0)), moved), (slope, h)

    # One copy of the field in the program for both.
    _, (slopes, tried) = jax.lax.scan(probe, (t0, y0), length=2)
    h, slope = tried[0], jax.tree.map(lambda k: k[0], slopes)
    first = relative(slope)
    bend = relative(jax.tree.map(lambda k: (k[1] - k[0]) / h.astype(k.dtype), slopes))
    most = jnp.maximum(first, bend)
    flat = most <= 1e-15
    longer = (0.01 / jnp.where(flat, 1.0, most)) ** (1.0 / error_order)
    return jnp.minimum(100.0 * h, jnp.where(flat, jnp.maximum(1e-6, 1e-3 * h), longer)), slope


class StepSizes(diffrax.AbstractAdaptiveStepSizeController):
    """Steps are accepted whose norm of ``error / (atol + rtol |y|)`` is below 1.

    Attributes:
      rtol, atol: the tolerances, numbers or scalar arrays.
      norm: of what shares a step size.
    """

    rtol: Scalar
    atol: Scalar
    norm: Callable[[Tree], Array] = root_mean_square

    def wrap(self, direction: object) -> "StepSizes":
        return self

    def init(
        self,
        terms: object,
        t0: Scalar,
        t1: Scalar,
        y0: Tree,
        dt0: Scalar | None,
        args: Tree,
        func: object,
        error_order: object,
    ) -> tuple[Scalar, Array]:
        """The end of the first step, whose size ``dt0`` must be given: see ``first_step``.

        Raises:
          ValueError: it is not.
        """
        if dt0 is None:
            raise ValueError("the first step's size is not given")
        return t0 + dt0, jnp.asarray(True)

    def adapt_step_size(
        self,
        t0: Scalar,
        t1: Scalar,
        y0: Tree,
        y1_candidate: Tree,
        args: Tree,
        y_error: Tree,
        error_order: Scalar,
        controller_state: Array,
    ) -> tuple[Array, Array, Array, bool, Array, diffrax.RESULTS]:
        """Whether the step from ``t0`` to ``t1`` is accepted, and where the next one begins and ends.

        The state is whether the step before it was.
        """
        relative = jax.tree.map(self._relative, y0, y1_candidate, y_error)
        error = self.norm(jax.lax.stop_gradient(relative))  # derivatives are those at the steps that are made
        error = jnp.where(jnp.isfinite(error), error, jnp.inf)
        accepted = error < 1.0
        most = jnp.where(accepted & controller_state, MOST, 1.0)
        factor = jnp.clip(SAFETY * error ** (-1.0 / error_order), LEAST, most)
        start = jnp.where(accepted, t1, t0)
        end = start + factor.astype(jnp.result_type(t1)) * (t1 - t0)  # times may be of another precision
        return accepted, start, end, False, accepted, diffrax.RESULTS.successful

    def _relative(self, before: Array, after: Array, error: Array) -> Array:
        return error / (self.atol + self.rtol * jnp.maximum(jnp.abs(before), jnp.abs(after)))

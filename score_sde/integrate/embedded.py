"""Steps of embedded Runge-Kutta methods: diffrax's coefficients and interpolation, and stages of our own.

A stage whose slope has no weight in the step, in its error and in the interpolation, as the second of DOPRI5
and four of DOPRI8, is there for later stages alone.  What they are not made from, for a likelihood the
divergence, which costs as much as all the rest, need not be evaluated there.
"""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Tree

Scalar = int | float | Array | np.ndarray


class Embedded(diffrax.AbstractAdaptiveSolver):
    """An explicit method for times that rise, with one copy of the field in the program and not one a stage.

    Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, sections II.1 and II.4.

    Its state is the slope at the start of a step, which is the last of the step before where the method has
    that ("first same as last"); elsewhere it is not used.

    Attributes:
      solver: diffrax's.
      light: ``(t, y, args) -> slope``, the field without what no slope depends on, zero there; None: the
        field itself is evaluated at all stages.
    """

    solver: diffrax.AbstractERK
    light: Callable[[Scalar, Tree, Tree], Tree] | None = None

    term_structure: ClassVar[type[diffrax.AbstractTerm]] = diffrax.AbstractTerm

    @property
    def interpolation_cls(self) -> Callable[..., diffrax.AbstractLocalInterpolation]:  # type: ignore[override]
        return self.solver.interpolation_cls

    def order(self, terms: Tree) -> int | None:
        return self.solver.order(terms)

    def error_order(self, terms: Tree) -> Scalar:
        order = self.solver.error_order(terms)
        assert order is not None
        return order

    def func(self, terms: Tree, t0: Scalar, y0: Tree, args: Tree) -> Tree:
        return terms.vf(t0, y0, args)

    def init(self, terms: Tree, t0: Scalar, t1: Scalar, y0: Tree, args: Tree) -> Tree:
        return terms.vf(t0, y0, args)

    def step(
        self,
        terms: Tree,
        t0: Scalar,
        t1: Scalar,
        y0: Tree,
        args: Tree,
        solver_state: Tree,
        made_jump: bool | Array | np.ndarray,
    ) -> tuple[Tree, Tree, dict[str, Tree], Tree, diffrax.RESULTS]:
        """From ``t0`` to ``t1``: the state there, the error, what interpolation needs, and the last slope."""
        tableau = self.solver.tableau
        assert isinstance(tableau, diffrax.ButcherTableau)
        known = 1 if tableau.fsal else 0
        spared = _spared(tableau) if self.light else 0
        size = jnp.subtract(t1, t0)

        def after(weights: Array | np.ndarray, slopes: Tree) -> Tree:
            """The increment by weights of the slopes, ``(stages,)``."""

            def increment(k: Array) -> Array:
                return size.astype(k.dtype) * jnp.tensordot(jnp.asarray(weights, k.dtype), k, 1)

            return jax.tree.map(increment, slopes)

        def stages(field: Callable, slopes: Tree, first: int, end: int) -> Tree:
            def stage(slopes: Tree, row: tuple[Array, Array, Array]) -> tuple[Tree, None]:
                i, node, weights = row
                y = jax.tree.map(jnp.add, y0, after(weights, slopes))
                # Not beyond the end by rounding: a process may not be defined there.
                t = jnp.where(node == 1.0, t1, t0 + node.astype(size.dtype) * size)
                slope = field(t, y, args)
                return jax.tree.map(lambda ks, k: ks.at[i].set(k), slopes, slope), None

            nodes, weights = _rows(tableau)
            rows = (jnp.arange(first, end), jnp.asarray(nodes[first:end]), jnp.asarray(weights[first:end]))
            return jax.lax.scan(stage, slopes, rows)[0] if end > first else slopes

        def begun(k: Array) -> Array:
            return jnp.zeros((tableau.num_stages, *k.shape), k.dtype).at[0].set(k)

        slopes = jax.tree.map(begun, solver_state)
        if spared:
            slopes = stages(self.light, slopes, 1, 1 + spared)  # type: ignore[arg-type]
        slopes = stages(terms.vf, slopes, known + spared, tableau.num_stages)
        y1 = jax.tree.map(jnp.add, y0, after(tableau.b_sol, slopes))
        interpolation = {"y0": y0, "y1": y1, "k": jax.tree.map(lambda k: size.astype(k.dtype) * k, slopes)}
        last = jax.tree.map(lambda k: k[-1], slopes) if known else solver_state
        return y1, after(tableau.b_error, slopes), interpolation, last, diffrax.RESULTS.successful


def _spared(tableau: diffrax.ButcherTableau) -> int:
    """How many of the stages after the first, from the second on, have no weight."""
    weightless = (tableau.b_sol[1:] == 0) & (tableau.b_error[1:] == 0)
    return int(np.argmin(weightless)) if tableau.fsal else 0


def _rows(tableau: diffrax.ButcherTableau) -> tuple[np.ndarray, np.ndarray]:
    """Nodes ``(stages,)`` and weights ``(stages, stages)`` of the stages."""
    count = tableau.num_stages
    weights = np.zeros((count, count))
    for i, row in enumerate(tableau.a_lower, 1):
        weights[i, :i] = row
    return np.concatenate([[0.0], tableau.c]), weights

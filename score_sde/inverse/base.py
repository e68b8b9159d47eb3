"""What a linear measurement is, and what a method that conditions on one is."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, expand, sum_dims
from score_sde.conditions import Cond
from score_sde.denoiser import Bind, Denoise, Estimate
from score_sde.guidance import Guidance
from score_sde.sde import SDE
from score_sde.solvers import Solver

MEASURED, NOISE_STD = "measured", "noise_std"  # entries of ``cond``: ``(B, *M)`` and ``(B,)``


@dataclass(frozen=True, kw_only=True)
class LinearOperator(abc.ABC):
    """``A`` of a measurement, for batches of states.

    An operator is hashable.  What differs from sample to sample, such as a mask, is an entry of ``given``,
    hence an input of the compiled program.

    Attributes:
      needs: names of the entries of ``given``, ``(B, ...)`` each.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def apply(self, x: Array, given: Cond) -> Array:
        """``A x``: ``(B, *D) -> (B, *M)``."""

    @abc.abstractmethod
    def adjoint(self, y: Array, given: Cond) -> Array:
        """``A^T y``: ``(B, *M) -> (B, *D)``."""

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array | None:
        """``f(A A^T) y``, where the eigenvalues of ``A A^T`` are known: ``(B, *M) -> (B, *M)``; else None.

        Args:
          function: of eigenvalues, an array that broadcasts against ``(B, *M)``.
        """
        return None

    def back(self, gain: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        """``V f(S^2) S^+ U^T y`` with ``A = U S V^T``: the pseudo-inverse with a gain for each eigenvalue.

        Args:
          gain: ``f``, of the eigenvalues ``S^2`` of ``A A^T``, an array that broadcasts against ``(B, *M)``.
          y: ``(B, *M)``; the result is ``(B, *D)``.

        Raises:
          ValueError: the eigenvalues of ``A A^T`` are not known.
        """

        def weight(eigenvalues: Array) -> Array:
            seen = eigenvalues > _ZERO
            return jnp.where(
                seen, gain(jnp.where(seen, eigenvalues, 1.0)) / jnp.maximum(eigenvalues, _ZERO), 0.0
            )

        inner = self.of_gram(weight, y, given)
        if inner is None:
            raise ValueError(
                f"{type(self).__name__}: its singular values are not known; the methods mmps, pigdm, dps "
                "and tds need none"
            )
        return self.adjoint(inner, given)

    def pseudo_inverse(self, y: Array, given: Cond) -> Array:
        """``A^+ y = A^T (A A^T)^+ y``: ``(B, *M) -> (B, *D)``; raises as ``back``."""
        return self.back(jnp.ones_like, y, given)

    def of_seen(self, gain: Callable[[Array], Array], x: Array, given: Cond) -> Array:
        """``V f(S^2) V^T x`` on the part of ``x`` that is measured, zero on the rest; raises as ``back``."""
        return self.back(gain, self.apply(x, given), given)


_ZERO = 1e-6  # eigenvalues up to here count as zero; those of the operators here are at most one


def check_adjoint(operator: LinearOperator, shape: tuple[int, ...], given: Cond, key: Array) -> None:
    """Refuse an operator whose adjoint is not its adjoint: ``<A x, y> = <x, A^T y>`` for random x and y.

    Args:
      shape: of one state.
      given: entries for one sample, ``(1, ...)`` each.

    Raises:
      ValueError: says by how much the two differ.
    """
    key_x, key_y = jax.random.split(key)
    x = jax.random.normal(key_x, (1, *shape))
    ax = operator.apply(x, given)
    y = jax.random.normal(key_y, ax.shape)
    left, right = float(jnp.vdot(ax, y)), float(jnp.vdot(x, operator.adjoint(y, given)))
    size = float(jnp.linalg.norm(ax.ravel()) * jnp.linalg.norm(y.ravel()))
    if not abs(left - right) <= 1e-3 * size:
        raise ValueError(
            f"{type(operator).__name__}: its adjoint is not its adjoint: <A x, y> = {left:.6g} and "
            f"<x, A^T y> = {right:.6g}"
        )


@dataclass(frozen=True, kw_only=True)
class Posterior(Guidance):
    """A method: turns a sampler of ``x0`` into one of ``x0`` given a measurement.

    A method corrects the model's estimate (``correct``), which every solver can use, or the solver's steps
    (``steps``).  The measurement is in ``cond``: ``measured`` ``(B, *M)``, ``noise_std`` ``(B,)`` in the same
    units, and what the operator needs.  Every sample has its own, and none sees another.

    Attributes:
      operator: of the measurement.
      sde: the process of the model.
    """

    operator: LinearOperator
    sde: SDE

    def correct(self, denoise: Denoise, x: Array, t: Array, given: Cond) -> Estimate:
        """``E[x0 | x_t = x, y]``, approximately, with the noise that belongs to it; ``t``: ``(B,)``."""
        return denoise(x, t)

    def steps(self, solver: Solver) -> Solver:
        """The solver whose steps agree with the measurement.

        Raises:
          ValueError: a solver that the method cannot use.
        """
        return solver

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of its entries of ``cond``."""
        return (MEASURED, NOISE_STD, *self.operator.needs)

    def taken(self, cond: Cond) -> tuple[Cond, Cond]:
        """Its own entries of ``cond``, and the others.

        Raises:
          ValueError: an entry is not there.
        """
        missing = [name for name in self.entries if name not in cond]
        if missing:
            raise ValueError(f"cond has no {', '.join(missing)}: a measurement is an input of every sample")
        rest = {name: value for name, value in cond.items() if name not in self.entries}
        return {name: cond[name] for name in self.entries}, rest

    def __call__(self, bind: Bind) -> Bind:
        def bind_measured(parts: Parts, cond: Cond) -> Denoise:
            given, rest = self.taken(cond)
            denoise = bind(parts, rest)

            def measured(x: Array, t: Array) -> Estimate:
                return self.correct(denoise, x, jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1]), given)

            return measured

        return bind_measured

    def residual(self, x0: Array, given: Cond) -> Array:
        """``y - A x0``: ``(B, *D) -> (B, *M)``."""
        return given[MEASURED] - self.operator.apply(x0, given)

    def bounded(self, shift: Array, rest: Array, given: Cond) -> Array:
        """``shift`` of ``x0``, no longer than takes ``A x0`` as far as ``rest``, which is ``y - A x0``.

        No exact correction goes beyond the measurement.  That of a network can, at high noise, where its
        derivative is inexact and the factor ``sigma^2 / alpha`` large.  Each sample has a bound of its own.
        (A correction of few steps of conjugate gradients is better without: the bound leaves grain.)
        """
        moved, away = (jnp.sqrt(sum_dims(v**2)) for v in (self.operator.apply(shift, given), rest))
        return expand(jnp.where(moved > away, away / jnp.where(moved > 0, moved, 1.0), 1.0), shift) * shift


def linearised(denoise: Denoise, x: Array, t: Array) -> tuple[Estimate, Callable[[Array], Array]]:
    """The estimate at ``x``, and ``u -> (d x0 / d x)^T u``, each ``(B, *D) -> (B, *D)``."""

    def x0_of(x: Array) -> tuple[Array, Array]:
        return denoise(x, t)

    x0, pull, noise = jax.vjp(x0_of, x, has_aux=True)
    return Estimate(x0, noise), lambda u: pull(u)[0]


def conjugate_gradients(matrix: Callable[[Array], Array], y: Array, steps: int) -> Array:
    """``matrix^-1 y`` of each sample by itself: ``(B, *M) -> (B, *M)`` (Hestenes and Stiefel 1952).

    A sample whose residual has vanished stays as it is.
    """

    def step(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        v, rest, way = carry
        along, square = matrix(way), sum_dims(rest * rest)
        length = _ratio(square, sum_dims(way * along))
        v, less = v + expand(length, v) * way, rest - expand(length, v) * along
        return v, less, less + expand(_ratio(sum_dims(less * less), square), v) * way

    return jax.lax.fori_loop(0, steps, step, (jnp.zeros_like(y), y, y))[0]


def _ratio(above: Array, below: Array) -> Array:
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1.0), 0.0)

"""Any linear function of Python as an operator."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class Function(LinearOperator):
    """A linear function of one state; its adjoint is found by ``jax.linear_transpose``.

    Attributes:
      function: ``(*D,) -> (*M,)``, linear and hashable, such as a function of a module.
      shape: of one state, ``(*D,)``.
    """

    function: Callable[[Array], Array]
    shape: tuple[int, ...]

    def apply(self, x: Array, given: Cond) -> Array:
        return jax.vmap(self.function)(x)

    def adjoint(self, y: Array, given: Cond) -> Array:
        transpose = jax.linear_transpose(self.function, jax.ShapeDtypeStruct(self.shape, y.dtype))
        return jax.vmap(lambda one: transpose(one)[0])(y)

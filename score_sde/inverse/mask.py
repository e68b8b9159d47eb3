"""Some entries are seen: inpainting, outpainting, imputation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jax import Array

from score_sde.conditions import Cond
from score_sde.inverse.base import LinearOperator

MASK = "mask"  # entry of ``cond``: 1 where an entry is seen, 0 where not, ``(B, *D)``


@dataclass(frozen=True, kw_only=True)
class Mask(LinearOperator):
    """``y = m x``, zero where nothing is seen."""

    needs: ClassVar[tuple[str, ...]] = (MASK,)

    def apply(self, x: Array, given: Cond) -> Array:
        return given[MASK] * x

    def adjoint(self, y: Array, given: Cond) -> Array:
        return given[MASK] * y

    def of_gram(self, function: Callable[[Array], Array], y: Array, given: Cond) -> Array:
        return function(given[MASK]) * y

"""Moving averages of the parameters: the decay of an update as a function of its number."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

Decay = Callable[[Array], Array]


def _check(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(f"decay = {decay}: must be in [0, 1)")


@dataclass(frozen=True)
class Constant:
    """The same decay at every update, from the initial parameters on (official JAX code)."""

    decay: float = 0.9999

    def __post_init__(self) -> None:
        _check(self.decay)

    def __call__(self, step: Array) -> Array:
        return jnp.full((), self.decay)


@dataclass(frozen=True)
class WarmUp:
    """``min(decay, (1 + n) / (10 + n))`` for update ``n = 1, 2, ...``: forgets the initial parameters.

    The rule of the official PyTorch code.  Update 0 here is its n = 1.
    """

    decay: float = 0.9999

    def __post_init__(self) -> None:
        _check(self.decay)

    def __call__(self, step: Array) -> Array:
        n = step.astype(jnp.float32) + 1.0
        return jnp.minimum(self.decay, (1.0 + n) / (10.0 + n))


EMAS: dict[str, Callable[..., Decay]] = {"constant": Constant, "warmup": WarmUp}

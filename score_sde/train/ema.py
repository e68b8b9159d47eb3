"""Moving averages of the parameters: the decay of an update as a function of its number."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

Decay = Callable[[Array], Array]


def _check(decay: float) -> None:
    if not 0 <= decay < 1:
        raise ValueError(f"decay = {decay}: must be in [0, 1)")


@dataclass(frozen=True)
class Constant:
    """The same decay at every update, from the initial parameters on (official JAX code).

    Attributes:
      decay: share of the average that an update keeps.
    """

    decay: float = 0.9999

    def __post_init__(self) -> None:
        _check(self.decay)

    def __call__(self, step: Array) -> Array:
        return jnp.full((), self.decay)


@dataclass(frozen=True)
class WarmUp:
    """``min(decay, (1 + n) / (10 + n))`` for update ``n = 1, 2, ...``: forgets the initial parameters.

    The rule of the official PyTorch code.  Update 0 here is its n = 1.

    Attributes:
      decay: share of the average that a late update keeps.
    """

    decay: float = 0.9999

    def __post_init__(self) -> None:
        _check(self.decay)

    def __call__(self, step: Array) -> Array:
        n = step.astype(jnp.float32) + 1.0
        return jnp.minimum(self.decay, (1.0 + n) / (10.0 + n))


@dataclass(frozen=True)
class HalfLife:
    """Forget half of the past within so many training images, whatever the batch (arXiv:2206.00364, table 7).

    Attributes:
      half_life_images: of the weight of an old update.
      ramp_up: early in training the half-life is at most this fraction of the images seen; 0: no ramp.
      batch_size: images an update.
    """

    batch_size: int
    half_life_images: float = 500_000
    ramp_up: float = 0.05

    def __post_init__(self) -> None:
        if self.half_life_images <= 0 or self.ramp_up < 0:
            raise ValueError(
                f"need half_life_images > 0 and ramp_up >= 0, got {self.half_life_images} and {self.ramp_up}"
            )

    def __call__(self, step: Array) -> Array:
        seen = step.astype(jnp.float32) * self.batch_size
        ramp = seen * self.ramp_up if self.ramp_up else jnp.inf
        half_life = jnp.minimum(self.half_life_images, ramp)
        return jnp.exp2(-self.batch_size / jnp.maximum(half_life, 1e-8))


@dataclass(frozen=True)
class Power:
    """Weights that grow as a power of the update's number (Karras et al. 2024, arXiv:2312.02696, eq. 3).

    Averages of other lengths can be made of its checkpoints after training: ``score_sde.train.posthoc``.

    Attributes:
      sigma_rel: length of the average, the standard deviation of its weights over the length of training.
    """

    sigma_rel: float = 0.1

    def __post_init__(self) -> None:
        exponent(self.sigma_rel)

    def __call__(self, step: Array) -> Array:
        n = step.astype(jnp.float32) + 1.0
        # (1 - 1/n)^(gamma + 1); nothing of the initial parameters is left after the first update.
        return jnp.exp((exponent(self.sigma_rel) + 1) * jnp.log1p(-1.0 / n))


def exponent(sigma_rel: float) -> float:
    """The power gamma of weights ``tau^gamma`` whose standard deviation is ``sigma_rel`` of their range.

    The root above -1 of ``sigma_rel^2 (gamma + 2)^2 (gamma + 3) = gamma + 1`` (arXiv:2312.02696, eq. 126)
    that belongs to growing weights.

    Raises:
      ValueError: no positive power has it.
    """
    flat = math.sqrt(1 / 12)  # of constant weights, gamma = 0
    if not 0 < sigma_rel < flat:
        raise ValueError(f"sigma_rel = {sigma_rel}: must be between 0 and {flat:.4f}")
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return float(np.max(roots.real))


EMAS: dict[str, Callable[..., Decay]] = {
    "constant": Constant,
    "warmup": WarmUp,
    "half_life": HalfLife,
    "power": Power,
}

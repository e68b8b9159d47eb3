"""What a codec is: the map from raw examples to the state that the process perturbs, and back."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jax import Array

from score_sde.arrays import Params
from score_sde.conditions import Json
from score_sde.data.base import Source, Spec

NO_PARAMS: Params = {}
"""The parameters of a codec that has none."""


@dataclass(frozen=True)
class Cells:
    """Where the levels of integer data are in the model's range: ``first + k step``, ``k < count``."""

    first: float
    step: float
    count: int


class Levels(Protocol):
    """Integer data in the state: what dequantisation and decoders of levels need of a codec."""

    @property
    def cells(self) -> Cells:
        """Where ``Codec.middle`` puts the levels."""
        ...

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Uniform dequantisation noise in (0, 1), float32."""
        ...

    def place(self, raw: Array | np.ndarray, noise: Array | float) -> Array:
        """Integers and noise in [0, 1) to the state: cell ``k`` from its lower end by ``noise`` of it."""
        ...

    def unit(self, raw: Array | np.ndarray) -> Array:
        """Integers on [0, 1], the last level at 1, float32."""
        ...


class Codec(Protocol):
    """A hashable object; its parameters, if it has any, are an argument of every call.

    The SDE, the network, the solver and the likelihood know the state's shape only, never that of the data.
    """

    def state_shape(self, spec: Spec) -> tuple[int, ...]:
        """Shape of the state of one example, ``(*S, C)``, channels last."""
        ...

    def encode(self, params: Params, raw: Array | np.ndarray, key: Array | None) -> Array:
        """Raw examples ``(B, *spec.shape)`` to states ``x0``, ``(B, *state_shape)`` float32.

        Args:
          key: for a codec that draws (dequantisation noise, a latent's posterior), one for the whole batch.

        Raises:
          ValueError: it draws and has no key; examples that are encoded already.
        """
        ...

    def middle(self, params: Params, raw: Array | np.ndarray) -> Array:
        """The state that an example has without chance: a function of the example alone."""
        ...

    def decode(self, params: Params, x0: Array | np.ndarray) -> Array:
        """States ``(B, *state_shape)`` to the nearest examples, ``(B, *spec.shape)`` of ``spec.dtype``."""
        ...

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest value of a state of data; None where there is no limit."""
        ...

    @property
    def levels(self) -> Levels | None:
        """Integer data, where an entry of the state is a level of the data; None elsewhere."""
        ...

    @property
    def has_density(self) -> bool:
        """Whether the states of data have a bounded density, as those of integers without noise have not."""
        ...

    def conventions(self) -> dict[str, Json]:
        """What a reader must know of the codec to repeat a density that was measured with it."""
        ...

    def examine(self, source: Source) -> None:
        """Warn of data that do not suit the codec."""
        ...

    def log_volume(self) -> float:
        """Nats per dimension that turn a log density of the state into one of the data.

        Raises:
          ValueError: no constant does, as for an autoencoder.
        """
        ...

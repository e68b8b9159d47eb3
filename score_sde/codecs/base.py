"""What a codec is: the map from raw examples to the state that the process perturbs, and back."""

from typing import Protocol

import numpy as np
from jax import Array

from score_sde.arrays import Params
from score_sde.data.base import Spec

NO_PARAMS: Params = {}
"""The parameters of a codec that has none."""


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

    def log_volume(self) -> float:
        """Nats per dimension that turn a log density of the state into one of the data.

        Raises:
          ValueError: no constant does, as for an autoencoder.
        """
        ...

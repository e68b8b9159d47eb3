"""Everything that changes during training, and nothing else."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A pytree.

    Attributes:
      step: updates made so far, ``()`` int32.
      params: network parameters, float32.
      ema: their moving average, which sampling and evaluation use.
      opt_state: of the optimizer.
    """

    step: Array
    params: Any
    ema: Any
    opt_state: Any

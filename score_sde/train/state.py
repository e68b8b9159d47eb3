"""Everything that changes during training, and nothing else."""

from dataclasses import dataclass

import jax
import optax
from jax import Array

from score_sde.arrays import Parts


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A pytree.

    Attributes:
      step: updates made so far, ``()`` int32.
      params: the trained parts by name, float32.
      ema: their moving average, which sampling and evaluation use.
      opt_state: of the optimizer.
    """

    step: Array
    params: Parts
    ema: Parts
    opt_state: optax.OptState

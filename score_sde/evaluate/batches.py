"""A data set as encoded batches whose examples carry their own keys."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from score_sde.arrays import fold_in_each
from score_sde.data import Source, eval_batches
from score_sde.mesh import batch_sharding, round_up
from score_sde.sampling import sample_keys


class Encoder(Protocol):
    """What takes raw data to the model's range: ``Scaling``, or another."""

    def encode(self, raw: Array, key: Array) -> Array:
        """``(B, *D)`` raw to ``(B, *D)`` float32."""
        ...


class Encoded(NamedTuple):
    """One batch.

    Attributes:
      x: ``(B, *D)`` in the model's range.
      keys: ``(B,)``, one per example, a function of the seed and the example's number.
      cond: ``{"label": (B,)}``.
      mask: on the host, ``(B,)`` bool: False marks what fills up the last batch.
    """

    x: Array
    keys: Array
    cond: dict[str, Array]
    mask: np.ndarray


def encoded_batches(
    source: Source, scaling: Encoder, mesh: Mesh, *, batch_size: int, seed: int, draws: int = 1
) -> Iterator[Encoded]:
    """The whole source, in order, each example dequantised by its own key.

    Args:
      draws: of the noise; a batch comes so often in a row, every time with other keys.
    """
    size = round_up(min(batch_size, len(source)), mesh)
    split = batch_sharding(mesh)

    def encode(raw: Array, keys: Array) -> Array:
        one = jax.vmap(lambda r, key: scaling.encode(r[None], key)[0])
        return one(raw, fold_in_each(keys, 0))

    compiled = jax.jit(encode, in_shardings=(split, split), out_shardings=split)
    for first, batch in enumerate(eval_batches(source, size, split)):
        keys = sample_keys(seed, jnp.arange(first * size, (first + 1) * size))
        mask = to_host(batch["mask"])
        for draw in range(draws):
            own = fold_in_each(keys, draw + 1) if draw else keys
            yield Encoded(compiled(batch["x"], own), fold_in_each(own, 1), {"label": batch["label"]}, mask)


def to_host(tree: Any) -> Any:
    """Arrays of a whole batch on every host, as numpy."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


Note = Callable[[int, str], None]

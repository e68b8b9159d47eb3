"""A data set as encoded batches whose examples carry their own keys."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from score_sde.arrays import fold_in_each
from score_sde.data import Scaling, Source, eval_batches
from score_sde.mesh import batch_sharding, round_up
from score_sde.sampling import sample_keys


class Encoded(NamedTuple):
    """One batch.

    Attributes:
      x: ``(B, *D)`` in the model's range.
      keys: ``(B,)``, one per example, a function of the seed and the example's number.
      cond: ``{"label": (B,)}``.
      mask: on the host, ``(B,)`` bool: False marks what fills up the last batch.
      log_q: log density of the dequantisation noise, nats ``(B,)``; zero where it is uniform.
    """

    x: Array
    keys: Array
    cond: dict[str, Array]
    mask: np.ndarray
    log_q: Array


Encode = Callable[[Array, Array], tuple[Array, Array]]


def encoded_batches(
    source: Source,
    scaling: Scaling,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    encode: Encode | None = None,
) -> Iterator[Encoded]:
    """The whole source, in order, each example dequantised by its own key.

    Args:
      encode: ``(raw, key) -> x, log_q``, a dequantiser other than the uniform one of ``scaling``.
    """
    size = round_up(min(batch_size, len(source)), mesh)
    split = batch_sharding(mesh)

    def uniform(raw: Array, key: Array) -> tuple[Array, Array]:
        return scaling.encode(raw, key), jnp.zeros(raw.shape[:1])

    def each(raw: Array, keys: Array) -> tuple[Array, Array]:
        one = jax.vmap(lambda r, key: (uniform if encode is None else encode)(r[None], key))
        x, log_q = one(raw, fold_in_each(keys, 0))
        return x[:, 0], log_q[:, 0]

    compiled = jax.jit(each, in_shardings=(split, split), out_shardings=split)
    for first, batch in enumerate(eval_batches(source, size, split)):
        keys = sample_keys(seed, jnp.arange(first * size, (first + 1) * size))
        x, log_q = compiled(batch["x"], keys)
        yield Encoded(
            x,
            fold_in_each(keys, 1),
            {"label": batch["label"]},
            to_host(batch["mask"]),
            log_q,
        )


def to_host(tree: Any) -> Any:
    """Arrays of a whole batch on every host, as numpy."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


Note = Callable[[int, str], None]

"""A data set as encoded batches whose examples carry their own keys."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from score_sde.arrays import Params, Tree, fold_in_each
from score_sde.codecs import NO_PARAMS
from score_sde.data import Source, eval_batches
from score_sde.runtime.mesh import batch_sharding, replicated, round_up
from score_sde.sampling.draw import sample_keys


class Encoder(Protocol):
    """What takes raw data to the state: a codec, or the half of one."""

    def encode(self, params: Params, raw: Array, key: Array) -> Array:
        """``(B, *spec.shape)`` raw to ``(B, *D)`` float32."""
        ...


class Encoded(NamedTuple):
    """One batch.

    Attributes:
      x: ``(B, *D)`` in the model's range.
      keys: ``(B,)``, one per example, a function of the seed and the example's number.
      cond: all conditions of the data, ``(B, *shape)`` each.
      mask: on the host, ``(B,)`` bool: False marks what fills up the last batch.
      log_q: log density of the dequantisation noise, nats ``(B,)``; zero where it is uniform.
    """

    x: Array
    keys: Array
    cond: dict[str, Array]
    mask: np.ndarray
    log_q: Array


Dequantise = Callable[[Array, Array], tuple[Array, Array]]


def encoded_batches(
    source: Source,
    encoder: Encoder,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    draws: int = 1,
    dequantise: Dequantise | None = None,
    params: Params = NO_PARAMS,
) -> Iterator[Encoded]:
    """The whole source, in order, each example encoded by its own key.

    Args:
      params: of the encoder.
      draws: of the noise; a batch comes so often in a row, every time with other keys.
      dequantise: ``(raw, key) -> x, log_q``, in place of the uniform noise of ``encoder``.
    """
    size = round_up(min(batch_size, len(source)), mesh)
    compiled = _compile(encoder, dequantise, mesh)
    names = [name for name, _ in source.spec.conditions]
    for first, batch in enumerate(eval_batches(source, size, batch_sharding(mesh))):
        keys = sample_keys(seed, jnp.arange(first * size, (first + 1) * size))
        mask = to_host(batch["mask"])
        for draw in range(draws):
            own = fold_in_each(keys, draw + 1) if draw else keys
            x, log_q = compiled(params, batch["x"], own)
            yield Encoded(x, fold_in_each(own, 1), {name: batch[name] for name in names}, mask, log_q)


@functools.lru_cache(maxsize=16)
def _compile(
    encoder: Encoder, dequantise: Dequantise | None, mesh: Mesh
) -> Callable[[Params, Array, Array], tuple[Array, Array]]:
    """``(params, raw, keys) -> x, log_q`` of a batch."""

    def each(params: Params, raw: Array, keys: Array) -> tuple[Array, Array]:
        def uniform(raw: Array, key: Array) -> tuple[Array, Array]:
            return encoder.encode(params, raw, key), jnp.zeros(raw.shape[:1])

        one = jax.vmap(lambda r, key: (uniform if dequantise is None else dequantise)(r[None], key))
        x, log_q = one(raw, fold_in_each(keys, 0))
        return x[:, 0], log_q[:, 0]

    split = batch_sharding(mesh)
    return jax.jit(each, in_shardings=(replicated(mesh), split, split), out_shardings=split)


def to_host(tree: Tree) -> Tree:
    """Arrays of a whole batch on every host, as numpy."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


Note = Callable[[int, str], None]

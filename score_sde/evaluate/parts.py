"""A function of examples over all of them: on any number of devices, and resumed where it was killed."""

import functools
import hashlib
from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.arrays import Tree
from score_sde.conditions import Cond
from score_sde.evaluate.batches import Note, to_host
from score_sde.evaluate.cache import NO_CACHE, Cache
from score_sde.runtime.mesh import BATCH, batch_sharding, round_up

_INPUT = "input_sha256"


class Readable(Protocol):
    """Random access to examples, as data sources have."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``x``, ``(n, *D)``, and its conditions, ``(n, *shape)`` by name."""
        ...


PerExample = Callable[[Tree, Array, Cond], dict[str, Array]]  # (params, x, cond) -> arrays of B rows


@functools.lru_cache(maxsize=16)
def compile_parts(function: PerExample, mesh: Mesh) -> PerExample:
    """``function`` jitted, each device with its own examples; equal functions are compiled once."""
    whole, split = PartitionSpec(), PartitionSpec(BATCH)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=(whole, split, split), out_specs=split, check_vma=False)
    )


def map_examples(
    compiled: PerExample,
    params: Tree,
    examples: Readable,
    mesh: Mesh,
    *,
    batch_size: int,
    cache: Cache = NO_CACHE,
    note: Note | None = None,
) -> dict[str, np.ndarray]:
    """Results of all examples, in order, as host arrays of ``len(examples)`` rows.

    The last batch is filled up with copies of its last example, and cut.

    Args:
      compiled: of ``compile_parts``.
      cache: keeps the results of finished batches, each with the digest of its input; it must be named by
        everything but the examples.
      note: called with the count done and a text, after each batch.

    Raises:
      FloatingPointError: a result is not finite; names the example.
    """
    count = len(examples)
    size, split = round_up(min(batch_size, count), mesh), batch_sharding(mesh)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, count, size):
        batch = examples.read(np.arange(start, min(start + size, count)))
        have, digest = len(batch["x"]), _digest(batch)
        part = cache.read(start)
        if part is None or str(part.pop(_INPUT)) != digest:
            cond = {name: _place(_filled(values, size), split) for name, values in batch.items()}
            x = cond.pop("x")
            part = {k: np.asarray(v)[:have] for k, v in to_host(compiled(params, x, cond)).items()}
            _check_finite(part, start)
            cache.write(start, {**part, _INPUT: np.asarray(digest)})
        parts.append(part)
        if note is not None:
            note(start + have, "")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _filled(a: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([a, np.repeat(a[-1:], size - len(a), axis=0)])


def _place(a: np.ndarray, split: NamedSharding) -> Array:
    return jax.make_array_from_callback(a.shape, split, lambda index: a[index])


def _check_finite(part: dict[str, np.ndarray], start: int) -> None:
    for name, a in part.items():
        good = np.isfinite(a.reshape(len(a), -1)).all(axis=1)
        if not good.all():
            raise FloatingPointError(
                f"{name} of example {start + int(np.argmin(good))} is not finite: the integration gave up; "
                "raise max_steps, or loosen rtol and atol"
            )


def _digest(batch: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, a in sorted(batch.items()):
        total.update(f"{name} {a.dtype} {a.shape}".encode())
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()

"""Batches of a source as device arrays: a pure function of (seed, step).

Two placements give identical batches.  "device" puts the whole raw set on the devices once and
gathers there.  "stream" reads each batch from the source, ahead of its use, in a thread or worker
processes, each process of a distributed run reading only the rows its own devices hold.
"""

import atexit
import contextlib
import functools
import itertools
import sys
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from score_sde.data.base import Source
from score_sde.data.order import batch_indices
from score_sde.data.progress import progress

Batch = dict[str, jax.Array]

DEVICE_BYTES = 2**30  # "auto" keeps raw sets up to this size on the devices
_AHEAD = 2  # batches put on the devices before they are asked for
_BUFFERED = 2  # batches read ahead by the thread, or by each worker process
_GROUP = 1024  # examples read at a time while placing the whole set


# Streams still open when the interpreter exits are closed first: grain's iterators fail noisily
# once their modules are gone, and leave shared memory behind.
_open_streams: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    for batches in list(_open_streams):
        with contextlib.suppress(ValueError):  # it is running, in another thread
            batches.close()


def rows_of(sharding: NamedSharding | None, batch_size: int, devices: Iterable[Any]) -> slice:
    """The contiguous rows of a global batch that ``devices`` hold under ``sharding``.

    Raises:
      ValueError: the devices hold rows with gaps between them, so that one process would have to
        assemble its share from pieces; order the mesh by process.
    """
    if sharding is None:
        return slice(0, batch_size)
    held = sharding.devices_indices_map((batch_size,))
    spans = sorted({held[device][0].indices(batch_size)[:2] for device in devices})
    for (_, stop), (start, _) in itertools.pairwise(spans):
        if start != stop:
            raise ValueError(f"a process holds rows with gaps, {spans}: order the mesh by process")
    return slice(spans[0][0], spans[-1][1])


class Batches:
    """Endless training batches of a source.

    Args:
      source: raw examples.
      batch_size: examples in the global batch, over all processes.
      seed: root of the data order.
      sharding: how the batch axis is split over devices; None: the default device.
      placement: "device" (whole raw set on every device; one process only), "stream", or "auto":
        "device" when there is one process and the raw set has at most ``DEVICE_BYTES``.
      num_workers: worker processes of "stream"; 0 reads in a thread.  Workers start by ``spawn``,
        so a script that uses them needs an ``if __name__ == "__main__":`` guard.
      steps_per_dispatch: K > 1 stacks the batches of K consecutive steps on a leading axis.

    Raises:
      ValueError: naming ``training.batch_size`` (not divisible by the devices that share it) or
        another unusable option.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        sharding: NamedSharding | None = None,
        placement: str = "auto",
        num_workers: int = 0,
        steps_per_dispatch: int = 1,
    ):
        _check_divisible(batch_size, sharding)
        if placement not in ("auto", "device", "stream"):
            raise ValueError(f"data.placement = {placement!r}: must be auto, device or stream")
        if num_workers < 0:
            raise ValueError(f"data.num_workers = {num_workers}: must not be negative")
        if steps_per_dispatch < 1:
            raise ValueError(f"training.steps_per_dispatch = {steps_per_dispatch}: must be >= 1")
        if placement == "device" and jax.process_count() > 1:
            raise ValueError("data.placement = 'device' works in one process only; use 'stream'")
        if placement == "auto":
            fits = len(source) * source.spec.example_bytes <= DEVICE_BYTES
            placement = "device" if fits and jax.process_count() == 1 else "stream"
        self.placement = placement
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        self._sharding = sharding
        self._num_workers = num_workers
        self._stacked = steps_per_dispatch

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches of steps ``step``, ``step + 1``, ...

        Returns:
          Endless iterator of ``spec.fields`` as ``(B, *shape)`` arrays by name, ``x`` raw, with a leading
          axis of K steps when ``steps_per_dispatch`` is K > 1 (the next item then starts at
          ``step + K``).  Resuming is starting at the step to resume from.
        """
        if step < 0:
            raise ValueError(f"step = {step}: must not be negative")
        if self.placement == "device":
            return self._gathered(step)
        batches = self._streamed(step)
        _open_streams.add(batches)
        return batches

    def _gathered(self, step: int) -> Iterator[Batch]:
        whole, gather = self._resident
        while True:
            yield gather(whole, self._indices(step).astype(np.int32))
            step += self._stacked

    @functools.cached_property
    def _resident(self):
        """The whole raw set on the devices, and the function that takes a batch from it."""
        everywhere, by_batch = None, None
        if self._sharding is not None:
            everywhere = NamedSharding(self._sharding.mesh, PartitionSpec())
            by_batch = _batch_sharding(self._sharding, self._stacked)
        whole = jax.device_put(_read_all(self._source), everywhere)

        # The set is an argument: a closed-over array would become a constant of the program.
        def gather(whole: Batch, indices: jax.Array) -> Batch:
            return {name: data.at[indices].get(mode="clip") for name, data in whole.items()}

        return whole, jax.jit(gather, out_shardings=by_batch)

    def _indices(self, step: int) -> np.ndarray:
        return _dispatch_indices(self._seed, step, self._batch_size, len(self._source), self._stacked)

    def _streamed(self, step: int) -> Generator[Batch, None, None]:
        elements = _Elements(
            self._source,
            seed=self._seed,
            step=step,
            batch_size=self._batch_size,
            stacked=self._stacked,
            rows=rows_of(self._sharding, self._batch_size, _local_devices(self._sharding)),
        )
        with contextlib.closing(_read_ahead(elements, self._num_workers)) as read:
            yield from _placed(read, self._batch_size, self._sharding, self._stacked)


def eval_batches(source: Source, batch_size: int, sharding: NamedSharding | None = None) -> Iterator[Batch]:
    """The whole source once, in order, in batches of one shape.

    Returns:
      Iterator of ``spec.fields`` as ``(B, *shape)`` arrays by name, ``x`` raw, and ``mask: (B,)`` booleans.
      The last batch is filled up with copies of the first example, where ``mask`` is False.

    Raises:
      ValueError: ``batch_size`` is not divisible by the devices that share it.
    """
    _check_divisible(batch_size, sharding, field="evaluate.batch_size")
    rows = rows_of(sharding, batch_size, _local_devices(sharding))

    def read() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(source), batch_size):
            indices = np.arange(start, start + batch_size)[rows]
            mask = indices < len(source)
            yield {**source.read(np.where(mask, indices, 0)), "mask": mask}

    return _placed(read(), batch_size, sharding, stacked=1)


class _Elements:
    """What grain indexes: element i is this process's share of the i-th dispatch from ``step``."""

    def __init__(self, source: Source, *, seed: int, step: int, batch_size: int, stacked: int, rows: slice):
        self._source, self._seed, self._step = source, seed, step
        self._batch_size, self._stacked, self._rows = batch_size, stacked, rows

    def __len__(self) -> int:
        return sys.maxsize // 2  # grain wants a length; the batches never end

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        indices = _dispatch_indices(
            self._seed,
            self._step + index * self._stacked,
            self._batch_size,
            len(self._source),
            self._stacked,
        )[..., self._rows]
        raw = self._source.read(indices.reshape(-1))
        return {name: a.reshape(indices.shape + a.shape[1:]) for name, a in raw.items()}


def _dispatch_indices(seed: int, step: int, batch_size: int, size: int, stacked: int) -> np.ndarray:
    """``(B,)``, or ``(K, B)`` for ``stacked`` = K > 1."""
    if stacked == 1:
        return batch_indices(seed, step, batch_size, size)
    return np.stack([batch_indices(seed, step + k, batch_size, size) for k in range(stacked)])


def _read_ahead(elements: _Elements, num_workers: int) -> Generator[dict[str, np.ndarray]]:
    import grain  # slow to import, and needed for streaming only

    if num_workers == 0:
        # One thread: decoding small files in two is slower than in one (the GIL, measured);
        # Folder itself decodes big files in threads.
        thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BUFFERED)
        dataset = grain.MapDataset.source(elements).to_iter_dataset(thread)
    else:
        _accept_unparsed_flags()
        serial = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        dataset = grain.MapDataset.source(elements).to_iter_dataset(serial)
        # Through pipes: grain leaves shared memory behind when a stream is closed early, and
        # containers often have little of it.  A few ms per 10 MB, against decoding.
        options = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=_BUFFERED)
        )
    with contextlib.closing(iter(dataset)) as iterator:
        yield from iterator


def _accept_unparsed_flags() -> None:
    """grain's worker processes read absl flags, which exist unparsed outside ``absl.app.run``."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _placed(
    read: Iterator[dict[str, np.ndarray]],
    batch_size: int,
    sharding: NamedSharding | None,
    stacked: int,
) -> Iterator[Batch]:
    """Put each process's shares on its devices as global arrays, a few batches ahead."""
    target = None if sharding is None else _batch_sharding(sharding, stacked)

    def place(a: np.ndarray) -> jax.Array:
        if target is None:
            return jax.device_put(a)
        axis = 0 if stacked == 1 else 1
        shape = (*a.shape[:axis], batch_size, *a.shape[axis + 1 :])
        return jax.make_array_from_process_local_data(target, a, shape)

    ready: deque[Batch] = deque()
    for shares in read:
        ready.append({name: place(a) for name, a in shares.items()})
        if len(ready) > _AHEAD:
            yield ready.popleft()
    yield from ready


def _batch_axis(sharding: NamedSharding):
    """Mesh axis names over which the batch axis is split, None if over none."""
    return sharding.spec[0] if len(sharding.spec) else None


def _batch_sharding(sharding: NamedSharding, stacked: int) -> NamedSharding:
    axis = _batch_axis(sharding)
    spec = PartitionSpec(axis) if stacked == 1 else PartitionSpec(None, axis)
    return NamedSharding(sharding.mesh, spec)


def _local_devices(sharding: NamedSharding | None) -> list[Any]:
    if sharding is None:
        if jax.process_count() > 1:
            raise ValueError("several processes need a sharding of the batch axis")
        return []
    return sorted(sharding.addressable_devices, key=lambda device: device.id)


def _check_divisible(
    batch_size: int, sharding: NamedSharding | None, field: str = "training.batch_size"
) -> None:
    if batch_size < 1:
        raise ValueError(f"{field} = {batch_size}: must be at least 1")
    if sharding is None:
        return
    axis = _batch_axis(sharding)
    names = () if axis is None else (axis,) if isinstance(axis, str) else axis
    count = int(np.prod([sharding.mesh.shape[name] for name in names], dtype=np.int64))
    if batch_size % count:
        raise ValueError(f"{field} = {batch_size}: must be a multiple of the {count} devices that share it")


def _read_all(source: Source) -> dict[str, np.ndarray]:
    size = len(source)
    whole = {name: np.empty((size, *shape), dtype) for name, (shape, dtype) in source.spec.fields.items()}

    def read(start: int) -> int:
        rows = np.arange(start, min(start + _GROUP, size))
        for name, part in source.read(rows).items():
            whole[name][rows] = part
        return int(rows[-1]) + 1

    for _ in progress(map(read, range(0, size, _GROUP)), size, "loading the data set"):
        pass
    return whole

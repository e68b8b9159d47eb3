"""The order of examples: a pure function of the seed and the step.

Nothing about the position in the data needs saving: the batch of step ``s`` is the ``s``-th slice
of the concatenation of one fresh permutation per epoch, whatever was read before, by whom, and on
how many machines.
"""

import functools

import numpy as np

_WORD = 2**64


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Permutation of ``0 .. size - 1`` keyed by ``(seed, epoch)``; ``(size,)`` int64, read-only.

    It ranks raw words of the Philox counter generator, whose stream numpy promises to keep
    (``Generator.permutation`` may change between numpy versions, and with it a resumed run).
    """
    key = np.array([seed % _WORD, epoch], np.uint64)
    words = np.random.Philox(key=key).random_raw(size)
    ranked = np.argsort(words, kind="stable")
    ranked.flags.writeable = False  # the cache hands the same array to every caller
    return ranked


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> np.ndarray:
    """Positions of the examples in the global batch of ``step``.

    Args:
      seed: root of the data order (any integer, taken modulo 2**64).
      step: training step, from 0.
      batch_size: examples in the global batch; may exceed ``size``.
      size: examples in the source.

    Returns:
      ``(batch_size,)`` int64.  Every epoch visits each example once; a batch may run across the
      border of two epochs, so no tail is dropped.

    Raises:
      ValueError: a negative step, or a batch size or size below 1.
    """
    if size < 1:
        raise ValueError(f"cannot draw batches from {size} examples")
    if batch_size < 1:
        raise ValueError(f"training.batch_size = {batch_size}: must be at least 1")
    if step < 0:
        raise ValueError(f"step = {step}: must not be negative")
    start = step * batch_size
    stop = start + batch_size
    parts = []
    for epoch in range(start // size, (stop - 1) // size + 1):
        border = epoch * size
        parts.append(permutation(seed, epoch, size)[max(start - border, 0) : stop - border])
    return np.concatenate(parts)

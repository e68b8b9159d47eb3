"""Features that arrive in parts, as one array: in memory, or in a file where they would fill it."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from score_sde.evaluate.scores import Sampled

MOST_BYTES = 2**30  # of an array that is held in memory


def fill(parts: Iterable[Sampled], count: int, directory: Path, *, most_bytes: int = MOST_BYTES) -> Sampled:
    """All parts together, in order.

    Args:
      count: examples in all parts.
      directory: where an array of more than ``most_bytes`` is stored, in a file without a name that is gone
        when the array is; made if it is not there.

    Raises:
      ValueError: the parts have more or fewer examples.
    """
    features = logits = None
    done = 0
    for part in parts:
        if features is None:
            features = _room(count, part.features, directory, most_bytes)
            logits = None if part.logits is None else _room(count, part.logits, directory, most_bytes)
        stop = done + len(part.features)
        if stop > count:
            break
        features[done:stop] = part.features
        if logits is not None:
            logits[done:stop] = part.logits
        done = stop
    if features is None or done != count:
        raise ValueError(f"there are features of {done} examples or more, not of {count}")
    return Sampled(features, logits)


def _room(count: int, like: np.ndarray, directory: Path, most_bytes: int) -> np.ndarray:
    shape = (count, *like.shape[1:])
    if int(np.prod(shape)) * like.dtype.itemsize <= most_bytes:
        return np.empty(shape, like.dtype)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        return np.memmap(file, like.dtype, "w+", shape=shape)


def blocks(count: int, size: int = 8192) -> Iterator[slice]:
    """Rows ``0 .. count - 1`` in order, at most ``size`` at a time: what is held in float64."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))

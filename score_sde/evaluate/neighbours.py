"""Nearest training examples: whether a model repeats what it was shown."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Neighbours(NamedTuple):
    """The nearest examples of each sample, nearest first.

    Attributes:
      distance: ``(N, k)`` float64, root mean square difference per value, in units of the values.
      number: ``(N, k)`` int64, where they are in the data.
    """

    distance: np.ndarray
    number: np.ndarray


def nearest_examples(samples: np.ndarray, batches: Iterable[np.ndarray], k: int) -> Neighbours:
    """Search data that arrive in batches ``(B, *D)``, in order, for the ``k`` nearest of ``(N, *D)``.

    Raises:
      ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"k = {k}: must be at least 1")
    x = samples.reshape(len(samples), -1).astype(np.float64)
    best = np.full((len(x), 0), np.inf)
    index = np.zeros((len(x), 0), np.int64)
    seen = 0
    for batch in batches:
        y = batch.reshape(len(batch), -1).astype(np.float64)
        squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1)[None, :] - 2 * x @ y.T
        numbers = np.broadcast_to(np.arange(seen, seen + len(y))[None, :], squares.shape)
        best = np.concatenate([best, np.maximum(squares, 0.0)], axis=1)
        index = np.concatenate([index, numbers], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :k]
        best, index = np.take_along_axis(best, order, axis=1), np.take_along_axis(index, order, axis=1)
        seen += len(y)
    return Neighbours(np.sqrt(best / x.shape[1]), index)

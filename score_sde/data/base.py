"""What a data source is: its shape, and random access to raw examples."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Spec:
    """One raw example of a source.

    Attributes:
      shape: shape of one example, channels last: ``(H, W, C)``, ``(L, C)``, ...
      levels: integer data take the values ``0 .. levels - 1`` and are stored as uint8 (256 for
        images, 17 for digits), above 256 as uint16; None means continuous float32 data.
      num_classes: labels are ``0 .. num_classes - 1``; 0 means unlabelled (every label is -1).
    """

    shape: tuple[int, ...]
    levels: int | None
    num_classes: int

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16 for integer data, float32 for continuous data."""
        if self.levels is None:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.levels <= 256 else np.uint16)

    @property
    def example_bytes(self) -> int:
        """Bytes one raw example takes in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Source(Protocol):
    """Random access to raw examples.  Implementations are picklable and hold no device arrays."""

    spec: Spec

    def __len__(self) -> int:
        """Number of examples, always positive."""
        ...

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Raw examples at ``indices``, a ``(n,)`` integer array with values in ``[0, len)``.

        Returns:
          ``{"x": (n, *spec.shape) of spec.dtype, "label": (n,) int32}``; label -1: unlabelled.
        """
        ...


def check_split(split: str) -> None:
    """Raise ValueError unless ``split`` is ``"train"`` or ``"test"``."""
    if split not in ("train", "test"):
        raise ValueError(f"data.split = {split!r}: must be 'train' or 'test'")


def check_fraction(held_out: float) -> None:
    """Raise ValueError unless ``held_out`` is a fraction in ``[0, 1)``."""
    if not 0 <= held_out < 1:
        raise ValueError(f"data.source.held_out = {held_out}: must be a fraction in [0, 1)")

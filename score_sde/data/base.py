"""What a data source is: its shape, and random access to raw examples."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from score_sde.conditions import (
    Conditions,
    Json,
    bytes_of,
    conditions_from_json,
    conditions_to_json,
)
from score_sde.data.columns import Columns, columns_from_json, columns_to_json

RESERVED = frozenset({"x", "mask"})  # what a batch holds beside conditions


@dataclass(frozen=True)
class Spec:
    """One raw example of a source.

    Attributes:
      shape: shape of one example, channels last: ``(H, W, C)``, ``(L, C)``, ...
      grey_levels: integer data take the values ``0 .. grey_levels - 1`` and are stored as uint8 (256 for
        images, 17 for digits), above 256 as uint16; None means continuous float32 data.
      conditions: what an example has beside ``x``: name and condition, in order.
      columns: what the entries of the last axis are, where they are columns of a table or channels of a
        series; empty elsewhere.

    Raises:
      ValueError: a condition that is called as something else in a batch is, or twice the same name.
    """

    shape: tuple[int, ...]
    grey_levels: int | None
    conditions: Conditions = ()
    columns: Columns = ()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.conditions]
        if len(set(names)) < len(names) or not RESERVED.isdisjoint(names):
            raise ValueError(
                f"conditions are called {', '.join(names)}: must have different names, and not be "
                f"{' or '.join(sorted(RESERVED))}"
            )

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16 for integer data, float32 for continuous data."""
        if self.grey_levels is None:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.grey_levels <= 256 else np.uint16)

    @property
    def example_bytes(self) -> int:
        """Bytes one raw example takes in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize + bytes_of(self.conditions)

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of everything that an example has, by name."""
        conditions = {name: (one.shape, one.dtype) for name, one in self.conditions}
        return {"x": (self.shape, self.dtype), **conditions}

    def to_json(self) -> dict[str, Json]:
        """For a file; ``from_json`` reads it."""
        return {
            "shape": list(self.shape),
            "grey_levels": self.grey_levels,
            "conditions": conditions_to_json(self.conditions),
            "columns": columns_to_json(self.columns),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Spec":
        """What ``to_json`` has written.

        Raises:
          ValueError, KeyError, TypeError: it is not such a value.
        """
        conditions = conditions_from_json(value["conditions"])
        columns = columns_from_json(value.get("columns", ()))
        return cls(tuple(int(size) for size in value["shape"]), value["grey_levels"], conditions, columns)


class Source(Protocol):
    """Random access to raw examples.  Implementations are picklable and hold no device arrays."""

    @property
    def spec(self) -> Spec:
        """What an example is."""
        ...

    def __len__(self) -> int:
        """Number of examples, always positive."""
        ...

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Raw examples at ``indices``, a ``(n,)`` integer array with values in ``[0, len)``.

        Returns:
          Exactly ``spec.fields``: ``{"x": (n, *spec.shape) of spec.dtype}`` and one ``(n, *shape)`` array for
          each condition by its name, with its null value where an example has none.
        """
        ...


class Late:
    """A source that is opened when something is asked of it: for data that may be missing where not read.

    Args:
      open: gives the source; what it raises comes with the first use.
    """

    def __init__(self, open: Callable[[], Source]):
        self._open = open

    @functools.cached_property
    def _source(self) -> Source:
        return self._open()

    @property
    def spec(self) -> Spec:
        """That of the source."""
        return self._source.spec

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Raw examples, as of the source."""
        return self._source.read(indices)


def check_split(split: str) -> None:
    """Raise ValueError unless ``split`` is ``"train"`` or ``"test"``."""
    if split not in ("train", "test"):
        raise ValueError(f"split = {split!r}: must be 'train' or 'test'")


def check_gaps(name: str, label: np.ndarray) -> None:
    """Refuse labels of which most numbers up to the largest are missing, or that hardly two examples share: a
    network has a row for each.

    Args:
      name: of the labels, for the message.
      label: integers from 0.

    Raises:
      ValueError: says how many different labels there are, which is the largest, and how to renumber them.
    """
    largest, different = int(label.max()), len(np.unique(label))
    if different > 1000 and 2 * different > len(label):
        raise ValueError(
            f"{name}: {different} different labels of {len(label)} examples, the largest of them {largest}: "
            "these are no classes, of which each has many examples"
        )
    if largest >= 100 + 10 * different:
        raise ValueError(
            f"{name}: {different} different labels, of which the largest is {largest}: a model would have "
            f"{largest + 1} classes; number them from 0: numpy.unique(label, return_inverse=True)[1]"
        )


def none_left(held_out: float, whole: str, split: str, instead: str) -> str:
    """What is said of a split without examples.

    Args:
      whole: of what it is a part.
      instead: another way to it.
    """
    without = "; training without measurements needs none: training.eval_every_steps = 0"
    return (
        f"data.source.held_out = {held_out}: leaves none of the {whole} for the {split} split; change it, or "
        f"{instead}{without if split == 'test' else ''}"
    )


def check_fraction(held_out: float) -> None:
    """Raise ValueError unless ``held_out`` is a fraction in ``[0, 1)``."""
    if not 0 <= held_out < 1:
        raise ValueError(f"data.source.held_out = {held_out}: must be a fraction in [0, 1)")

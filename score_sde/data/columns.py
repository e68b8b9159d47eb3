"""What the columns of a table, or the channels of a series, hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_sde.conditions import Json

_SHOWN = 8  # categories that a message lists


@dataclass(frozen=True)
class Column:
    """One column: numbers in units of their own, or one of some categories.

    Attributes:
      name: in the header.
      mean, std: of the numbers of the training split; not used for categories.
      categories: their names, in order; empty for numbers.  A raw value is a number from 0 in this order.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Entries of the state that it takes: one for a number, one for each category."""
        return len(self.categories) or 1

    def code(self, text: str) -> float:
        """The raw value of a cell that is not empty.

        Raises:
          ValueError: no finite number, or a category that the column does not have; lists those it has.
        """
        if self.categories:
            if text not in self.categories:
                shown = ", ".join(map(repr, self.categories[:_SHOWN]))
                more = ", ..." if len(self.categories) > _SHOWN else ""
                raise ValueError(
                    f"column {self.name!r}: {text!r} is not one of the {len(self.categories)} "
                    "categories that "
                    f"the model was trained with: {shown}{more}"
                )
            return float(self.categories.index(text))
        value = number(text)
        if value is None:
            raise ValueError(
                f"column {self.name!r}: {text!r} is not a finite number; leave the cell empty if "
                "it is missing"
            )
        return value

    def text(self, value: float) -> str:
        """A raw value as the cell of a file: six digits of a number, or the name of a category."""
        return self.categories[int(value)] if self.categories else f"{float(value):.6g}"


Columns = tuple[Column, ...]  # in order; a tuple, so that what holds them can be hashed


def number(text: str) -> float | None:
    """The finite number that a cell holds; None for none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in text else None


def columns_to_json(columns: Columns) -> list[Json]:
    """For a file; ``columns_from_json`` reads it."""
    return [{"name": c.name, "mean": c.mean, "std": c.std, "categories": list(c.categories)} for c in columns]


def columns_from_json(value: Sequence[Mapping[str, Any]]) -> Columns:
    """What ``columns_to_json`` has written.

    Raises:
      KeyError, TypeError: it is not such a value.
    """
    return tuple(
        Column(str(c["name"]), float(c["mean"]), float(c["std"]), tuple(map(str, c["categories"])))
        for c in value
    )


def check_same(trained: Columns, found: Columns, where: str) -> None:
    """Refuse data whose columns or categories are others than those that a model was trained with.

    Means and deviations may differ: those of the training count.

    Args:
      where: names the data at hand.

    Raises:
      ValueError: names the first difference.
    """
    old, new = ([(c.name, c.categories) for c in columns] for columns in (trained, found))
    if old == new:
        return
    names = [[name for name, _ in columns] for columns in (old, new)]
    if names[0] != names[1]:
        said = f"columns {', '.join(names[1]) or 'none'} here, and {', '.join(names[0]) or 'none'} then"
    else:
        name, before, now = next((a[0], a[1], b[1]) for a, b in zip(old, new, strict=True) if a != b)
        kinds = [", ".join(map(repr, categories)) or "numbers" for categories in (now, before)]
        said = f"column {name!r} has {kinds[0]} here, and {kinds[1]} then"
    raise ValueError(
        f"{where}: is another table than the model was trained with: {said}; use the data as they were, or "
        "train in another workdir"
    )

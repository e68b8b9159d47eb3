"""Windows of a multivariate series, split by time."""

import os
import warnings
from pathlib import Path

import numpy as np

from score_sde.data.base import Spec, check_fraction, check_split
from score_sde.data.csv_file import read_cells
from score_sde.data.table import check_holes, check_some, numbers_of, select, standard


class Series:
    """Windows of a series: rows in the order of time, a column for each channel.

    The last ``held_out`` of the rows are the test split: no row is in windows of both.  The mean and
    deviation of a channel are those of the training rows.

    Args:
      split: ``"train"`` or ``"test"``.
      path: CSV file with a header (UTF-8, commas; an empty cell is missing), or ``.npy`` of ``(T, C)``
        numbers (NaN is missing), whose channels are called ``channel_0`` and so on.
      length: rows of a window.
      stride: rows from one window to the next.
      columns: names of the channels; empty: all columns.
      holes: what is done with windows that have missing cells: ``refuse`` or ``drop`` them.
      held_out: fraction in [0, 1) of the rows in "test", the last ones.

    Attributes:
      spec: ``(length, C)`` float32.

    Raises:
      ValueError: a missing file or one that is no table of numbers, a series that is too short, missing cells
        that are refused, or a channel that is constant.
    """

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        length: int = 48,
        stride: int = 1,
        columns: tuple[str, ...] = (),
        holes: str = "refuse",
        held_out: float = 0.1,
    ):
        check_split(split)
        check_fraction(held_out)
        check_holes(holes)
        for field, value in (("length", length), ("stride", stride)):
            if value < 1:
                raise ValueError(f"data.source.{field} = {value}: must be positive")
        where = f"data.source.path = {str(path)!r}"
        names, values = read_series(path, columns, where)
        train = len(values) - round(held_out * len(values))
        found = tuple(standard(values[:train, i], name, where) for i, name in enumerate(names))
        part = values[:train] if split == "train" else values[train:]
        if len(part) < length:
            raise ValueError(
                f"data.source.length = {length}: the {split} split has {len(part)} of the "
                f"{len(values)} rows; "
                "take shorter windows, or change data.source.held_out"
            )
        self._starts = _without_holes(
            part, np.arange(0, len(part) - length + 1, stride), length, holes, where
        )
        self._values = part.astype(np.float32)
        self.spec = Spec((length, len(found)), None, columns=found)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, length, C) float32}``."""
        rows = self._starts[indices][:, None] + np.arange(self.spec.shape[0])
        return {"x": self._values[rows]}


def read_series(
    path: str | os.PathLike[str], columns: tuple[str, ...], where: str
) -> tuple[list[str], np.ndarray]:
    """Names of the channels and the series, ``(T, C)`` float64 with NaN where a value is missing.

    Raises:
      ValueError: a file that is no table of numbers, or a channel that does not exist or has no value.
    """
    if Path(path).suffix == ".npy":
        return _array(Path(path).expanduser(), columns, where)
    cells = select(read_cells(path, where), columns, (), where)
    for name in cells.header:
        check_some(cells.column(name), name, where)
    values = [numbers_of(cells.column(name), name, where) for name in cells.header]
    return cells.header, np.stack(values, axis=1)


def _array(file: Path, columns: tuple[str, ...], where: str) -> tuple[list[str], np.ndarray]:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}: cannot be read: {error}") from error
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fiu":
        raise ValueError(f"{where}: holds {values.dtype} of shape {values.shape}: must be numbers (T, C)")
    names = [f"channel_{i}" for i in range(values.shape[1])]
    for name in columns:
        if name not in names:
            raise ValueError(f"data.source.columns = {columns}: {where} has no channel {name!r}")
    values = values.astype(np.float64)
    if np.isinf(values).any():
        raise ValueError(f"{where}: holds infinite values; NaN stands for a missing one")
    chosen = list(columns) or names
    return chosen, values[:, [names.index(name) for name in chosen]]


def _without_holes(part: np.ndarray, starts: np.ndarray, length: int, holes: str, where: str) -> np.ndarray:
    """The starts of windows without a missing value."""
    bad = np.concatenate([[0], np.cumsum(np.isnan(part).any(axis=1))])
    full = bad[starts + length] == bad[starts]
    if full.all():
        return starts
    missing = f"{where}: {int((~full).sum())} of {len(full)} windows have missing values"
    if holes == "refuse":
        raise ValueError(f"{missing}; data.source.holes = 'drop' leaves these windows out")
    if not full.any():
        raise ValueError(f"{missing}: none is left; take a shorter data.source.length")
    warnings.warn(f"{missing} and are left out", stacklevel=3)
    return starts[full]

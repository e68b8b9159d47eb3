"""Missing cells of tables and series: what the filled ones are, of samples of them."""

from dataclasses import dataclass

import numpy as np

from score_sde.data.columns import Columns
from score_sde.inverse.edits import Edit, Given, Shape
from score_sde.inverse.mask import MASK, Mask


@dataclass(frozen=True, kw_only=True)
class Impute(Edit):
    """Fill the missing cells of a table or a series.

    Attributes:
      draws: samples of each row, or of each window of a series; the cells get their mean or mode.
    """

    draws: int = 50

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws = {self.draws}: must be positive")

    def operator(self, shape: Shape) -> Mask:
        return Mask()

    def given(self, shape: Shape, count: int, *, seed: int = 0, first: int = 0) -> Given:
        raise ValueError("impute is for tables and series, and this is a picture; inpaint fills pictures")

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return np.where(given[MASK] > 0, measured, low)


def spread_columns(of_columns: np.ndarray, columns: Columns) -> np.ndarray:
    """One value for each column as one for each entry of the state: ``(..., F)`` to ``(..., W)``."""
    return np.repeat(of_columns, [column.width for column in columns], axis=-1)


def fill_holes(values: np.ndarray, columns: Columns) -> np.ndarray:
    """``(..., F)`` with what a codec can encode in place of NaN: the column's mean, or its first category."""
    return np.where(np.isnan(values), [column.mean for column in columns], values)


def summarise(samples: np.ndarray, columns: Columns) -> np.ndarray:
    """The mean of numbers and the most frequent category: ``(N, draws, ..., F)`` to ``(N, ..., F)`` float64.

    Of equally frequent categories it is the first.
    """
    summary = samples.mean(axis=1, dtype=np.float64)
    for i, column in enumerate(columns):
        if column.categories:
            summary[..., i] = shares(samples[..., i], column.width).argmax(axis=-1)
    return summary


def shares(codes: np.ndarray, categories: int) -> np.ndarray:
    """How often each category was drawn: ``(N, draws, ...)`` to ``(N, ..., categories)``, sums of one."""
    return np.stack([(codes == k).mean(axis=1) for k in range(categories)], axis=-1)


def windows(count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows that cover a series, half of each in the next, and which of them says what of a row.

    Args:
      count: rows of the series, at least ``length``.

    Returns:
      The first rows of the windows, ``(K,)``, and for each row the window in which it is farthest from the
      ends, ``(count,)``.
    """
    last = count - length
    starts = np.unique([*range(0, last + 1, max(1, length // 2)), last])
    place = np.arange(count)[None] - starts[:, None]
    inside = np.where((place >= 0) & (place < length), np.minimum(place, length - 1 - place), -1)
    return starts, inside.argmax(axis=0)

"""Rows of a table: numbers and categories."""

import os
import warnings

import numpy as np

from score_sde.data.base import Spec, check_fraction, check_split
from score_sde.data.columns import Column, Columns, number
from score_sde.data.csv_file import Cells, read_cells
from score_sde.data.order import permutation

_HOLES = ("refuse", "drop")


class Table:
    """Rows of a CSV file with a header, or of a set that scikit-learn ships.

    A column whose cells are all numbers holds numbers, a column of other texts categories.  Means, deviations
    and categories are those of the training split.  An empty cell is missing.

    Args:
      split: ``"train"`` or ``"test"``.
      path: CSV file (UTF-8, commas), or ``sklearn:`` and ``breast_cancer``, ``diabetes``, ``iris``,
        ``linnerud`` or ``wine``.
      columns: names of those that count; empty: all.
      categories: names of columns of numbers that are categories all the same.
      holes: what is done with rows that have missing cells: ``refuse`` or ``drop`` them.
      held_out: fraction in [0, 1) of the rows in "test", chosen by one fixed permutation, whatever the seed
        of the run.

    Attributes:
      spec: ``(F,)`` float32, one entry a column: a number, or the place of a category among those of the
        column.

    Raises:
      ValueError: a missing file or one that is no table, missing cells that are refused, a column that is
        constant, all missing, neither numbers nor categories, or does not exist.
    """

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        columns: tuple[str, ...] = (),
        categories: tuple[str, ...] = (),
        holes: str = "refuse",
        held_out: float = 0.1,
    ):
        check_split(split)
        check_fraction(held_out)
        check_holes(holes)
        where = f"data.source.path = {str(path)!r}"
        cells = select(read_cells(path, where), columns, categories, where)
        kinds = {name: _is_categories(cells.column(name), name, categories, where) for name in cells.header}
        full = np.array([all(row) for row in cells.rows])
        for name in cells.header:
            check_some(cells.column(name), name, where)
        if not full.all():
            _say_holes(full, holes, where)
        rows = [row for row, keep in zip(cells.rows, full, strict=True) if keep]
        train, test = _split(len(rows), held_out)
        inside = Cells(cells.header, [rows[i] for i in train])
        found = tuple(_column(inside.column(name), name, kinds[name], where) for name in inside.header)
        chosen = [rows[i] for i in (train if split == "train" else test)]
        if not chosen:
            raise ValueError(
                f"data.source.held_out = {held_out}: leaves none of the {len(rows)} rows for the "
                f"{split} split; "
                "change it"
            )
        self._x = _coded(chosen, found, where)
        self.spec = Spec((len(found),), None, columns=found)

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, F) float32}``."""
        return {"x": self._x[indices]}


def check_holes(holes: str) -> None:
    """Raise ValueError unless ``holes`` says what is done with missing cells."""
    if holes not in _HOLES:
        raise ValueError(f"data.source.holes = {holes!r}: must be 'refuse' or 'drop'")


def select(cells: Cells, columns: tuple[str, ...], categories: tuple[str, ...], where: str) -> Cells:
    """The table with the named columns only, in that order; all, where none is named.

    Raises:
      ValueError: a name that the header does not have.
    """
    for field, names in (("columns", columns), ("categories", categories)):
        for name in names:
            if name not in (cells.header if field == "columns" else columns or cells.header):
                raise ValueError(
                    f"data.source.{field} = {names}: {where} has no column {name!r} among "
                    f"{', '.join(cells.header)}"
                )
    if not columns:
        return cells
    places = [cells.header.index(name) for name in columns]
    return Cells(list(columns), [[row[place] for place in places] for row in cells.rows])


def check_some(texts: list[str], name: str, where: str) -> None:
    """Refuse a column without a single value."""
    if not any(texts):
        raise ValueError(
            f"{where}: every cell of column {name!r} is empty; leave it out by data.source.columns"
        )


def numbers_of(texts: list[str], name: str, where: str) -> np.ndarray:
    """The numbers of a column, ``(N,)`` float64, NaN where a cell is empty.

    Raises:
      ValueError: a cell that holds something else; says which.
    """
    values = [np.nan if not text else number(text) for text in texts]
    for i, value in enumerate(values):
        if value is None:
            raise ValueError(
                f"{where}: column {name!r} holds numbers, and {texts[i]!r} in row {i + 1}, which "
                "is no finite "
                "number; leave the cell empty if it is missing"
            )
    return np.array(values, np.float64)


def standard(values: np.ndarray, name: str, where: str) -> Column:
    """A column of numbers with their mean and standard deviation; NaN does not count.

    Raises:
      ValueError: all of them are the same.
    """
    mean, std = float(np.nanmean(values)), float(np.nanstd(values))
    if not std > 1e-9 * max(1e-30, float(np.nanmax(np.abs(values)))):
        raise ValueError(
            f"{where}: every value of column {name!r} in the training split is {values[0]:g}; "
            "leave the column "
            "out by data.source.columns"
        )
    return Column(name, mean, std)


def _is_categories(texts: list[str], name: str, stated: tuple[str, ...], where: str) -> bool:
    if name in stated:
        return True
    given = [text for text in texts if text]
    numbers = sum(number(text) is not None for text in given)
    if 2 * numbers > len(given):
        numbers_of(texts, name, where)  # all must be
        return False
    return numbers < len(given)


def _column(texts: list[str], name: str, categories: bool, where: str) -> Column:
    if not categories:
        return standard(numbers_of(texts, name, where), name, where)
    different = sorted(set(texts), key=lambda text: (number(text) is None, number(text) or 0.0, text))
    if len(different) < 2:
        raise ValueError(
            f"{where}: every cell of column {name!r} in the training split is {different[0]!r}; "
            "leave the column "
            "out by data.source.columns"
        )
    if len(different) > 20 and 2 * len(different) > len(texts):
        raise ValueError(
            f"{where}: column {name!r} has {len(different)} different texts in {len(texts)} "
            "rows, which are no "
            "categories; leave the column out by data.source.columns"
        )
    return Column(name, categories=tuple(different))


def _split(count: int, held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the test split, in order."""
    order, train = permutation(0, 0, count), count - round(held_out * count)
    return np.sort(order[:train]), np.sort(order[train:])


def _coded(rows: list[list[str]], columns: Columns, where: str) -> np.ndarray:
    """Raw values, without the rows that have a category which no row of the training split has."""
    known, unknown = [], []
    for row in rows:
        strange = [
            (column.name, text)
            for column, text in zip(columns, row, strict=True)
            if column.categories and text not in column.categories
        ]
        (unknown if strange else known).append(strange or row)
    if unknown:
        name, text = unknown[0][0]
        warnings.warn(
            f"{where}: {len(unknown)} of {len(rows)} held-out rows are left out: they have "
            "categories that no "
            f"training row has, such as {text!r} in column {name!r}",
            stacklevel=3,
        )
    if not known:
        raise ValueError(f"{where}: every held-out row has a category that no training row has")
    return np.array(
        [[c.code(text) for c, text in zip(columns, row, strict=True)] for row in known], np.float32
    )


def _say_holes(full: np.ndarray, holes: str, where: str) -> None:
    missing = int((~full).sum())
    if holes == "refuse":
        raise ValueError(
            f"{where}: {missing} of {len(full)} rows have missing cells, the first is row "
            f"{int(np.argmin(full)) + 1} after the header; data.source.holes = 'drop' trains "
            "without these rows"
        )
    if not full.any():
        raise ValueError(
            f"{where}: each of the {len(full)} rows has a missing cell: none is left to train on"
        )
    warnings.warn(f"{where}: {missing} of {len(full)} rows have missing cells and are left out", stacklevel=3)

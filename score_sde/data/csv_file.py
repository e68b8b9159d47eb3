"""Tables as text: a header and rows of cells, of a CSV file or of a set that scikit-learn ships."""

import csv
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_sde.data.columns import number

SHIPPED = "sklearn:"  # before the name of a set of scikit-learn
_SETS = ("breast_cancer", "diabetes", "iris", "linnerud", "wine")


@dataclass(frozen=True)
class Cells:
    """A table as its file has it.

    Attributes:
      header: names of the columns.
      rows: cells as text, one list for each row, as long as the header; an empty cell is missing.
    """

    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """The cells of a column from the top."""
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def read_cells(path: str | os.PathLike[str], where: str) -> Cells:
    """The table of a CSV file (UTF-8, commas), or of ``sklearn:NAME``.

    Args:
      where: begins messages.

    Raises:
      ValueError: a missing or unreadable file, no header, a name twice, a ragged row, or no row.
    """
    if str(path).startswith(SHIPPED):
        return _shipped(str(path).removeprefix(SHIPPED), where)
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"{where}: no such file (looked for {file.absolute()})")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = [row for row in csv.reader(stream, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: cannot be read as comma-separated UTF-8 text: {error}") from error
    if not lines:
        raise ValueError(f"{where}: the file is empty")
    cells = Cells([name.strip() for name in lines[0]], [[cell.strip() for cell in row] for row in lines[1:]])
    _check(cells, where)
    return cells


def _check(cells: Cells, where: str) -> None:
    header, count = cells.header, len(cells.header)
    numbers = [name for name in header if number(name) is not None]
    if not all(header) or numbers:
        what = f"{numbers[0]!r} there is a number" if numbers else "a name there is empty"
        raise ValueError(f"{where}: the first row must be a header with the names of the columns; {what}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: the header has {', '.join(map(repr, twice))} more than once")
    for i, row in enumerate(cells.rows):
        if len(row) != count:
            raise ValueError(f"{where}: row {i + 1} after the header has {len(row)} cells, not {count}")
    if not cells.rows:
        raise ValueError(f"{where}: there is no row after the header")


def write_cells(path: Path, cells: Cells) -> None:
    """Write a CSV file that ``read_cells`` reads as the same cells."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(cells.header)
        writer.writerows(cells.rows)


def _shipped(name: str, where: str) -> Cells:
    """A table that scikit-learn ships, its target the last columns."""
    if name not in _SETS:
        known = ", ".join(SHIPPED + one for one in _SETS)
        raise ValueError(f"{where}: scikit-learn ships no such table; there are {known}")
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError(f"{where}: needs scikit-learn: pip install scikit-learn") from error
    found = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    targets = found["target"].reshape(len(found["data"]), -1)
    classes = [str(one) for one in found.get("target_names", ())]
    named = targets.dtype.kind == "i"  # numbers of classes
    beside = ["class"] if named else classes or ["target"]
    rows = [
        [*(f"{value:.9g}" for value in x), *(classes[y] if named else f"{y:.9g}" for y in target)]
        for x, target in zip(found["data"], targets, strict=True)
    ]
    return Cells([*map(str, found["feature_names"]), *beside], rows)

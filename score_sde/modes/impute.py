"""``--mode=edit --task=impute``."""

from pathlib import Path
from typing import Any

import numpy as np

from score_sde.data.csv_file import Cells, read_cells, write_cells
from score_sde.flags import Options
from score_sde.inverse.impute import Impute
from score_sde.modes.run import model_of, output_of, seed_of
from score_sde.names import ConfigError
from score_sde.runs.impute import Imputed, columns_of, impute, impute_series, raw_values
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles that are written: the ends of intervals of 90 and of 50 %, and the median."""


def fill_table(options: Options) -> int:
    """Fill the empty cells of the CSV file ``--input``: the mean of samples, or the most frequent category.

    Other cells are copied as they are.  Beside the ``--output`` a ``.npz`` holds the samples and their
    quantiles.
    """
    section = options.config.edit
    task = section.task.build()
    assert isinstance(task, Impute)
    if section.samples != type(section).samples:
        raise ConfigError(
            f"config.edit.samples = {section.samples}: is for pictures; of a row it is config.edit.task.draws"
        )
    if options.input is None:
        raise ConfigError("--task=impute: needs --input=FILE.csv, a table whose empty cells are to be filled")
    output = output_of(options, "samples/filled.csv", "a filled table is a .csv file", ".csv")
    model = model_of(options)
    columns, where = columns_of(model), f"--input={options.input}"
    cells = read_cells(options.input, where)
    try:
        values = raw_values(columns, {name: cells.column(name) for name in cells.header})
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    missing = np.isnan(values)
    if not missing.any():
        raise ConfigError(f"{where}: no cell of the model's columns is empty: there is nothing to fill")
    series = len(model.architecture.spec.shape) == 2
    title, steps = f"impute (checkpoint {model.step})", int(missing.sum())
    with Progress(steps, title, "cell", quiet=not is_chief()) as progress:
        found = (impute_series if series else impute)(
            model,
            values,
            draws=task.draws,
            method=section.method.name,
            options=section.method.options,
            noise_std=section.noise_std,
            seed=seed_of(options),
            progress=lambda step: progress.update(0, f"step {step + 1}"),
        )
        progress.update(steps)
    if is_chief():
        output.parent.mkdir(parents=True, exist_ok=True)
        _write(output, cells, found, values.shape)
    say(f"{steps} cells filled, {task.draws} samples of each: {output} and {output.with_suffix('.npz').name}")
    return 0


def _write(output: Path, cells: Cells, found: Imputed, shape: tuple[int, ...]) -> None:
    """The table with its holes filled, and the arrays behind it."""
    filled, missing = found.values.reshape(shape), found.missing.reshape(shape)
    rows = [list(row) for row in cells.rows]
    for i, column in enumerate(found.columns):
        place = cells.header.index(column.name)
        for j in np.flatnonzero(missing[:, i]):
            rows[j][place] = column.text(filled[j, i])
    write_cells(output, Cells(cells.header, rows))
    shared: dict[str, Any] = {
        f"categories_{c.name}": np.array(c.categories) for c in found.columns if c.categories
    }
    likely: dict[str, Any] = {
        f"probabilities_{c.name}": found.probabilities(c.name) for c in found.columns if c.categories
    }
    arrays: dict[str, Any] = dict(
        columns=np.array([column.name for column in found.columns]),
        values=filled,
        missing=missing,
        rows=found.rows,
        samples=found.samples,
        levels=np.array(LEVELS),
        quantiles=np.stack([found.quantile(level) for level in LEVELS]),
    )
    np.savez(output.with_suffix(".npz"), **arrays, **shared, **likely)

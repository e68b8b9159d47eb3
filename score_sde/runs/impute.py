"""Missing cells of tables and series, filled by a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from score_sde.data.columns import Columns
from score_sde.data.known import KNOWN
from score_sde.inverse import MASK, Mask
from score_sde.inverse.impute import fill_holes, shares, spread_columns, summarise, windows
from score_sde.names import ConfigError
from score_sde.runs.model import Model
from score_sde.sampling.chunks import Progress

DRAWS = 50


@dataclass(frozen=True)
class Imputed:
    """Filled rows, or windows, and the samples behind them.

    Attributes:
      columns: what the last axis holds.
      values: ``(N, *S, F)`` float64: what was given where something was, elsewhere the mean of the samples,
        or their most frequent category as its number.
      missing: where cells were filled, ``(N, *S, F)``.
      rows: which of the ``N`` had missing cells, ``(R,)``.
      samples: of those, ``(R, draws, *S, F)`` float32; what was given is the same in all.
    """

    columns: Columns
    values: np.ndarray
    missing: np.ndarray
    rows: np.ndarray
    samples: np.ndarray

    def quantile(self, level: float) -> np.ndarray:
        """A quantile of the samples, ``(R, *S, F)`` float64; NaN in columns of categories."""
        result = np.quantile(self.samples.astype(np.float64), level, axis=1)
        return np.where([bool(column.categories) for column in self.columns], np.nan, result)

    def probabilities(self, name: str) -> np.ndarray:
        """How often each category of a column was drawn, ``(R, *S, categories)``.

        Raises:
          ValueError: there is no such column of categories.
        """
        for i, column in enumerate(self.columns):
            if column.name == name and column.categories:
                return shares(self.samples[..., i], column.width)
        raise ValueError(f"{name!r} is no column of categories")

    def texts(self) -> dict[str, list[str]]:
        """The filled table, cells as text by column; rows of a table only, ``(N, F)``."""
        rows = [[c.text(v) for c, v in zip(self.columns, row, strict=True)] for row in self.values]
        return {c.name: [row[i] for row in rows] for i, c in enumerate(self.columns)}


def columns_of(model: Model) -> Columns:
    """What the columns of a model's data are.

    Raises:
      ConfigError: it was trained on something else than a table or a series.
    """
    spec, codec = model.architecture.spec, model.architecture.codec
    width = sum(column.width for column in spec.columns)
    if not spec.columns or codec.state_shape(spec)[-1] != width:
        raise ConfigError(
            f"--workdir={model.workdir.path}: is no model of a table or a series: it takes "
            "data.source = 'table' "
            "or 'series' and codec = 'table'"
        )
    return spec.columns


def default_method(model: Model) -> str:
    """The method that suits a model: what it was trained for, or one for any model."""
    return "conditional" if KNOWN in dict(model.architecture.net.conditions) else "mmps"


def raw_values(columns: Columns, table: Mapping[str, Sequence[object]], first: int = 1) -> np.ndarray:
    """Columns by name as raw values, ``(N, F)`` float64, NaN where a cell is missing.

    Args:
      table: numbers or texts of each column; None, NaN and an empty text are missing.  Other columns are left
        out.
      first: number of the first row, for messages.

    Raises:
      ValueError: a column that is missing or of another length, a category that the column does not have, or
        what is no number; names the row.
    """
    absent = [column.name for column in columns if column.name not in table]
    if absent:
        raise ValueError(f"has no column {', '.join(map(repr, absent))}, which the model was trained with")
    count = len(table[columns[0].name])
    values = np.full((count, len(columns)), np.nan)
    for i, column in enumerate(columns):
        cells = table[column.name]
        if len(cells) != count:
            raise ValueError(
                f"column {column.name!r} has {len(cells)} cells, and {columns[0].name!r} {count}"
            )
        for j, cell in enumerate(cells):
            if cell is None or cell == "" or cell != cell:  # NaN is not itself
                continue
            try:
                values[j, i] = column.code(str(cell))
            except ValueError as error:
                raise ValueError(f"row {j + first}: {error}") from error
    return values


def impute(
    model: Model,
    values: np.ndarray | Mapping[str, Sequence[object]],
    *,
    draws: int = DRAWS,
    method: str | None = None,
    options: Mapping[str, object] = MappingProxyType({}),
    noise_std: float = 0.02,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Imputed:
    """Samples of the missing cells of each row, given the others of that row, and what they say together.

    Args:
      values: raw rows ``(N, *shape)``, NaN where a cell is missing, categories as their numbers; or the
        columns of a table by name, numbers or texts.
      draws: samples of each row that has missing cells.
      method: of ``score_sde.inverse.METHODS``, with its ``options``; None: ``conditional``, if the model was
        trained for it, or else ``mmps``.
      noise_std: by which samples may differ from a given cell while they are drawn, in standard deviations of
        the column; in the result they do not.
      seed: root of the noise; None: that of the config.

    Raises:
      ValueError: another shape, an infinite value, or a category that there is not.
      ConfigError: a model of something else than a table or a series.
    """
    columns, shape = columns_of(model), model.architecture.spec.shape
    if isinstance(values, Mapping):
        values = raw_values(columns, values)
    values = np.asarray(values, np.float64)
    if values.shape[1:] != shape:
        raise ValueError(f"values of shape {values.shape}: must be (N, {', '.join(map(str, shape))})")
    _check_values(values, columns)
    missing = np.isnan(values)
    rows = np.flatnonzero(missing.reshape(len(values), -1).any(axis=1))
    if not len(rows):
        return Imputed(columns, values, missing, rows, np.zeros((0, draws, *shape), np.float32))
    holes = missing[rows]
    seen = spread_columns(1.0 - holes, columns).astype(np.float32)
    state = model.encode_state(fill_holes(values[rows], columns).astype(np.float32))
    samples = model.posterior(
        seen * state,
        Mask(),
        given={MASK: seen},
        noise_std=noise_std,
        method=method or default_method(model),
        options=options,
        samples=draws,
        seed=seed,
        progress=progress,
    )
    samples = np.where(holes[:, None], samples, values[rows][:, None]).astype(np.float32)
    filled = values.copy()
    filled[rows] = np.where(holes, summarise(samples, columns), values[rows])
    return Imputed(columns, filled, missing, rows, samples)


def _check_values(values: np.ndarray, columns: Columns) -> None:
    if np.isinf(values).any():
        place = tuple(int(i) for i in np.argwhere(np.isinf(values))[0])
        raise ValueError(f"the value at index {place} is infinite; NaN stands for a missing cell")
    for i, column in enumerate(columns):
        own = values[..., i]
        known = np.isnan(own) | np.isin(own, np.arange(column.width))
        if column.categories and not known.all():
            raise ValueError(
                f"column {column.name!r}: {own[~known].flat[0]:g} is not the number of a category, from 0 to "
                f"{column.width - 1}"
            )


def impute_series(model: Model, series: np.ndarray, *, draws: int = DRAWS, **options: object) -> Imputed:
    """Samples of the missing values of a long series: in windows of the model's length, half of each in the
    next.

    What is said of a row is that of the window in which it is farthest from the ends.

    Args:
      series: ``(T, C)``, NaN where a value is missing; ``T`` at least the length of a window.
      options: as of ``impute``.

    Returns:
      One "row" of shape ``(T, C)``: ``values`` is ``(1, T, C)`` and ``samples`` ``(1, draws, T, C)``.

    Raises:
      ValueError, ConfigError: as ``impute``; a series that is shorter than a window.
    """
    columns, shape = columns_of(model), model.architecture.spec.shape
    series = np.asarray(series, np.float64)
    if len(shape) != 2 or series.shape[1:] != shape[1:] or len(series) < shape[0]:
        raise ValueError(
            f"a series of shape {series.shape}: must be (T, {shape[-1]}) with T at least "
            f"{shape[0]}, the rows of a "
            "window of the model"
        )
    starts, chosen = windows(len(series), shape[0])
    place = np.arange(len(series)) - starts[chosen]
    missing = np.isnan(series)
    asked = np.array([k for k in range(len(starts)) if missing[chosen == k].any()], int)
    cut = np.stack([series[start : start + shape[0]] for start in starts[asked]]) if len(asked) else None
    samples = np.repeat(series[None].astype(np.float32), draws, axis=0)
    values = series.copy()
    if cut is not None:
        found = impute(model, cut, draws=draws, **options)  # type: ignore[arg-type]
        for i, k in enumerate(asked):
            own = np.flatnonzero(chosen == k)
            samples[:, own] = found.samples[i][:, place[own]]
            values[own] = found.values[i][place[own]]
    rows = np.zeros(1 if len(asked) else 0, int)
    return Imputed(columns, values[None], missing[None], rows, samples[None][: len(rows)])

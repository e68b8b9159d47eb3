"""The codec of tables and series: numbers standardised, categories as one entry each."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params
from score_sde.conditions import Json
from score_sde.data.base import Source, Spec
from score_sde.data.columns import Columns


@dataclass(frozen=True, kw_only=True)
class Table:
    """The last axis of raw examples, one entry a column, to entries of about unit size.

    A number is ``(raw - mean) / std`` of its column.  A category is one entry for each of its column's, +1
    for that one and -1 for the others: the one-hot code on the scale of analog bits (arXiv:2208.04202); Zheng
    and Charoenphakdee (2022, arXiv:2210.17128) compare codes of categories for imputation.  The category of a
    state is that of the largest entry.

    Attributes:
      columns: what the columns hold, as the data's ``Spec`` says it.

    Raises:
      ValueError: the data have no columns.
    """

    columns: Columns

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError(
                "codec.name = 'table': the data say nothing of their columns; it is for "
                "data.source.name = 'table' "
                "or 'series'"
            )

    def state_shape(self, spec: Spec) -> tuple[int, ...]:
        """``(*S, W)``: an entry for a number, and one for each category."""
        return (*spec.shape[:-1], sum(column.width for column in self.columns))

    def encode(self, params: Params, raw: Array | np.ndarray, key: Array | None = None) -> Array:
        """Raw examples ``(..., F)`` to states ``(..., W)`` float32; ``key`` is not used.

        Raises:
          ValueError: another number of columns.
        """
        raw = jnp.asarray(raw).astype(jnp.float32)
        if raw.shape[-1] != len(self.columns):
            raise ValueError(f"examples have {raw.shape[-1]} columns, and the model {len(self.columns)}")
        parts = []
        for i, column in enumerate(self.columns):
            value = raw[..., i : i + 1]
            if column.categories:
                codes = jnp.arange(column.width, dtype=jnp.float32).reshape((1,) * (raw.ndim - 1) + (-1,))
                parts.append(jnp.where(value == codes, 1.0, -1.0))
            else:
                parts.append((value - column.mean) / column.std)
        return jnp.concatenate(parts, axis=-1)

    def middle(self, params: Params, raw: Array | np.ndarray) -> Array:
        """``encode``, which draws nothing."""
        return self.encode(params, raw)

    def decode(self, params: Params, x0: Array | np.ndarray) -> Array:
        """States ``(..., W)`` to raw examples ``(..., F)`` float32."""
        x0, parts, start = jnp.asarray(x0).astype(jnp.float32), [], 0
        for column in self.columns:
            own = x0[..., start : start + column.width]
            start += column.width
            if column.categories:
                parts.append(jnp.argmax(own, axis=-1, keepdims=True).astype(jnp.float32))
            else:
                parts.append(own * column.std + column.mean)
        return jnp.concatenate(parts, axis=-1)

    @property
    def range(self) -> None:
        """There is no limit."""
        return None

    @property
    def levels(self) -> None:
        """No entry is a level of integer data."""
        return None

    @property
    def has_density(self) -> bool:
        """Whether all columns hold numbers."""
        return not any(column.categories for column in self.columns)

    def conventions(self) -> dict[str, Json]:
        """What became of categories, and the volume that turns a density into one of the data."""
        if not self.has_density:
            return {"dequantization": "none: categories are points, so the density has no upper limit"}
        return {"dequantization": "none: continuous data", "log_volume_nats": self.log_volume()}

    def examine(self, source: Source) -> None:
        """Nothing: a column that does not suit has been refused by the source."""

    def log_volume(self) -> float:
        """The mean over the columns of ``-log std``: nats per dimension.

        Raises:
          ValueError: there are categories.
        """
        if not self.has_density:
            raise ValueError("a table with categories has no density")
        return float(np.mean([-np.log(column.std) for column in self.columns]))

"""The codec of data that are themselves the state: an affine map to the model's range and back."""

import math
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params
from score_sde.codecs.base import Cells
from score_sde.conditions import Json
from score_sde.data.base import Source, Spec

# Dequantisation noise takes the centres of equal cells of [0, 1): 2**13 of them for up to 256 levels, and
# half as many for each bit more.  A float32 draw could come so near to 1 that k + u rounds to k + 1; the half
# cell of margin outlasts every rounding in encode and decode, so floor gives k back exactly for all levels.
_NOISE_BITS = 13
_MOST_LEVELS = 2**16


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Affine map between raw data and the model's range; it has no parameters.

    Integer data: level ``k`` goes to ``low + (high - low) k / (grey_levels - 1)``, or, dequantised, to
    ``low + (high - low) (k + u) / grey_levels`` with ``u`` uniform on [0, 1).
    Continuous data: ``x = (raw - shift) / scale``.

    Attributes:
      grey_levels: number of integer levels, 2 to 65536, or None for continuous data.
      low, high: the model's range; integer data only.
      dequantize: add uniform noise before scaling, as a density model needs; integer data only.
      shift, scale: in raw units; continuous data only.
    """

    grey_levels: int | None
    low: float = -1.0
    high: float = 1.0
    dequantize: bool = False
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.grey_levels is None:
            if self.dequantize:
                raise ValueError("codec.dequantize = True: continuous data have no levels")
            if not (self.scale > 0 and math.isfinite(self.scale)):
                raise ValueError(f"codec.scale = {self.scale}: must be positive and finite")
        else:
            if not 2 <= self.grey_levels <= _MOST_LEVELS:
                raise ValueError(
                    f"data.source.grey_levels = {self.grey_levels}: must be from 2 to {_MOST_LEVELS}, or None"
                )
            if not self.low < self.high:
                raise ValueError(f"codec.low = {self.low} must be below codec.high = {self.high}")
            if self.shift != 0 or self.scale != 1:
                raise ValueError(
                    f"codec.shift = {self.shift}, codec.scale = {self.scale}: only continuous data"
                    " are shifted and scaled; integer data use codec.low and codec.high"
                )

    def state_shape(self, spec: Spec) -> tuple[int, ...]:
        """That of the data."""
        return spec.shape

    def encode(self, params: Params, raw: Array | np.ndarray, key: Array | None = None) -> Array:
        """Raw data to the model's range.

        Args:
          params: not used, here as in every method.
          raw: ``(B, *D)`` or any shape: integers ``0 .. grey_levels - 1``, or floats if continuous.
          key: for dequantisation, one key for the whole global batch: draws on global shapes do
            not depend on the number of devices.  Ignored otherwise.

        Returns:
          float32 of the same shape.

        Raises:
          ValueError: ``dequantize`` without a key; integer data given as floats, which have
            probably been scaled already.
        """
        raw = jnp.asarray(raw)
        if self.grey_levels is None:
            return (raw.astype(jnp.float32) - self.shift) / self.scale
        if not jnp.issubdtype(raw.dtype, jnp.integer):
            raise ValueError(f"expected integer levels, got {raw.dtype}: already encoded?")
        level = raw.astype(jnp.float32)
        width = self.high - self.low
        if not self.dequantize:
            return self.low + width * (level / (self.grey_levels - 1))
        if key is None:
            raise ValueError("codec.dequantize = True: encode needs a key")
        return self.place(raw, self.noise(key, raw.shape))

    def noise(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Uniform dequantisation noise in (0, 1) for integer data, float32."""
        bits = _NOISE_BITS - max((self._count() - 1).bit_length() - 8, 0)
        cell = jax.random.bits(key, shape, jnp.uint16) >> (16 - bits)
        return (cell.astype(jnp.float32) + 0.5) / 2**bits

    def place(self, raw: Array | np.ndarray, noise: Array | float) -> Array:
        """Integers and noise in [0, 1) to the model's range, ``low + (high - low) (k + u) / grey_levels``."""
        level = jnp.asarray(raw).astype(jnp.float32)
        return self.low + (self.high - self.low) * ((level + noise) / self._count())

    def unit(self, raw: Array | np.ndarray) -> Array:
        """Integer data on [0, 1], the last level at 1, float32."""
        return jnp.asarray(raw).astype(jnp.float32) * (1.0 / (self._count() - 1))

    def _count(self) -> int:
        if self.grey_levels is None:
            raise ValueError("continuous data (no data.source.grey_levels) have no cells")
        return self.grey_levels

    def middle(self, params: Params, raw: Array | np.ndarray) -> Array:
        """Raw data to the model's range without noise: of a dequantised level, the middle of its cell.

        A function of the example alone, where ``encode`` depends on its key too.
        """
        if not self.dequantize or self.grey_levels is None:
            return self.encode(params, raw)
        return self.place(raw, 0.5)

    def decode(self, params: Params, x0: Array | np.ndarray) -> Array:
        """The model's range to raw data of the same shape.

        Returns:
          The nearest level (the containing level, dequantised), clipped, uint8 or, above 256 levels, uint16;
          or float32 raw values if continuous.
        """
        x0 = jnp.asarray(x0).astype(jnp.float32)
        if self.grey_levels is None:
            return x0 * self.scale + self.shift
        unit = (x0 - self.low) / (self.high - self.low)
        if self.dequantize:
            level = jnp.floor(unit * self.grey_levels)
        else:
            level = jnp.round(unit * (self.grey_levels - 1))
        return jnp.clip(level, 0, self.grey_levels - 1).astype(
            jnp.uint8 if self.grey_levels <= 256 else jnp.uint16
        )

    @property
    def range(self) -> tuple[float, float] | None:
        """``low`` and ``high``; continuous data have no limit."""
        return None if self.grey_levels is None else (self.low, self.high)

    @property
    def levels(self) -> "Pixels | None":
        """This codec, for integer data."""
        return None if self.grey_levels is None else self

    @property
    def cells(self) -> Cells:
        """Where ``middle`` puts the levels; integer data only."""
        count, width = self._count(), self.high - self.low
        if self.dequantize:
            return Cells(self.low + 0.5 * width / count, width / count, count)
        return Cells(self.low, width / (count - 1), count)

    @property
    def has_density(self) -> bool:
        """Whether the data are continuous, or made so by noise."""
        return self.grey_levels is None or self.dequantize

    def conventions(self) -> dict[str, Json]:
        """How integers became a density, and the volume that turns it into one of the data."""
        if self.grey_levels is None:
            how = "none: continuous data"
        elif self.dequantize:
            how = f"uniform, {self.grey_levels} equal cells on [{self.low:g}, {self.high:g}]"
        else:
            how = "none: integers are points, so the density has no upper limit"
        return {"dequantization": how, "log_volume_nats": self.log_volume()}

    def examine(self, source: Source) -> None:
        """Warn if encoded continuous data have a standard deviation far from 1.

        Noise levels and preconditioning assume data of about unit scale.  Looks at the first 1000
        examples and warns outside [0.05, 5]; silent for integer data.
        """
        if self.grey_levels is not None:
            return
        first = source.read(np.arange(min(len(source), 1000)))["x"].astype(np.float64)
        deviation = float(np.std(first)) / self.scale
        if not 0.05 <= deviation <= 5:
            warnings.warn(
                f"codec.scale = {self.scale:g}: the data have standard deviation {deviation:.3g}"
                f" after scaling, far from 1; try codec.scale = {deviation * self.scale:.3g} and"
                f" codec.shift = {float(np.mean(first)):.3g}",
                stacklevel=2,
            )

    def log_volume(self) -> float:
        """Per dimension, ``log |d x / d k|`` of the dequantised map, in nats.

        For integer data ``log P(k) >= E_u log p(x) + D log_volume()``; for continuous data
        ``log p(raw) = log p(x) + D log_volume()``.
        """
        if self.grey_levels is None:
            return -math.log(self.scale)
        return math.log((self.high - self.low) / self.grey_levels)


def picture_values(raw: Array | np.ndarray, grey_levels: int | None) -> Array:
    """Grey levels ``k`` as picture values 0 .. 255: ``round(255 k / (grey_levels - 1))``, uint8.

    Raises:
      ValueError: continuous data, which no convention maps to picture values.
    """
    if grey_levels is None:
        raise ValueError("continuous data have no picture values")
    level = jnp.asarray(raw).astype(jnp.float32)
    return jnp.round(level * 255 / (grey_levels - 1)).astype(jnp.uint8)

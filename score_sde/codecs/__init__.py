"""From the data to the state of the process and back: what stands between raw examples and ``x0``."""

from collections.abc import Callable

from score_sde.codecs.base import NO_PARAMS, Cells, Codec, Levels
from score_sde.codecs.pixels import Pixels, picture_values
from score_sde.codecs.table import Table

CODECS: dict[str, Callable[..., Codec]] = {"pixels": Pixels, "table": Table}

__all__ = ["CODECS", "NO_PARAMS", "Cells", "Codec", "Levels", "Pixels", "Table", "picture_values"]

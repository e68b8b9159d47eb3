"""From the data to the state of the process and back: what stands between raw examples and ``x0``."""

from collections.abc import Callable

from score_sde.codecs.base import NO_PARAMS, Codec
from score_sde.codecs.pixels import Pixels, picture_values, warn_if_unscaled

CODECS: dict[str, Callable[..., Codec]] = {"pixels": Pixels}

__all__ = ["CODECS", "NO_PARAMS", "Codec", "Pixels", "picture_values", "warn_if_unscaled"]

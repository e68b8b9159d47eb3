"""Raw examples of a source, as extractors take them: pictures have values 0 .. 255."""

from collections.abc import Iterator

import numpy as np

from score_sde.data import Source, Spec, batch_indices
from score_sde.images.pictures import is_picture


class First:
    """The first ``count`` examples of a source; all of them, where it has fewer."""

    def __init__(self, source: Source, count: int):
        self.spec: Spec = source.spec
        self._source, self._count = source, min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """As of the source."""
        return self._source.read(indices)


class Examples:
    """A source whose pictures have values 0..255, as samples have.

    Attributes:
      name: for messages and reports.
      shape, dtype: of one example.
    """

    def __init__(self, source: Source, name: str):
        self.name, self._source = name, source
        self.shape, self.dtype = source.spec.shape, source.spec.dtype
        levels = source.spec.grey_levels
        self._factor = (
            255 / (levels - 1) if levels is not None and is_picture(source.spec.shape, levels) else 1.0
        )

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """``(n, *shape)``."""
        return self.pictures(self._source.read(indices)["x"])

    def pictures(self, raw: np.ndarray) -> np.ndarray:
        """Raw examples of the source with values 0..255, if they are pictures."""
        return raw if self._factor == 1.0 else np.round(raw * self._factor).astype(np.uint8)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All of them, in order."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))

    def shuffled(self, size: int) -> Iterator[np.ndarray]:
        """All of them, in one fixed order that mixes classes."""
        order = batch_indices(0, 0, len(self), len(self))
        for start in range(0, len(self), size):
            yield self.read(order[start : start + size])

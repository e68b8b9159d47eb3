"""Features of generated samples in files, so that a killed evaluation resumes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from score_sde.evaluate.cache import Cache
from score_sde.evaluate.rows import fill
from score_sde.evaluate.scores import Sampled


class Chunks:
    """Features of samples, chunk by chunk, kept in a cache.

    Args:
      cache: named by all that the samples and their features depend on.
      size: samples of a chunk; the last may have fewer.
      shown: of so many first samples the values are kept beside the features.
    """

    def __init__(self, cache: Cache, size: int, shown: int):
        self.size, self.shown = size, shown
        self._cache = cache

    def collect(
        self,
        count: int,
        make: Callable[[int], np.ndarray],
        extractor: Callable[[np.ndarray], Sampled],
        *,
        room: Path,
        note: Callable[[int], None] | None = None,
    ) -> tuple[Sampled, np.ndarray]:
        """Features of samples ``0 .. count - 1``, and the first ``min(count, shown)`` samples themselves.

        Args:
          make: number of the first sample of a chunk to its ``size`` samples.
          room: where features that do not fit into memory are held.
          note: called with the number of samples that are done.
        """
        first = []

        def parts() -> Iterator[Sampled]:
            for start in range(0, count, self.size):
                want = min(self.size, count - start)
                chunk = self._cache.read(start)
                if chunk is None or len(chunk["features"]) < want:
                    samples = make(start)[:want]
                    sampled = extractor(samples)
                    chunk = {"features": sampled.features, "samples": samples[: max(self.shown - start, 0)]}
                    if sampled.logits is not None:
                        chunk["logits"] = sampled.logits
                    self._cache.write(start, chunk)
                first.append(chunk["samples"][:want])
                logits = chunk["logits"][:want] if "logits" in chunk else None
                yield Sampled(chunk["features"][:want], logits)
                if note is not None:
                    note(start + want)

        return fill(parts(), count, room), np.concatenate(first)

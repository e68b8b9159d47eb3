"""Features of generated samples in files, so that a killed evaluation goes on where it was."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from score_sde.evaluate.pieces import Pieces
from score_sde.evaluate.rows import fill
from score_sde.evaluate.scores import Sampled


class Chunks:
    """Numbered .npz files in a directory whose name stands for all that the samples depend on.

    Args:
      directory: made if it is not there.
      size: samples of a chunk; the last may have fewer.
      shown: of so many first samples the values are kept beside the features.
    """

    def __init__(self, directory: Path, size: int, shown: int):
        self.size, self.shown = size, shown
        self._pieces = Pieces(directory)

    def collect(
        self,
        count: int,
        make: Callable[[int], np.ndarray],
        extractor: Callable[[np.ndarray], Sampled],
        *,
        write: bool = True,
        note: Callable[[int], None] | None = None,
    ) -> tuple[Sampled, np.ndarray]:
        """Features of samples ``0 .. count - 1``, and the first ``min(count, shown)`` samples themselves.

        Args:
          make: number of the first sample of a chunk to its ``size`` samples.
          write: keep what is made; one process of several does.
          note: called with the number of samples that are done.
        """
        first = []

        def parts() -> Iterator[Sampled]:
            for start in range(0, count, self.size):
                want = min(self.size, count - start)
                chunk = self._pieces.read(start)
                if chunk is None or len(chunk["features"]) < want:
                    samples = make(start)[:want]
                    sampled = extractor(samples)
                    chunk = {"features": sampled.features, "samples": samples[: max(self.shown - start, 0)]}
                    if sampled.logits is not None:
                        chunk["logits"] = sampled.logits
                    if write:
                        self._pieces.write(start, chunk)
                first.append(chunk["samples"][:want])
                logits = chunk["logits"][:want] if "logits" in chunk else None
                yield Sampled(chunk["features"][:want], logits)
                if note is not None:
                    note(start + want)

        return fill(parts(), count, self._pieces.directory), np.concatenate(first)

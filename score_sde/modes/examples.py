"""Examples as extractors take them: of a split, of a folder of pictures, of an array file."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from score_sde.data import ArrayFile, Folder, Source, batch_indices
from score_sde.experiment.run_sections import Data
from score_sde.modes.workdir import drawable

_KEYS = ("samples", "arr_0", "x")  # ours, guided-diffusion's, the data sources'


class Examples:
    """A source whose pictures have values 0..255, as samples have.

    Attributes:
      name: for messages and reports.
      shape, dtype: of one example.
    """

    def __init__(self, source: Source, name: str):
        self.name, self._source = name, source
        self.shape, self.dtype = source.spec.shape, source.spec.dtype
        levels = source.spec.levels
        self._factor = 255 / (levels - 1) if levels is not None and drawable(source.spec) else 1.0

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


def open_path(flag: str, path: str, data: Data, channels: int) -> Examples:
    """A folder of pictures, or a .npz or .npy of examples.

    Args:
      flag: names the path in messages.
      data: the data section of the config; of its source ``size``, ``resize`` and ``on_error`` count.

    Raises:
      ValueError: what is wrong, with the name of the file.
    """
    where, place = f"--{flag}={path}", Path(path).expanduser()
    source = data.source.options
    try:
        if place.is_dir():
            folder = Folder(
                "train",
                place,
                size=source.get("size"),
                channels=channels,
                resize=source.get("resize", "crop"),
                held_out=0.0,
                on_error=source.get("on_error", "raise"),
            )
            if len(folder) < 2:
                raise ValueError(f"holds one image, {folder.files[0]}; a score needs at least 2")
            return Examples(folder, str(path))
        array = ArrayFile("train", place, held_out=0.0, key=array_key(place))
        if len(array) < 2:
            raise ValueError("holds one example; a score needs at least 2")
        return Examples(array, str(path))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def array_key(path: Path) -> str:
    """The name of the examples in a .npz: a usual one, or that of its first array."""
    names = array_names(path) if path.suffix == ".npz" and path.is_file() else []
    return next((name for name in (*_KEYS, *names) if name in names), "x")


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a .npz.

    Raises:
      ValueError: not a readable .npz; names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable .npz: {error}") from error

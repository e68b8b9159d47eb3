"""Numbered .npz files in a directory: what a killed measurement has done already."""

import os
from pathlib import Path

import numpy as np


class Pieces:
    """Each file is there whole or not at all.

    Args:
      directory: made if it is not there; its name should stand for all that the numbers depend on.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a piece, or None if it has not been written."""
        path = self._path(number)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}

    def write(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Write a piece, in place of an older one."""
        fresh = self.directory / f"{number:08d}.tmp.npz"
        np.savez(fresh, **arrays)  # type: ignore[arg-type]
        os.replace(fresh, self._path(number))

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.npz"

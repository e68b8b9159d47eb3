"""Finished pieces of long work on disk, found again by a fingerprint of all that they depend on."""

import errno
import hashlib
import json
import os
from dataclasses import asdict, is_dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.runtime.processes import say

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def fingerprint(**what: object) -> str:
    """16 hexadecimal digits that differ where anything of ``what`` does, or the version of JAX.

    Args:
      what: values that JSON has, dataclasses, and pytrees of arrays such as a solver's plan.
    """
    text = json.dumps({**what, "jax": jax.__version__}, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    leaves = jax.tree.leaves(value)
    if leaves and all(isinstance(leaf, np.ndarray | np.generic | jax.Array) for leaf in leaves):
        return [hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest() for leaf in leaves]
    return str(value)


class Cache:
    """Numbered .npz files in a directory, each there whole or not at all.

    Where the directory cannot be written, as in a workdir of somebody else's, nothing is kept.

    Args:
      directory: named by a ``fingerprint``; None: nothing is kept.
      write: whether this process keeps what is made; one of several does.
    """

    def __init__(self, directory: Path | None, *, write: bool = True):
        self.directory, self._write = directory, write and directory is not None

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a piece, or None if it has not been written."""
        if self.directory is None:
            return None
        path = self._path(self.directory, number)
        there = path.is_file()
        if jax.process_count() > 1:  # all of them must compute, or none
            there = bool(multihost_utils.broadcast_one_to_all(np.int32(there)))
        if not there:
            return None
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}

    def write(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Write a piece, in place of an older one."""
        if self.directory is None or not self._write:
            return
        fresh = self.directory / f"{number:08d}.tmp.npz"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            np.savez(fresh, **arrays)  # type: ignore[arg-type]
            os.replace(fresh, self._path(self.directory, number))
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            say(f"{self.directory} cannot be written: finished batches are not kept")
            self._write = False

    @staticmethod
    def _path(directory: Path, number: int) -> Path:
        return directory / f"{number:08d}.npz"


NO_CACHE = Cache(None)
"""Nothing is kept."""

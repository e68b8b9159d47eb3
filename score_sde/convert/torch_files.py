"""The two file formats of ``torch.save``, and pickles that hold files of the older one.

A file since torch 1.6 is a zip archive:  ``*/data.pkl`` refers to memory in ``*/data/<key>``.  Before, it was
five pickles (a magic number, a version, the byte order, the value, the keys of its storages) followed by the
memory.
"""

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from score_sde.convert.errors import CheckpointError
from score_sde.convert.inert import STORAGES, Storage
from score_sde.convert.pickles import Machine

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MOST_NESTED = 3


def read(path: Path) -> object:
    """The value of a file of either format, or of a plain pickle.

    Raises:
      CheckpointError: it is damaged, or wants what it must not; does not name the file.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return read_zip(path)
        file.seek(0)
        return read_pickle(file)


def read_zip(path: Path) -> object:
    """The value saved in a zip archive.

    Raises:
      CheckpointError: it is damaged, or wants what it must not; does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"a damaged or cut-off zip archive ({error}); download it again") from error


def _read_archive(archive: zipfile.ZipFile) -> object:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        inside = ", ".join(sorted(archive.namelist())[:3])
        raise CheckpointError(f"a zip archive, but not one of torch.save (it holds {inside or 'nothing'})")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:  # torch stores; a bomb compresses
            raise CheckpointError(f"refused: {entry.filename} is compressed")
    order = archive.read(names["byteorder"]) if "byteorder" in names else b"little"
    storages: dict[str, Storage] = {}

    def storage(identity: tuple) -> Storage:
        _, kind, key, _, count = identity[:5]
        if key not in storages:
            dtype = _dtype(kind, order == b"big")
            entry = archive.getinfo(names[f"data/{key}"])
            data = archive.read(entry)
            if len(data) != count * dtype.itemsize:
                raise CheckpointError(
                    f"{entry.filename} has {len(data)} bytes, and {count} numbers of {dtype} are expected"
                )
            storages[key] = Storage(np.frombuffer(data, dtype))
        return storages[key]

    with archive.open(names["data.pkl"]) as file:
        return Machine(storage).run(io.BytesIO(file.read()))


def read_pickle(file: BinaryIO, depth: int = 0) -> object:
    """The value of a plain pickle or of a file of the older format.

    Raises:
      CheckpointError: as ``read_zip``.
    """
    value = Machine(from_bytes=lambda data: _nested(data, depth)).run(file)
    if type(value) is not int or value != MAGIC:
        return value
    version, system = Machine().run(file), Machine().run(file)
    if version != _VERSION or not isinstance(system, dict):
        raise CheckpointError(f"an unknown version of the format of torch.save: {version!r}")
    size = _size(file)
    storages: dict[str, Storage] = {}

    def storage(identity: tuple) -> Storage:
        _, kind, key, _, count, *view = identity
        dtype = _dtype(kind, not system.get("little_endian", True))
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= size:
                raise CheckpointError(f"cut off: storage {key} of {count} numbers is larger than the file")
            storages[key] = Storage(np.zeros(count, dtype))
        if view and view[0] is not None:
            _, offset, length = view[0]
            return Storage(storages[key].values[offset : offset + length])
        return storages[key]

    value, keys = Machine(storage).run(file), Machine().run(file)
    for key in keys:
        values = storages[key].values
        count = int.from_bytes(_exactly(file, 8), "little", signed=True)
        if count != values.size:
            raise CheckpointError(f"storage {key} has {count} numbers, and {values.size} are expected")
        values[...] = np.frombuffer(_exactly(file, values.nbytes), values.dtype)
    return value


def _nested(data: bytes, depth: int) -> object:
    if depth >= _MOST_NESTED:
        raise CheckpointError("refused: files within files within files")
    return read_pickle(io.BytesIO(data), depth + 1)


def _dtype(kind: object, big: bool) -> np.dtype:
    if str(kind) not in STORAGES:
        raise CheckpointError(f"a storage of type {kind}, which is unknown")
    dtype = np.dtype(STORAGES[str(kind)])
    return dtype.newbyteorder(">") if big and dtype.isbuiltin == 1 else dtype


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise CheckpointError(f"cut off: {count} bytes expected at the end, {len(data)} there")
    return data


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size

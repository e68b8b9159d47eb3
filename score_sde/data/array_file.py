"""Arrays of any rank from .npy and .npz files."""

import os
import re
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np

from score_sde.conditions import Condition, Conditions, labelled
from score_sde.data.base import Spec, check_fraction, check_gaps, check_split, none_left
from score_sde.data.order import permutation
from score_sde.data.progress import progress
from score_sde.names import ReadIf

_CHECKED_BYTES = 64 * 2**20  # read this much at a time while checking values


class ArrayFile:
    """Examples along the first axis of an array in a .npy (memory-mapped) or .npz file.

    uint8 and uint16 arrays are integer data with ``grey_levels``; float arrays are continuous, float32.

    Args:
      split: ``"train"`` or ``"test"``.
      path: .npy or .npz file.
      held_out: fraction in [0, 1) of the examples in "test", chosen by one fixed permutation,
        whatever the seed of the run.  Not used with ``test_path``.
      grey_levels: integer levels of a uint8 or uint16 array; None means 256 or 65536.
      key, label_key: names inside an .npz.  Labels are optional, ``(N,)`` integers from 0; they are the
        condition "label".
      vector_key: name inside an .npz of ``(N, k)`` floats, the condition "vector"; None: there is none.
      channels_last: whether the last axis is channels; if False, one channel is added.  None
        decides where there is no doubt: ``(N, L)`` becomes ``(L, 1)``, uint8 ``(N, H, W)``
        becomes ``(H, W, 1)``, rank 4 and above is taken as it is.
      test_path: a second file, of the same kind, that holds the test split.

    Raises:
      ValueError: a missing or unreadable file, an unsupported type or rank, values out of range,
        NaN or infinite (naming the first).
    """

    read_if: ClassVar[ReadIf] = {"held_out": ("test_path", (None,))}

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        held_out: float = 0.1,
        grey_levels: int | None = None,
        key: str = "x",
        label_key: str = "label",
        vector_key: str | None = None,
        channels_last: bool | None = None,
        test_path: str | os.PathLike[str] | None = None,
    ):
        check_split(split)
        check_fraction(held_out)
        field = "path" if test_path is None or split == "train" else "test_path"
        used = path if test_path is None or split == "train" else test_path
        where = f"data.source.{field} = {str(used)!r}"
        self._x, self._conditions = _open(where, used, key, label_key, vector_key)
        count = len(self._x)
        every = [self._conditions]
        if test_path is not None:  # both splits must agree on the conditions
            other = path if split == "test" else test_path
            every.append(_open(f"data: {str(other)!r}", other, key, label_key, vector_key)[1])
        self._channel = _adds_channel(where, self._x, channels_last)
        grey_levels = _check_type(where, self._x, grey_levels)
        _check_values(where, self._x, grey_levels)
        if test_path is not None:
            self._rows = np.arange(count)
        else:
            order = permutation(0, 0, count)
            train = count - round(held_out * count)
            self._rows = np.sort(order[:train] if split == "train" else order[train:])
        if not len(self._rows):
            raise ValueError(none_left(held_out, f"{count} examples", split, "set data.source.test_path"))
        shape = self._x.shape[1:] + ((1,) if self._channel else ())
        self.spec = Spec(shape, grey_levels, _conditions(every))
        for name, condition in self.spec.conditions:  # where the other split alone has it
            self._conditions.setdefault(name, condition.nulls(count))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``x: (n, *spec.shape)``; with labels ``label: (n,)`` and with vectors ``vector: (n, k)``."""
        rows = self._rows[indices]
        x = np.asarray(self._x[rows]).astype(self.spec.dtype, copy=False)
        conditions = {name: values[rows] for name, values in self._conditions.items()}
        return {"x": x[..., None] if self._channel else x, **conditions}


def _conditions(splits: list[dict[str, np.ndarray]]) -> Conditions:
    """The conditions that all splits together have.

    Raises:
      ValueError: their vectors have several lengths.
    """
    labels = [split["label"] for split in splits if "label" in split]
    lengths = sorted({split["vector"].shape[1] for split in splits if "vector" in split})
    if len(lengths) > 1:
        raise ValueError(f"data.source.vector_key: vectors have {lengths[0]} and {lengths[1]} numbers")
    vectors = tuple(("vector", Condition("vector", (length,))) for length in lengths)
    return labelled(max((int(label.max()) + 1 for label in labels), default=0)) + vectors


def _open(
    where: str, path: str | os.PathLike[str], key: str, label_key: str, vector_key: str | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The examples, and their conditions by name."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"{where}: no such file (looked for {file.absolute()})")
    if file.suffix not in (".npy", ".npz"):
        raise ValueError(f"{where}: must be a .npy or .npz file, not {file.suffix or 'this'!r}")
    if file.suffix == ".npy" and (key, label_key, vector_key) != ("x", "label", None):
        raise ValueError(
            f"{where}: a .npy holds one array without a name; data.source.key, label_key and vector_key are "
            "for a .npz"
        )
    label, vector = None, None
    try:
        if file.suffix == ".npy":
            x = np.load(file, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(file, allow_pickle=False) as archive:
                names = list(archive)
                if key not in names:
                    raise ValueError(f"no array {key!r} inside, only {names}; set data.source.key")
                x = archive[key]
                label = archive[label_key] if label_key in names else None
                if label is None:
                    others = [name for name in names if name not in (key, vector_key)]
                    _warn_of_labels(where, archive, others, x.shape[:1])
                if vector_key is not None and vector_key not in names:
                    raise ValueError(
                        f"no array {vector_key!r} inside, only {names}; set data.source.vector_key"
                    )
                vector = None if vector_key is None else archive[vector_key]
    except Exception as error:  # zip, pickle, header and memory-map errors all mean the same here
        hint = (
            "; arrays of Python objects are refused" if re.search("pickle|object", str(error), re.I) else ""
        )
        raise ValueError(f"{where}: cannot read: {error}{hint}") from error
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{where}: holds no examples, shape {x.shape}")
    conditions = {}
    if label is not None:
        conditions["label"] = _check_label(where, label, label_key, len(x))
    if vector is not None:
        conditions["vector"] = _check_vector(where, vector, vector_key, len(x))
    return x, conditions


def _check_vector(where: str, vector: np.ndarray, vector_key: str | None, count: int) -> np.ndarray:
    name = f"{where}: vectors (data.source.vector_key = {vector_key!r})"
    if vector.ndim != 2 or len(vector) != count or not vector.shape[1]:
        raise ValueError(f"{name} have shape {vector.shape}, expected ({count}, k)")
    return Condition("vector", vector.shape[1:]).check(name, vector)


def _check_label(where: str, label: np.ndarray, label_key: str, count: int) -> np.ndarray:
    name = f"{where}: labels (data.source.label_key = {label_key!r})"
    if label.shape != (count,):
        raise ValueError(f"{name} have shape {label.shape}, expected ({count},)")
    if not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{name} have type {label.dtype}, expected integers from 0, which numpy.unique(label, "
            "return_inverse=True)[1] makes of anything"
        )
    if label.min() < 0:
        raise ValueError(f"{name} must not be negative; index {int(np.argmax(label < 0))} is")
    check_gaps(name, label)
    return label.astype(np.int32)


def _warn_of_labels(
    where: str, archive: np.lib.npyio.NpzFile, names: list[str], count: tuple[int, ...]
) -> None:
    """Say of arrays that look like labels and are called something else; their headers alone are read."""
    assert archive.zip is not None
    members, found = archive.zip.namelist(), []
    for name in names:
        if f"{name}.npy" not in members:
            continue
        with archive.zip.open(f"{name}.npy") as file:
            version, header = np.lib.format.read_magic(file), np.lib.format
            read = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
            shape, _, dtype = read(file)
        if shape in (count, (*count, 1)) and count and (dtype.kind in "iuUS"):
            found.append(name)
    if found:
        warnings.warn(
            f"{where}: array {' or '.join(map(repr, found))} looks like labels and is not read; to use it "
            f"set data.source.label_key = {found[0]!r}; labels are integers (N,)",
            stacklevel=2,
        )


def _adds_channel(where: str, x: np.ndarray, channels_last: bool | None) -> bool:
    if x.ndim == 1:
        raise ValueError(
            f"{where}: shape {x.shape} has one number per example; reshape to (N, 1) and set"
            " data.source.channels_last = True"
        )
    if channels_last is not None:
        return not channels_last
    if x.ndim == 3 and x.dtype != np.uint8:
        raise ValueError(
            f"{where}: shape {x.shape} may be (N, L, C) or (N, H, W); set "
            "data.source.channels_last = True or False"
        )
    if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[3] not in (1, 2, 3, 4):
        height, width, depth = x.shape[1:]
        warnings.warn(
            f"{where}: shape {x.shape} looks like channels first; it is read as pictures of {height}x{width} "
            f"pixels with {depth} channels. Save numpy.moveaxis(x, 1, -1) if that is not meant, or set "
            "data.source.channels_last = True if it is",
            stacklevel=2,
        )
    return x.ndim == 2 or x.ndim == 3


def _check_type(where: str, x: np.ndarray, grey_levels: int | None) -> int | None:
    kind = x.dtype.newbyteorder("=")
    if kind in (np.uint8, np.uint16):
        most = 256 if kind == np.uint8 else 65536
        if grey_levels is not None and not 2 <= grey_levels <= most:
            raise ValueError(f"data.source.grey_levels = {grey_levels}: must be from 2 to {most}, or None")
        return most if grey_levels is None else grey_levels
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"{where}: type {x.dtype} is not supported; save integer levels 0..255 as uint8"
            " and more as uint16 (with data.source.grey_levels if fewer), anything else as float32"
        )
    if grey_levels is not None:
        raise ValueError(
            f"data.source.grey_levels = {grey_levels}: {where} holds {x.dtype}; levels need uint8 or uint16"
        )
    return None


def _check_values(where: str, x: np.ndarray, grey_levels: int | None) -> None:
    largest = 0
    if grey_levels == 256 and x.dtype == np.uint8:
        return
    step = max(1, _CHECKED_BYTES // max(1, x[:1].nbytes))
    for start in progress(range(0, len(x), step), len(x), "checking values"):
        part = np.asarray(x[start : start + step])
        if grey_levels is None:
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(part.astype(np.float32, copy=False))
        else:
            bad = part >= grey_levels
            largest = max(largest, int(part.max()))
        if bad.any():
            place = np.unravel_index(int(np.argmax(bad)), bad.shape)
            value, index = part[place], tuple(int(i) for i in (place[0] + start, *place[1:]))
            raise ValueError(
                f"{where}: the value at index {index} is {value}, "
                + (
                    "expected finite float32"
                    if grey_levels is None
                    else f"data.source.grey_levels = {grey_levels}"
                )
            )
    if grey_levels == 2**16 and 0 < largest < 2**12:
        warnings.warn(
            f"{where}: no value is above {largest} of 65535 grey levels; set data.source.grey_levels, "
            f"to {2 ** largest.bit_length()} perhaps",
            stacklevel=2,
        )

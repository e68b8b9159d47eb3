"""Image sets in the IDX format of MNIST: Fashion-MNIST, KMNIST, EMNIST and their like.

An IDX file is two zero bytes, a byte for the type of its values, a byte for the number of its axes, the size
of each axis as a big-endian 32-bit integer, and the values (LeCun et al., "The MNIST database").
"""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from score_sde.conditions import labelled
from score_sde.data.base import Spec, check_fraction, check_gaps, check_split, none_left
from score_sde.data.order import permutation

# Third byte of a file: the type of its values, big-endian.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_SPLITS = {"train": ("train",), "test": ("t10k", "test")}
_WHERE = (
    "an IDX set is a folder with the files train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each with .gz or without. Fashion-MNIST: "
    "`apt install dataset-fashion-mnist` puts them into /usr/share/datasets/fashion-mnist; elsewhere "
    "download the four files that https://github.com/zalandoresearch/fashion-mnist names, and set "
    "data.source.path to their folder"
)


class IDX:
    """Grey or colour images, and labels where there are some, in IDX files.

    The training split is the file whose name has ``train`` and ``images`` in it, the test split the one with
    ``t10k`` or ``test``; labels stand in the file with ``labels`` in place of ``images``.  uint8 values are
    integer data with 256 grey levels.

    Args:
      split: ``"train"`` or ``"test"``.
      path: the folder.
      prefix: with which the names of the files begin, where a folder holds several sets, as those of EMNIST.
      held_out: fraction in [0, 1) of the examples in "test", chosen by one fixed permutation, where the
        folder has no test files.
      class_names: of the labels, in order; empty where they have none.

    Attributes:
      spec: ``(H, W, 1)`` or ``(H, W, C)``, with the condition "label" where there are labels.

    Raises:
      ValueError: a missing, torn or foreign file, or files that do not belong together; says how to get a
        set.
    """

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        prefix: str = "",
        held_out: float = 0.1,
        class_names: tuple[str, ...] = (),
    ):
        check_split(split)
        check_fraction(held_out)
        folder = Path(path).expanduser()
        where = f"data.source.path = {str(path)!r}"
        if not folder.is_dir():
            raise ValueError(f"{where}: no such folder (looked for {folder.absolute()}); {_WHERE}")
        own = _find(where, folder, prefix, split)
        file = own or _find(where, folder, prefix, "train")
        if file is None:
            raise ValueError(f"{where}: holds no file of {_pattern(prefix, 'train')}; {_WHERE}")
        self._x = _images(file)
        label = _labels(file, len(self._x))
        has_test = _find(where, folder, prefix, "test") is not None
        self._rows = _rows(len(self._x), split, 0.0 if has_test else held_out, own is not None)
        if not len(self._rows):
            raise ValueError(none_left(held_out, f"{len(self._x)} examples", split, "add the test files"))
        other = _find(where, folder, prefix, "train" if split == "test" else "test")
        beside = None if other is None or other == file else _labels(other, None)
        classes = _count(file, label, beside, class_names)
        self._label = label
        shape = (*self._x.shape[1:3], *(self._x.shape[3:] or (1,)))
        self.spec = Spec(shape, 256, labelled(classes, class_names))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, H, W, C) uint8}`` and, with labels, ``{"label": (n,) int32}``."""
        rows = self._rows[indices]
        batch = {"x": np.asarray(self._x[rows]).reshape(len(rows), *self.spec.shape)}
        return batch if self._label is None else {**batch, "label": self._label[rows].astype(np.int32)}


def read_idx(file: Path) -> np.ndarray:
    """The array of an IDX file, in the machine's byte order; with ``.gz`` it is unpacked.

    Raises:
      ValueError: it is no IDX file, or is shorter or longer than its sizes say.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot read: {error}") from error
    kind, axes = content[2:3], int.from_bytes(content[3:4])
    head = 4 + 4 * axes
    if content[:2] != b"\0\0" or not kind or kind[0] not in _TYPES or not axes or len(content) < head:
        raise ValueError(f"{file}: is no IDX file: its first bytes are {content[:4].hex(' ') or 'missing'}")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i]) for i in range(axes))
    dtype = np.dtype(_TYPES[kind[0]])
    want = head + math.prod(shape) * dtype.itemsize
    if len(content) != want:
        what = "is cut short" if len(content) < want else "is too long"
        raise ValueError(
            f"{file}: {what}: {len(content)} bytes, and {want} for an array of shape {shape}; get it again"
        )
    values = np.frombuffer(content, dtype, offset=head).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _pattern(prefix: str, split: str) -> str:
    return f"{prefix}*{' or '.join(_SPLITS[split])}*images*idx*"


def _find(where: str, folder: Path, prefix: str, split: str) -> Path | None:
    """The file of the images of a split; None for none."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        name = file.name.removesuffix(".gz")
        parts = name.removeprefix(prefix).lower()
        if not (name.startswith(prefix) and "images" in parts and "idx" in parts and file.is_file()):
            continue
        if any(word in parts for word in _SPLITS[split]):
            found.setdefault(name, file)  # a file without .gz comes first
    if len(found) > 1:
        raise ValueError(
            f"{where}: several files of {_pattern(prefix, split)}: {', '.join(found)}; set data.source.prefix"
        )
    return next(iter(found.values()), None)


def _images(file: Path) -> np.ndarray:
    x = read_idx(file)
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(
            f"{file}: holds {x.dtype} of shape {x.shape}: images must be uint8 (N, H, W) or (N, H, W, C)"
        )
    return x


def _labels(images: Path, count: int | None) -> np.ndarray | None:
    """Labels of the images of a file, of which there are ``count``; None where there is no file of them."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    name = name.replace("idx4", "idx1")
    file = next((f for f in (images.with_name(name), images.with_name(f"{name}.gz")) if f.is_file()), None)
    if file is None:
        return None
    label = read_idx(file)
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"{file}: holds {label.dtype} of shape {label.shape}: labels must be integers (N,)")
    if count is not None and len(label) != count:
        raise ValueError(f"{file}: holds {len(label)} labels, and {images.name} {count} images")
    if label.min() < 0:
        raise ValueError(f"{file}: label {int(np.argmax(label < 0))} is negative")
    check_gaps(str(file), label)
    return label


def _count(file: Path, label: np.ndarray | None, beside: np.ndarray | None, names: tuple[str, ...]) -> int:
    """Number of classes of both splits together."""
    if label is None:
        if names:
            raise ValueError(f"data.source.class_names = {names}: {file} has no labels beside it")
        return 0
    largest = max(int(label.max()), -1 if beside is None else int(beside.max()))
    if names and largest >= len(names):
        raise ValueError(
            f"data.source.class_names: {len(names)} names, and {file} has the label {largest} beside it"
        )
    return len(names) or largest + 1


def _rows(count: int, split: str, held_out: float, own: bool) -> np.ndarray:
    """Examples of a split in its file: all, or its share of the training file."""
    order = permutation(0, 0, count)
    train = count - round(held_out * count)
    if split == "train":
        return np.sort(order[:train])
    return np.arange(count) if own else np.sort(order[train:])

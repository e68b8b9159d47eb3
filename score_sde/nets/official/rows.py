"""One row for every array: where we keep it, what they call it, and how its axes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from score_sde.arrays import HostParams, Params, Tree


@dataclass(frozen=True)
class Row:
    """One of our parameters as an array, or a part of one, in a file of others.

    Attributes:
      path: keys of ours, from the root of the tree.
      shape: of ours.
      name: theirs.
      units: axes of length one that theirs has in front of ours.
      output_first: whether the last two axes are swapped and moved to the front there.
      part: ours is part ``part[0]`` of ``part[1]`` equal ones along the last axis of theirs.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    name: str
    units: int = 0
    output_first: bool = False
    part: tuple[int, int] = (0, 1)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our array with their axes."""
        array = array.reshape((1,) * self.units + array.shape)
        return np.moveaxis(array, (-1, -2), (0, 1)) if self.output_first else array

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Their array, of ``their_shape``, with our axes; a part of it where we have a part."""
        if self.output_first:
            array = np.moveaxis(array, (0, 1), (-1, -2))
        array = array.reshape(array.shape[self.units :])
        return np.split(array, self.part[1], axis=-1)[self.part[0]] if self.part[1] > 1 else array

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of the whole array that theirs is."""
        shape = self.to_theirs(np.broadcast_to(np.float32(0), self.shape)).shape
        return (*shape[:-1], shape[-1] * self.part[1]) if self.part[1] > 1 else shape


def read(rows: Sequence[Row], tensors: Mapping[str, Tree]) -> HostParams:
    """Their arrays as our tree.

    Args:
      rows: one for each of our parameters.
      tensors: name to array.

    Returns:
      A nested dictionary of float32 NumPy arrays.

    Raises:
      ValueError: names and shapes are not exactly those of the rows; shows the first that differs.
    """
    wanted = {row.name: row.their_shape for row in rows}
    check({name: tuple(np.shape(array)) for name, array in tensors.items()}, wanted)
    ours = {"/".join(row.path): row.to_ours(np.asarray(tensors[row.name], np.float32)) for row in rows}
    return unflatten(ours, "/")


def write(rows: Sequence[Row], params: Params | HostParams) -> dict[str, np.ndarray]:
    """Our tree as their arrays, the inverse of ``read``.

    Raises:
      ValueError: the tree is not exactly that of the rows; shows the first that differs.
    """
    flat = flatten(params, "/")
    check({k: tuple(np.shape(a)) for k, a in flat.items()}, {"/".join(r.path): r.shape for r in rows})
    parts: dict[str, list[np.ndarray]] = {}
    for row in sorted(rows, key=lambda row: row.part):
        array = np.asarray(flat["/".join(row.path)], np.float32)
        parts.setdefault(row.name, []).append(row.to_theirs(array))
    order = dict.fromkeys(row.name for row in rows)
    return {name: np.concatenate(parts[name], -1) if parts[name][1:] else parts[name][0] for name in order}


def check(got: Mapping[str, tuple[int, ...]], want: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse names and shapes other than those wanted, in either direction.

    Raises:
      ValueError: shows the first that differs, in the order of ``want``, and their number.
    """
    wrong = [
        f"{name}: got {list(got[name]) if name in got else 'nothing'}, want {list(shape)}"
        for name, shape in want.items()
        if got.get(name) != shape
    ]
    wrong += [
        f"{name}: got {list(shape)}, want nothing: this network has no such array"
        for name, shape in got.items()
        if name not in want
    ]
    if wrong:
        raise ValueError(wrong[0] + (f" ({len(wrong)} arrays differ)" if wrong[1:] else ""))


def flatten(tree: Mapping[str, Tree], separator: str, prefix: str = "") -> dict[str, Tree]:
    """A nested mapping as one of joined keys, in order."""
    flat: dict[str, Tree] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        deeper = isinstance(value, Mapping)
        flat |= flatten(value, separator, name + separator) if deeper else {name: value}
    return flat


def unflatten(flat: Mapping[str, Tree], separator: str) -> dict[str, Tree]:
    """The inverse of ``flatten``."""
    tree: dict[str, Tree] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(separator)
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree

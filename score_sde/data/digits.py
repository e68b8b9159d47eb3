"""Real handwritten digits that need no download: 1797 images of 8x8 pixels in 17 grey levels."""

import importlib.util
from pathlib import Path

import numpy as np

from score_sde.conditions import labelled
from score_sde.data.base import Spec, check_split
from score_sde.data.order import permutation

_HELD_OUT = 300


def _table() -> np.ndarray:
    """``(1797, 65)``: pixels and the digit.  Importing scikit-learn takes seconds, its file does not."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ImportError("data.source = 'digits' needs scikit-learn: pip install scikit-learn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # it has moved

    x, label = load_digits(return_X_y=True)
    return np.column_stack([np.asarray(x), np.asarray(label)])


class Digits:
    """The optical digits of scikit-learn (UCI optdigits, test part).

    ``(8, 8, 1)`` uint8 in 0 .. 16, ten classes.  The split is one fixed permutation, whatever
    the seed of the run: 1497 images to train on and 300 held out.

    Args:
      split: ``"train"`` or ``"test"``.

    Raises:
      ValueError: unknown split.
      ImportError: scikit-learn is missing.
    """

    def __init__(self, split: str):
        check_split(split)
        table = _table()
        x, label = table[:, :-1], table[:, -1]
        order = permutation(0, 0, len(x))
        rows = order[:-_HELD_OUT] if split == "train" else order[-_HELD_OUT:]
        self.spec = Spec(shape=(8, 8, 1), grey_levels=17, conditions=labelled(10))
        self._x = x.astype(np.uint8).reshape(-1, 8, 8, 1)[rows]
        self._label = label.astype(np.int32)[rows]

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, 8, 8, 1) uint8 in 0 .. 16, "label": (n,) int32}``."""
        return {"x": self._x[indices], "label": self._label[indices]}

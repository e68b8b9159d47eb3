"""Image sets prepared by TensorFlow Datasets, read without TensorFlow."""

import os
from typing import Any

import numpy as np

from score_sde.conditions import Conditions, labelled
from score_sde.data import images
from score_sde.data.base import Spec, check_split

_PREPARE = (
    "Either prepare the set once where TensorFlow is installed (pip install tensorflow"
    " tensorflow-datasets importlib_resources; then in Python: import tensorflow_datasets as"
    " tfds; tfds.data_source('{name}'{argument})) and point data.source.data_dir at the result, which is"
    " read without TensorFlow; or unpack the images and use data.source = 'folder'."
)


class TFDS:
    """An image set by its TFDS name, stored as array_record.

    Args:
      split: ``"train"`` or ``"test"``.
      dataset: such as "cifar10" or "celeb_a:2.1.0".
      data_dir: where sets are prepared; None: TFDS's own default.
      train_split, test_split: split expressions such as "train[:90%]" for the two splits;
        ``test_split`` None: "test" if the set has one, else "validation".
      size, channels, resize, center_crop: as in ``Folder``; ``channels`` None: those of the set.

    Raises:
      ImportError: tensorflow-datasets or Pillow is missing.
      ValueError: the set is absent (the message says how to prepare it), has no such split, or
        no images of one size.
    """

    def __init__(
        self,
        split: str,
        dataset: str,
        data_dir: str | os.PathLike[str] | None = None,
        train_split: str = "train",
        test_split: str | None = None,
        size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        resize: str = "crop",
        center_crop: int | None = None,
    ):
        check_split(split)
        try:
            import PIL  # noqa: F401  TFDS decodes with it but does not require it
            import tensorflow_datasets as tfds
        except ImportError as error:
            raise ImportError(
                f"data.source = 'tfds' needs {error.name}: pip install 'score-sde[tfds]'"
            ) from error
        where = f"data.source.dataset = {dataset!r}"
        try:
            builder = tfds.builder(dataset, data_dir=data_dir)
        except Exception as error:
            first_line = str(error).strip().split("\n", 1)[0]  # the rest lists every known set
            raise ValueError(f"{where}, data.source.data_dir = {data_dir}: {first_line}") from error
        self._image, self._label, conditions = _features(where, builder.info.features)
        splits = list(builder.info.splits)
        expression = train_split
        if split == "test":
            has_test = "test" in splits or not splits
            expression = test_split or ("test" if has_test else "validation")
        try:
            self._data: Any = builder.as_data_source(split=expression)  # type: ignore[call-arg]
            count = len(self._data)
        except Exception as error:
            argument = "" if data_dir is None else f", data_dir={str(data_dir)!r}"
            raise ValueError(
                f"{where}: cannot read data.source.{split}_split = {expression!r} as array_record from"
                f" {builder.data_dir}, which has splits {splits}"
                f" ({str(error).split(chr(10), 1)[0]}). " + _PREPARE.format(name=dataset, argument=argument)
            ) from error
        if count == 0:
            raise ValueError(f"{where}: data.source.{split}_split = {expression!r} is empty")
        self._where = where
        self._resize = resize
        features: Any = builder.info.features
        stored = features[self._image].shape
        self._channels = stored[2] if channels is None else channels
        self._size = images.check_options(size, self._channels, resize)
        images.check_center_crop(center_crop)
        self._crop = center_crop
        if self._size is None and center_crop is not None:
            self._size = (center_crop, center_crop)
        if self._size is None:
            if None in stored[:2]:
                raise ValueError(f"{where}: images have several sizes; set data.source.size")
            self._size, self._resize = stored[:2], "none"
        self.spec = Spec((*self._size, self._channels), 256, conditions)

    def __len__(self) -> int:
        return len(self._data)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, H, W, C) uint8}``, and ``"label": (n,) int32`` if the set has one."""
        x = np.empty((len(indices), *self.spec.shape), np.uint8)
        label = np.empty(len(indices), np.int32)
        for row, index in enumerate(indices):
            example = self._data[int(index)]
            try:
                image = images.from_array(example[self._image], self._channels)
                image = images.center_crop(image, self._crop)
                x[row] = images.fit(image, self._size, self._resize)
            except ValueError as error:
                raise ValueError(
                    f"{self._where}: example {index}: {error}; set data.source.size and data.source.resize"
                ) from error
            if self._label is not None:
                label[row] = example[self._label]
        return {"x": x} if self._label is None else {"x": x, "label": label}


def _features(where: str, features: Any) -> tuple[str, str | None, Conditions]:
    """Names of the image and label features, and the condition that the label is, if there is one."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = [name for name, kind in kinds.items() if kind == "Image"]
    if not image:
        raise ValueError(f"{where}: has no image, only {kinds}")
    label = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    chosen = "image" if "image" in image else image[0]
    if not label:
        return chosen, None, ()
    name = "label" if "label" in label else label[0]
    return chosen, name, labelled(features[name].num_classes, features[name].names)

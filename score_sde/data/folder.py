"""A folder of image files, with or without class sub-folders."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from score_sde.conditions import labelled
from score_sde.data import images
from score_sde.data.base import Spec, check_fraction, check_split
from score_sde.data.listing import list_images
from score_sde.data.progress import progress

T = TypeVar("T")
_GROUP = 64  # files handed to a thread at a time
_BIG_FILE_BYTES = 32 * 1024  # on smaller files threads cost more than they give (measured)


class Folder:
    """Images below ``path`` in any format Pillow reads, in sorted order of their relative names.

    Classes are the first-level sub-folders, numbered in sorted order; with images directly in
    ``path`` there are no classes.  Splits are the sub-folders ``train`` and ``test`` (or
    ``validation``, ``valid``, ``val``) where both exist; otherwise a fraction ``held_out`` chosen
    by a hash of each relative name.  EXIF rotation is applied; the first frame of an animation
    counts; transparency is flattened onto white unless ``channels`` is 4.

    Args:
      split: ``"train"`` or ``"test"``.
      path: the folder.
      size: side in pixels, (height, width), or None: all images must have one size already.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA); files are converted.
      resize: "crop" (cover ``size``, cut the centre), "squash" (ignore the aspect ratio) or
        "none" (every file must have ``size``).
      center_crop: first cut so many central pixels a side out of every image; None: do not.
      held_out: fraction in [0, 1) of the files in "test" where there is no such folder.
      on_error: "raise" stops at a file that cannot be used; "skip" tries every file up front,
        leaves those out and warns with their number and names.
      max_pixels: the largest picture that is read; None: Pillow's limit, which is there against files that
        unpack to more than the memory holds.

    Attributes:
      spec: ``(H, W, channels)`` uint8, 256 grey levels; with class folders, "label" with their names.
      files: relative file names, in the order of the indices.
      skipped: (relative file name, reason) of the files left out.

    Raises:
      ValueError: an unusable option, folder or file, named in the message.
      ImportError: Pillow is missing.
    """

    def __init__(
        self,
        split: str,
        path: str | os.PathLike[str],
        size: int | tuple[int, int] | None = None,
        channels: int = 3,
        resize: str = "crop",
        center_crop: int | None = None,
        held_out: float = 0.1,
        on_error: str = "raise",
        max_pixels: int | None = None,
    ):
        check_split(split)
        check_fraction(held_out)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"data.source.on_error = {on_error!r}: must be 'raise' or 'skip'")
        self._size = images.check_options(size, channels, resize)
        if max_pixels is not None and max_pixels < 1:
            raise ValueError(f"data.source.max_pixels = {max_pixels}: must be positive, or None")
        self._max_pixels = max_pixels
        self._channels = channels
        images.check_center_crop(center_crop)
        if center_crop is not None and self._size is None:
            self._size = (center_crop, center_crop)
        if self._size is None and resize == "squash":
            raise ValueError(
                "data.source.resize = 'squash': needs data.source.size, to which images are squashed"
            )
        self._crop = center_crop
        self._resize = resize if self._size is not None else "none"
        root, self.files, classes = list_images(path, split, held_out)
        self._root = str(root)
        self._threads = self._count_threads()
        self.skipped: list[tuple[str, str]] = []
        if self._size is None:
            self._size = self._first_size(on_error)
        if on_error == "skip":
            self._leave_out_unusable()
        elif self._resize == "none":  # fail now, not in the middle of a run
            self._each(self._check_size, self.files, "checking image sizes")
        number = {name: k for k, name in enumerate(classes)}
        labels = [number[name.split("/", 1)[0]] for name in self.files] if classes else []
        self._conditions = {"label": np.array(labels, np.int32)} if classes else {}
        self.spec = Spec((*self._size, channels), 256, labelled(len(classes), classes))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, H, W, C) uint8}``, and with class folders ``"label": (n,) int32``."""
        indices = np.asarray(indices)
        x = np.empty((len(indices), *self.spec.shape), np.uint8)

        def fill(row: int) -> None:
            x[row] = self._array(self.files[indices[row]])

        self._each(fill, range(len(indices)), "reading images")
        return {"x": x, **{name: values[indices] for name, values in self._conditions.items()}}

    def _array(self, name: str) -> np.ndarray:
        file = os.path.join(self._root, name)
        try:
            image = images.center_crop(images.load(file, self._channels, self._max_pixels), self._crop)
            return images.fit(image, self._size, self._resize)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise self._unusable(file, error) from error

    def _check_size(self, name: str) -> None:
        file = os.path.join(self._root, name)
        try:
            height, width = images.upright_size(file, self._max_pixels)
            if self._crop is not None:
                height, width = min(height, self._crop), min(width, self._crop)
            images.check_size(height, width, self._size)
        except Exception as error:
            raise self._unusable(file, error) from error

    def _unusable(self, file: str, error: Exception) -> ValueError:
        if isinstance(error, images.WrongSize):
            return ValueError(
                f"data.source.size: {file} has {error} (height x width); set data.source.size and "
                "data.source.resize = 'crop' or 'squash' to bring all images to one size"
            )
        return ValueError(
            f"data.source.path: cannot use {file}: {error}; remove the file, or set data.source.on_error ="
            " 'skip' to leave such files out"
        )

    def _first_size(self, on_error: str) -> tuple[int, int]:
        reason = None
        for name in self.files:
            file = os.path.join(self._root, name)
            try:
                image = images.load(file, self._channels, self._max_pixels)
                return image.height, image.width
            except Exception as error:
                reason = self._unusable(file, error)
                if on_error == "raise":
                    raise reason from error
        raise ValueError(f"data.source.path: none of the {len(self.files)} images can be used") from reason

    def _leave_out_unusable(self) -> None:
        reasons: dict[str, str] = {}

        def attempt(name: str) -> None:
            try:
                self._array(name)
            except ValueError as error:
                reasons[name] = str(error.__cause__)

        self._each(attempt, self.files, "checking images")
        if not reasons:
            return
        self.skipped = sorted(reasons.items())
        usable = [name for name in self.files if name not in reasons]
        if not usable:
            raise ValueError(
                f"data.source.path: none of the {len(self.files)} images in {self._root} can be used;"
                f" the first is {self.skipped[0][0]}: {self.skipped[0][1]}"
            )
        shown = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
        warnings.warn(
            f"data.source.path: skipped {len(reasons)} of {len(self.files)} images in {self._root}:"
            f" {shown}{'; ...' if len(reasons) > 5 else ''}",
            stacklevel=3,
        )
        self.files = usable

    def _count_threads(self) -> int:
        files = [os.path.join(self._root, name) for name in self.files[:16]]
        sizes = [os.path.getsize(file) for file in files if os.path.isfile(file)]
        return (os.cpu_count() or 1) if sizes and np.mean(sizes) > _BIG_FILE_BYTES else 1

    def _each(self, action: Callable[[T], None], items: Sequence[T], what: str) -> None:
        """Run ``action`` on all items; of several failures the first in order is raised."""

        def run(start: int) -> int:
            group = items[start : start + _GROUP]
            for item in group:
                action(item)
            return start + len(group)

        starts = range(0, len(items), _GROUP)
        if self._threads == 1 or len(items) == 1:
            for _ in progress(map(run, starts), len(items), what):
                pass
            return
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for _ in progress(pool.map(run, starts), len(items), what):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

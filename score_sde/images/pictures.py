"""Samples as files: picture grids, folders of pictures, arrays."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

Picture = Image.Image

_SIDE = 64  # pixels that a small picture of a grid is magnified to, if that many of them fit
_BORDER = 96  # grey: it shows between pictures with black margins and between white ones
_WIDTH = 1024  # pixels that a grid may have when it magnifies: a page shows it whole


def magnification(height: int, width: int, columns: int) -> int:
    """How often a grid repeats each pixel of its pictures along both axes, so that a person sees them."""
    return max(1, min(_SIDE // max(height, width), (_WIDTH // columns - 1) // width))


def grid(images: np.ndarray, columns: int | None = None) -> Picture:
    """Tile uint8 images ``(N, H, W, 1 | 3 | 4)`` with a one-pixel border.

    Small pictures are magnified by a whole number, each pixel a square of pixels.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    zoom = magnification(height, width, columns)
    images = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = height * zoom + 1, width * zoom + 1
    canvas = np.full((rows * height + 1, columns * width + 1, channels), _BORDER, np.uint8)
    canvas[..., 3:] = 255  # where there is a fourth channel: opaque
    for i, image in enumerate(images):
        top, left = (i // columns) * height + 1, (i % columns) * width + 1
        canvas[top : top + height - 1, left : left + width - 1] = image
    return picture(canvas)


def picture(image: np.ndarray) -> Picture:
    """One uint8 image ``(H, W, 1 | 3 | 4)``.

    Raises:
      ValueError: another number of channels.
    """
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise ValueError(f"samples of shape {image.shape} are no pictures; write them to a .npz instead")
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def is_picture(shape: tuple[int, ...], grey_levels: int | None) -> bool:
    """Whether examples of this shape can be shown."""
    return grey_levels is not None and len(shape) == 3 and shape[-1] in (1, 3, 4)


def write(path: Path, samples: np.ndarray, *, seed: int) -> None:
    """Write ``(N, *D)`` samples as the suffix of ``path`` asks.

    ``.png``: one grid; ``.npz``: ``samples`` and ``seed``; none: a folder ``000000.png`` and so on.

    Raises:
      ValueError: pictures asked of what are no pictures, or an unknown suffix.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, samples=samples, seed=np.int64(seed))
        return
    if samples.dtype != np.uint8:
        raise ValueError(f"--output={path}: continuous samples are no pictures; use a .npz")
    if path.suffix == ".png":
        grid(samples).save(path)
        return
    path.mkdir(exist_ok=True)
    for i, sample in enumerate(samples):
        picture(sample).save(path / f"{i:06d}.png")


def check_output(path: Path) -> None:
    """Refuse a suffix that ``write`` does not know.

    Raises:
      ValueError: names the suffix and what is allowed.
    """
    if path.suffix not in (".png", ".npz", ""):
        raise ValueError(
            f"--output={path}: {path.suffix!r} is not .png (a grid), .npz (an array) or a directory"
        )

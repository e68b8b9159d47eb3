"""Any file Pillow reads, as one uint8 array of the wanted channels and size."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
RESIZES = ("crop", "squash", "none")
_ORIENTATION = 0x0112  # the EXIF tag


class WrongSize(ValueError):
    """An image does not have the one size asked for."""


def check_options(size: Any, channels: int, resize: str) -> tuple[int, int] | None:
    """Validate the options shared by image sources; returns ``size`` as (H, W) or None.

    Raises:
      ValueError: naming ``data.source.size``, ``data.source.channels`` or ``data.source.resize``.
    """
    if channels not in _MODES:
        raise ValueError(f"data.source.channels = {channels}: must be 1 (grey), 3 (RGB) or 4 (RGBA)")
    if resize not in RESIZES:
        raise ValueError(f"data.source.resize = {resize!r}: must be one of {', '.join(RESIZES)}")
    if size is None:
        return None
    height, width = 0, 0
    try:
        height, width = (size, size) if np.ndim(size) == 0 else size
        valid = int(height) == height > 0 and int(width) == width > 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"data.source.size = {size!r}: must be a positive integer, (height, width), or None")
    return int(height), int(width)


@functools.cache
def _leave_warning_to_us() -> None:
    """Pillow's warning does not say what to do; for the whole process, as threads share its filters."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@contextlib.contextmanager
def _opened(file: str | IO[bytes], max_pixels: int | None) -> "Iterator[Image]":
    """An image whose header has been read.

    Raises:
      ValueError: it has more than ``max_pixels``, or without these more than twice Pillow's limit.
    """
    from PIL import Image

    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)
    limit = Image.MAX_IMAGE_PIXELS
    _leave_warning_to_us()
    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; if the file is what you think, set data.source.max_pixels") from error
    with image:
        pixels = image.width * image.height
        if max_pixels is not None and pixels > max_pixels:
            raise ValueError(f"{pixels} pixels, more than data.source.max_pixels = {max_pixels}")
        if limit is not None and pixels > limit:
            warnings.warn(
                f"data.source.path: a picture has more than {limit} pixels, Pillow's limit against files "
                "that unpack to more than the memory holds; data.source.max_pixels moves that limit",
                stacklevel=2,
            )
        yield image


def upright_size(file: str, max_pixels: int | None = None) -> tuple[int, int]:
    """(H, W) of an image file after its EXIF orientation, from the header where possible."""
    with _opened(file, max_pixels) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def check_size(height: int, width: int, size: tuple[int, int] | None) -> None:
    """Raise WrongSize unless an image has ``size``; None accepts any."""
    if size is not None and (height, width) != size:
        raise WrongSize(f"size {height}x{width}, expected {size[0]}x{size[1]}")


def load(file: str | IO[bytes], channels: int, max_pixels: int | None = None) -> "Image":
    """Decode the first frame, turn it upright and convert it to 1, 3 or 4 channels of 8 bits.

    Transparency is flattened onto white when an alpha channel is not asked for: the colours
    stored under transparent pixels are arbitrary.  16-bit grey keeps its upper 8 bits.

    Raises:
      OSError, ValueError, SyntaxError: whatever Pillow says of a file it cannot read.
    """
    from PIL import ImageOps

    with _opened(file, max_pixels) as image:
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            return _convert(ImageOps.exif_transpose(image), channels)
        return _convert(image, channels)


def from_array(pixels: np.ndarray, channels: int) -> "Image":
    """A ``(H, W, C)`` uint8 or 16-bit grey array as an image of 1, 3 or 4 channels."""
    from PIL import Image

    return _convert(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), channels)


def _convert(image: "Image", channels: int) -> "Image":
    from PIL import Image

    if image.mode.startswith("I;16"):  # Pillow's own conversion to "L" would saturate
        values = np.asarray(image)
        if 0 < values.max() < 4096:
            warnings.warn(
                "data.source.path: a 16-bit picture has no value above 4095, as data of 8 or 12 bits have; "
                "the upper 8 of 16 bits are kept, so that it is nearly black: multiply such data by 16 first",
                stacklevel=2,
            )
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of type {image.mode!r} have no 0..255 range; convert them")
    if image.has_transparency_data and channels != 4:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    return image


def check_center_crop(side: object) -> None:
    """Refuse a ``data.source.center_crop`` that is not a positive integer or None."""
    if side is not None and not (isinstance(side, int) and side > 0):
        raise ValueError(f"data.source.center_crop = {side!r}: must be a positive integer or None")


def center_crop(image: "Image", side: int | None) -> "Image":
    """The central ``side x side`` pixels, at their own resolution; None leaves the image whole.

    Raises:
      WrongSize: the image is smaller.
    """
    if side is None:
        return image
    if min(image.size) < side:
        raise WrongSize(f"size {image.height}x{image.width}, expected {side}x{side} or more")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def fit(image: "Image", size: tuple[int, int] | None, resize: str) -> np.ndarray:
    """Bring a decoded image to ``size``; ``(H, W, C)`` uint8.

    "crop" scales the image until it just covers ``size``, then cuts the centre; "squash" scales
    both sides freely; "none" refuses any other size.  Scaling is Pillow's bicubic: antialiased
    (the filter widens when shrinking) and clipped to 0..255 before it becomes uint8.

    Raises:
      WrongSize: the image has another size and ``resize`` is "none".
    """
    from PIL import Image

    if size is not None and (image.height, image.width) != size:
        height, width = size
        if resize == "none":
            check_size(image.height, image.width, size)
        if resize == "squash":
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        else:
            ratio = max(height / image.height, width / image.width)
            scaled = (
                max(width, round(image.width * ratio)),
                max(height, round(image.height * ratio)),
            )
            if scaled != image.size:
                image = image.resize(scaled, Image.Resampling.BICUBIC)
            left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
            image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels

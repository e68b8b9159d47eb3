"""Masks of pictures: which pixels are to be made anew."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from score_sde.data import images

Size = tuple[int, int]
_STROKES = 0.25  # of the pixels that free-form strokes leave out, at least


def box(size: Size, rng: np.random.Generator) -> np.ndarray:
    """A square of half the side in the middle."""
    row, column = np.indices(size)
    return (abs(2 * row + 1 - size[0]) < size[0] / 2) & (abs(2 * column + 1 - size[1]) < size[1] / 2)


def half(size: Size, rng: np.random.Generator) -> np.ndarray:
    """The right half."""
    return np.indices(size)[1] >= size[1] // 2


def random(size: Size, rng: np.random.Generator, share: float) -> np.ndarray:
    """So large a share of single pixels, but at least one, and not all."""
    count = min(max(1, round(share * math.prod(size))), math.prod(size) - 1)
    return (rng.permutation(math.prod(size)) < count).reshape(size)


def freeform(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Strokes of a brush, bent at random, until they cover a quarter of the picture."""
    gone, side = np.zeros(size, bool), max(size)
    while gone.mean() < _STROKES:
        place, angle = rng.random(2) * size, rng.uniform(0, 2 * math.pi)
        radius = max(0.5, side * rng.uniform(0.04, 0.08))
        for _ in range(rng.integers(2, 6)):
            angle += rng.uniform(-0.4, 0.4) * math.pi
            end = place + side * rng.uniform(0.1, 0.3) * np.array([math.sin(angle), math.cos(angle)])
            end = np.clip(end, 0, size)
            gone |= _distance(size, place, end) <= radius
            place = end
    return gone


def _distance(size: Size, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Of the middle of every pixel from a line between two places."""
    pixels = np.moveaxis(np.indices(size), 0, -1) + 0.5
    way = end - start
    along = np.clip((pixels - start) @ way / max(float(way @ way), 1e-12), 0, 1)
    return np.linalg.norm(pixels - start - along[..., None] * way, axis=-1)


# ``random`` is not here, since its share is an option of its own.
SHAPES: dict[str, Callable[[Size, np.random.Generator], np.ndarray]] = {
    "box": box,
    "half": half,
    "freeform": freeform,
}


def of_file(name: str, size: Size) -> np.ndarray:
    """Where a picture is white.

    Raises:
      ValueError: no such file, one that cannot be read, or one of another size.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(f"mask = {name!r}: neither {', '.join((*SHAPES, 'random'))} nor a file")
    try:
        picture = np.asarray(images.load(str(file), 1))
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ValueError(f"mask = {name!r}: cannot be used: {error}") from error
    if picture.shape != size:
        raise ValueError(
            f"mask = {name!r}: has {picture.shape[0]}x{picture.shape[1]} pixels, and the model's pictures "
            f"{size[0]}x{size[1]}"
        )
    return picture > 127

"""What is asked of a picture: the measurement that leaves open what is to be made anew."""

import abc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from score_sde.data import images
from score_sde.inverse.base import LinearOperator
from score_sde.inverse.blur import Blur
from score_sde.inverse.grid import BoxDown, ChannelMean
from score_sde.inverse.mask import MASK, Mask


class Edit(abc.ABC):
    """A measurement of a picture of a given shape."""

    @abc.abstractmethod
    def operator(self, shape: tuple[int, ...]) -> LinearOperator:
        """What is measured of states ``(*S, C)``.

        Raises:
          ValueError: a shape that it cannot measure.
        """

    def given(self, shape: tuple[int, ...], count: int) -> dict[str, np.ndarray]:
        """What the operator needs for ``count`` pictures, ``(count, ...)`` each.

        Raises:
          ValueError: an option that does not suit the shape.
        """
        return {}

    @abc.abstractmethod
    def shown(self, measured: np.ndarray, given: dict[str, np.ndarray], low: float) -> np.ndarray:
        """The measurement as pictures of the whole size: ``(N, *M) -> (N, *S, C)``.

        Args:
          low: the value of what is not seen.
        """


@dataclass(frozen=True, kw_only=True)
class Inpaint(Edit):
    """Fill what a mask leaves out.

    Attributes:
      mask: ``box`` (a square of half the side in the middle), ``half`` (the right half), ``random`` (single
        pixels), or the path of a picture of the model's size that is white where the picture is to be filled.
      share: of the pixels that ``random`` leaves out.
    """

    mask: str = "box"
    share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share = {self.share}: must be between 0 and 1")

    def operator(self, shape: tuple[int, ...]) -> LinearOperator:
        return Mask()

    def given(self, shape: tuple[int, ...], count: int) -> dict[str, np.ndarray]:
        gone = self._gone(shape[:2])
        if gone.all() or not gone.any():
            what = "everything is to be filled" if gone.all() else "nothing is to be filled"
            raise ValueError(f"mask = {self.mask!r}: {what}; white is filled, black is kept")
        seen = np.broadcast_to(~gone[..., None], shape)
        return {MASK: np.broadcast_to(seen, (count, *shape)).astype(np.float32)}

    def _gone(self, size: tuple[int, ...]) -> np.ndarray:
        height, width = size
        row, column = np.indices(size)
        if self.mask == "box":
            return (abs(2 * row + 1 - height) < height / 2) & (abs(2 * column + 1 - width) < width / 2)
        if self.mask == "half":
            return column >= width // 2
        if self.mask == "random":
            return np.random.Generator(np.random.PCG64(0)).random(size) < self.share
        file = Path(self.mask).expanduser()
        if not file.is_file():
            raise ValueError(f"mask = {self.mask!r}: neither box, half, random nor a file")
        try:
            picture = np.asarray(images.load(str(file), 1))
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise ValueError(f"mask = {self.mask!r}: cannot be used: {error}") from error
        if picture.shape != size:
            raise ValueError(
                f"mask = {self.mask!r}: has {picture.shape[0]}x{picture.shape[1]} pixels, and the model's "
                f"pictures {height}x{width}"
            )
        return picture > 127

    def shown(self, measured: np.ndarray, given: dict[str, np.ndarray], low: float) -> np.ndarray:
        return np.where(given[MASK] > 0, measured, low)


@dataclass(frozen=True, kw_only=True)
class Colorize(Edit):
    """Give a grey picture colours: what is kept is the mean of the channels."""

    def operator(self, shape: tuple[int, ...]) -> LinearOperator:
        if shape[-1] != 3:
            raise ValueError(f"the model's pictures have {shape[-1]} channels: must be 3")
        return ChannelMean(channels=3)

    def shown(self, measured: np.ndarray, given: dict[str, np.ndarray], low: float) -> np.ndarray:
        return np.repeat(measured, 3, axis=-1)


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Edit):
    """Make a small picture large: what is kept are means of boxes of pixels.

    Attributes:
      factor: pixels of a side of a box; divides the size of the picture.
    """

    factor: int = 2

    def operator(self, shape: tuple[int, ...]) -> LinearOperator:
        if self.factor < 2 or any(size % self.factor for size in shape[:-1]):
            raise ValueError(f"factor = {self.factor}: must be at least 2 and divide {shape[0]}x{shape[1]}")
        return BoxDown(factor=self.factor)

    def shown(self, measured: np.ndarray, given: dict[str, np.ndarray], low: float) -> np.ndarray:
        return measured.repeat(self.factor, axis=1).repeat(self.factor, axis=2)


@dataclass(frozen=True, kw_only=True)
class Deblur(Edit):
    """Sharpen a picture that a Gaussian has blurred.

    Attributes:
      blur_sigma: its standard deviation in pixels.
    """

    blur_sigma: float = 1.0

    def operator(self, shape: tuple[int, ...]) -> LinearOperator:
        return Blur(blur_sigma=self.blur_sigma)

    def shown(self, measured: np.ndarray, given: dict[str, np.ndarray], low: float) -> np.ndarray:
        return measured


EDITS: dict[str, type[Edit]] = {
    "inpaint": Inpaint,
    "colorize": Colorize,
    "superres": SuperResolution,
    "deblur": Deblur,
}

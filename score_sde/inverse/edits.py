"""What is asked of a picture: the measurement that leaves open what is to be made anew."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.inverse import masks
from score_sde.inverse.base import LinearOperator, conjugate_gradients
from score_sde.inverse.bicubic import BicubicDown
from score_sde.inverse.blur import Blur
from score_sde.inverse.fourier import FREQUENCIES, Fourier
from score_sde.inverse.grid import BoxDown, ChannelMean
from score_sde.inverse.mask import MASK, Mask
from score_sde.inverse.radon import Radon
from score_sde.names import ReadIf

Shape = tuple[int, ...]
Given = dict[str, np.ndarray]


class Edit(abc.ABC):
    """A measurement of pictures of a given shape.

    What is drawn at random for a picture, such as its mask, depends on a seed and the picture's number.
    """

    @abc.abstractmethod
    def operator(self, shape: Shape) -> LinearOperator:
        """What is measured of states ``(*S, C)``.

        Raises:
          ValueError: a shape that it cannot measure.
        """

    def given(self, shape: Shape, count: int, *, seed: int = 0, first: int = 0) -> Given:
        """What the operator needs for pictures ``first .. first + count - 1``, ``(count, ...)`` each.

        Raises:
          ValueError: an option that does not suit the shape.
        """
        return {}

    def method(self) -> tuple[str, dict[str, object]] | None:
        """The only method that it is for, with its options; None: that of the config."""
        return None

    def seen(self, given: Given) -> np.ndarray | float:
        """1 where there is a measurement, 0 where there is none: broadcasts against ``(N, *M)``."""
        return 1.0

    def taken(self, shape: Shape) -> tuple[Shape, ...]:
        """Shapes of the pictures that it can be given; the first is what larger ones are made smaller to."""
        return (shape,)

    def whole(self, picture: np.ndarray, shape: Shape) -> np.ndarray:
        """A picture of one of these shapes in that of the model."""
        return picture

    def measured_shape(self, shape: Shape) -> Shape | None:
        """Of a picture that is the measurement itself, such as a small one; None: it is no picture."""
        return shape

    @abc.abstractmethod
    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        """The measurement as pictures of the whole size: ``(N, *M) -> (N, *S, C)``.

        Args:
          low: the value of what is not seen.
        """


class Masked(Edit):
    """A measurement of some pixels."""

    @abc.abstractmethod
    def gone(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Which pixels of a picture are to be made anew, ``(H, W)``.

        Args:
          rng: of this picture.
        """

    def operator(self, shape: Shape) -> LinearOperator:
        return Mask()

    def given(self, shape: Shape, count: int, *, seed: int = 0, first: int = 0) -> Given:
        size = (shape[0], shape[1])
        seen = [~self.gone(size, _generator(seed, first + i)) for i in range(count)]
        return {MASK: np.broadcast_to(np.stack(seen)[..., None], (count, *shape)).astype(np.float32)}

    def method(self) -> tuple[str, dict[str, object]] | None:
        """The only method that it is for, with its options; None: that of the config."""
        return None

    def seen(self, given: Given) -> np.ndarray | float:
        return given[MASK]

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return np.where(given[MASK] > 0, measured, low)


def _generator(seed: int, number: int) -> np.random.Generator:
    """Of one picture."""
    return np.random.Generator(np.random.PCG64([seed, number]))


@dataclass(frozen=True, kw_only=True)
class Inpaint(Masked):
    """Fill what a mask leaves out.

    Attributes:
      mask: ``box`` (a square of half the side in the middle), ``half`` (the right half), ``random`` (single
        pixels), ``freeform`` (strokes of a brush), or the path of a picture of the model's size that is white
        where the picture is to be filled.  ``random`` and ``freeform`` differ from picture to picture.
      share: of the pixels that ``random`` leaves out.
    """

    read_if: ClassVar[ReadIf] = {"share": ("mask", ("random",))}

    mask: str = "box"
    share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share = {self.share}: must be between 0 and 1")

    def gone(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        if self.mask in masks.SHAPES:
            gone = masks.SHAPES[self.mask](size, rng)
        elif self.mask == "random":
            gone = masks.random(size, rng, self.share)
        else:
            gone = masks.of_file(self.mask, size)
        if gone.all() or not gone.any():
            what = "everything is to be filled" if gone.all() else "nothing is to be filled"
            raise ValueError(f"mask = {self.mask!r}: {what}; white is filled, black is kept")
        return gone


@dataclass(frozen=True, kw_only=True)
class Outpaint(Masked):
    """Continue a picture beyond its borders.

    A picture that is smaller than the model's by the margin on every side is put in the middle.  Of one that
    has the model's size, the margin is made anew.

    Attributes:
      margin: pixels on every side.
    """

    margin: int = 2

    def gone(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        inner = np.zeros(size, bool)
        inner[self.margin : size[0] - self.margin, self.margin : size[1] - self.margin] = True
        return ~inner

    def operator(self, shape: Shape) -> LinearOperator:
        if not 0 < self.margin < min(shape[:2]) / 2:
            raise ValueError(
                f"margin = {self.margin}: must be at least 1 and leave something of {shape[0]}x{shape[1]}"
            )
        return Mask()

    def taken(self, shape: Shape) -> tuple[Shape, ...]:
        height, width = (size - 2 * self.margin for size in shape[:2])
        return ((height, width, *shape[2:]), shape)

    def whole(self, picture: np.ndarray, shape: Shape) -> np.ndarray:
        if picture.shape == shape:
            return picture
        return np.pad(picture, ((self.margin, self.margin), (self.margin, self.margin), (0, 0)))


@dataclass(frozen=True, kw_only=True)
class Colorize(Edit):
    """Give a grey picture colours: what is kept is the mean of the channels."""

    def operator(self, shape: Shape) -> LinearOperator:
        if shape[-1] != 3:
            raise ValueError(f"the model's pictures have {shape[-1]} channels: must be 3")
        return ChannelMean(channels=3)

    def measured_shape(self, shape: Shape) -> Shape | None:
        return (*shape[:-1], 1)

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return np.repeat(measured, 3, axis=-1)


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Edit):
    """Make a small picture large.

    Attributes:
      factor: by which a side of it is shorter; divides the size of the model's pictures.
      kernel: ``box`` (a small pixel is the mean of a box of pixels) or ``bicubic`` (as image libraries make
        pictures smaller).
    """

    factor: int = 2
    kernel: str = "box"

    def __post_init__(self) -> None:
        if self.kernel not in _KERNELS:
            raise ValueError(f"kernel = {self.kernel!r}: must be one of {', '.join(_KERNELS)}")

    def operator(self, shape: Shape) -> LinearOperator:
        if self.factor < 2 or any(size % self.factor for size in shape[:-1]):
            raise ValueError(f"factor = {self.factor}: must be at least 2 and divide {shape[0]}x{shape[1]}")
        return _KERNELS[self.kernel](factor=self.factor)

    def measured_shape(self, shape: Shape) -> Shape | None:
        return (*(size // self.factor for size in shape[:-1]), shape[-1])

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return measured.repeat(self.factor, axis=1).repeat(self.factor, axis=2)


_KERNELS = {"box": BoxDown, "bicubic": BicubicDown}


@dataclass(frozen=True, kw_only=True)
class Deblur(Edit):
    """Sharpen a picture that a Gaussian has blurred.

    Attributes:
      blur_sigma: its standard deviation in pixels.
    """

    blur_sigma: float = 1.0

    def operator(self, shape: Shape) -> LinearOperator:
        return Blur(blur_sigma=self.blur_sigma)

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return measured


@dataclass(frozen=True, kw_only=True)
class FourierLines(Edit):
    """Reconstruct a picture from some columns of its Fourier transform (accelerated MRI).

    The other columns are chosen at random, and differ from picture to picture.

    Attributes:
      keep: share of the columns that are measured.
      center: share of the columns, those of the lowest frequencies, that always are.
    """

    keep: float = 0.4
    center: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise ValueError(f"keep = {self.keep}: must be between 0 and 1")
        if not 0 <= self.center <= self.keep:
            raise ValueError(f"center = {self.center}: must be from 0 to keep = {self.keep}")

    def operator(self, shape: Shape) -> LinearOperator:
        return Fourier()

    def given(self, shape: Shape, count: int, *, seed: int = 0, first: int = 0) -> Given:
        lines = np.stack([self._columns(shape[1], _generator(seed, first + i)) for i in range(count)])
        seen = np.broadcast_to(lines[:, None, :, None], (count, *shape[:2], 1))
        return {FREQUENCIES: seen.astype(np.float32)}

    def _columns(self, width: int, rng: np.random.Generator) -> np.ndarray:
        """Which columns of the transform are measured, ``(W,)``: at least one."""
        away = np.minimum(np.arange(width), width - np.arange(width))
        fixed, every = round(self.center * width), max(1, round(self.keep * width))
        order = np.argsort(away, kind="stable")
        others = rng.permutation(order[fixed:])[: every - fixed]
        return np.isin(np.arange(width), np.concatenate([order[:fixed], others]))

    def method(self) -> tuple[str, dict[str, object]] | None:
        """The only method that it is for, with its options; None: that of the config."""
        return None

    def seen(self, given: Given) -> np.ndarray | float:
        return given[FREQUENCIES]

    def measured_shape(self, shape: Shape) -> Shape | None:
        return None

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        places = {name: jnp.asarray(value) for name, value in given.items()}
        return np.asarray(Fourier().pseudo_inverse(jnp.asarray(measured, jnp.float32), places))


@dataclass(frozen=True, kw_only=True)
class Tomography(Edit):
    """Reconstruct a picture from its sums along parallel rays at a few angles (computed tomography).

    Attributes:
      angles: views, evenly from 0 up to a half turn.
    """

    angles: int = 6

    def __post_init__(self) -> None:
        if self.angles < 1:
            raise ValueError(f"angles = {self.angles}: must be positive")

    def operator(self, shape: Shape) -> LinearOperator:
        return Radon(size=(shape[0], shape[1]), angles=self.angles)

    def measured_shape(self, shape: Shape) -> Shape | None:
        return None

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        operator = self.operator(shape)

        def covariance(v: Array) -> Array:
            return operator.apply(operator.adjoint(v, {}), {}) + _FLOOR * v

        solved = conjugate_gradients(covariance, jnp.asarray(measured, jnp.float32), 30)
        return np.asarray(operator.adjoint(solved, {}))  # the shortest picture that has all but these sums


@dataclass(frozen=True, kw_only=True)
class Vary(Edit):
    """Make variants of a picture: it is given noise, and sampling goes on from there (SDEdit).

    Attributes:
      strength: share of the steps that is taken: near 0 the picture comes back, at 1 little of it is left.
    """

    strength: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength = {self.strength}: must be above 0 and at most 1")

    def operator(self, shape: Shape) -> LinearOperator:
        return Mask()

    def given(self, shape: Shape, count: int, *, seed: int = 0, first: int = 0) -> Given:
        return {MASK: np.ones((count, *shape), np.float32)}

    def method(self) -> tuple[str, dict[str, object]] | None:
        return "sdedit", {"strength": self.strength}

    def shown(self, measured: np.ndarray, given: Given, shape: Shape, low: float) -> np.ndarray:
        return measured


_FLOOR = 1e-3  # keeps the noise of the sums from being magnified where the picture is shown


EDITS: dict[str, type[Edit]] = {
    "inpaint": Inpaint,
    "outpaint": Outpaint,
    "colorize": Colorize,
    "superres": SuperResolution,
    "deblur": Deblur,
    "sdedit": Vary,
    "fourier": FourierLines,
    "radon": Tomography,
}

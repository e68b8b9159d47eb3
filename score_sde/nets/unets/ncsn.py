"""NCSN (Song and Ermon 2019, arXiv:1907.05600) and NCSNv2 (2020, arXiv:2006.09011): RefineNets."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond
from score_sde.nets import checks, layers
from score_sde.nets.unets import refinenet

CHOICES: dict[str, tuple[str, ...]] = {
    "normalization": ("InstanceNorm++", "InstanceNorm", "VarianceNorm"),
    "interpolation": tuple(refinenet.INTERPOLATIONS),
    "nonlinearity": tuple(layers.ACTIVATIONS),
    "dtype": ("float32", "bfloat16"),
}


class NCSNv2(nn.Module):
    """A RefineNet that does not see the noise level: only its output is divided by sigma, outside.

    The defaults are the network for images below 96 pixels of the PyTorch code of Song et al. 2021
    (arXiv:2011.13456).  Their JAX code has another: ``refine_mult=(1, 2, 2, 2)``,
    ``unbiased=False`` and ``interpolation="half_pixel"``, the last two at every size.

    Attributes:
      nf: channels at full resolution, at least 2.
      ch_mult: multiple of ``nf`` at every level.
      dilations: of the convolutions at every level.  A level after the first has half the
        resolution of the last if its dilation is 1, and the same if it is more.
      refine_mult: multiple of ``nf`` that leaves the refinement at every level; the same as
        ``ch_mult`` at the last.
      normalization: ``InstanceNorm++``, ``InstanceNorm`` (without parameters) or ``VarianceNorm``.
      unbiased: whether the variance over C channels in InstanceNorm++ divides by ``C - 1``, and that over
        P pixels in VarianceNorm by ``P - 1``.
      out_epsilon: added to the variances by the last InstanceNorm.  The PyTorch code hands it the number of
        levels here, by accident: ``num_scales``.
      interpolation: from coarse to fine; ``align_corners``, ``half_pixel`` or ``nearest``.
      nonlinearity: ``elu``, ``swish``, ``relu`` or ``lrelu`` (slope 0.2).
      input_range: the data range, mapped affinely onto [-1, 1] as the first operation.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
    """

    nf: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 2, 4)
    refine_mult: tuple[int, ...] = (1, 1, 2, 2)
    normalization: str = "InstanceNorm++"
    unbiased: bool = True
    out_epsilon: float = 1e-5
    interpolation: str = "align_corners"
    nonlinearity: str = "elu"
    input_range: tuple[float, float] = (-1.0, 1.0)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        # Configuration files and command lines have lists; a network is hashable.
        for field in ("ch_mult", "dilations", "refine_mult", "input_range"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, cond: Cond, train: bool = False) -> Array:
        """The raw network output F; the score is ``F / sigma`` (NCSNv2) or F (NCSN).

        Args:
          x: ``(B, *S, C)`` float32, any channel count; spatial sizes divisible by two to the
            number of levels after the first whose dilation is 1.
          c_noise: ``(B,)`` float32: the index of the noise level for NCSN, unused by NCSNv2.
          cond: empty; the network takes no condition.
          train: unused, there is no dropout.

        Returns:
          ``(B, *S, C)`` float32.

        Raises:
          ValueError: a field or a shape that the network cannot work with.
        """
        check(self, x.shape, c_noise.shape)
        low, high = self.input_range
        scale = 2 / (high - low)
        h = (x.astype(jnp.float32) * scale - (low * scale + 1)).astype(self.dtype)
        level = jnp.round(c_noise).astype(jnp.int32)
        style = self._style()
        h = refinenet.Conv(self.nf, dtype=self.dtype, name="stem")(h)
        maps = []
        for i, (multiple, dilation) in enumerate(zip(self.ch_mult, self.dilations, strict=True)):
            for j in (0, 1):
                down = i > 0 and j == 0
                block = refinenet.ResidualBlock(
                    self.nf * multiple, down, dilation, style, name=f"down_{i}_block_{j}"
                )
                h = block(h, level)
            maps.append(h)
        coarser: list[Array] = []
        for i in reversed(range(len(maps))):
            units = 1 if i else 3
            refine = refinenet.Refinement(self.nf * self.refine_mult[i], units, style, name=f"refine_{i}")
            coarser = [refine([maps[i], *coarser], level)]
        out_norm = {"epsilon": self.out_epsilon} if self.normalization == "InstanceNorm" else {}
        h = style.act(style.norm(name="out_norm", **out_norm)(coarser[0], level))
        h = refinenet.Conv(x.shape[-1], dtype=self.dtype, name="out_conv")(h)
        return h.astype(jnp.float32)

    def _style(self) -> refinenet.Style:
        norms = {
            "InstanceNorm++": functools.partial(refinenet.InstanceNormPlus, unbiased=self.unbiased),
            "InstanceNorm": refinenet.InstanceNorm,
            "VarianceNorm": functools.partial(refinenet.VarianceNorm, self.unbiased),
        }
        return refinenet.Style(
            norm=norms[self.normalization],
            refine_norm=None,
            pool=refinenet.max_pool,
            interpolation=self.interpolation,
            act=layers.ACTIVATIONS[self.nonlinearity],
            dtype=self.dtype,
        )


class NCSNv2For128(NCSNv2):
    """NCSNv2 with one level more, for images of 96 to 128 pixels."""

    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4)
    dilations: tuple[int, ...] = (1, 1, 1, 2, 4)
    refine_mult: tuple[int, ...] = (1, 1, 2, 2, 4)


class NCSNv2For256(NCSNv2):
    """NCSNv2 with two levels more, for images of 129 to 256 pixels."""

    ch_mult: tuple[int, ...] = (1, 2, 2, 2, 4, 4)
    dilations: tuple[int, ...] = (1, 1, 1, 1, 2, 4)
    refine_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 4)


class NCSN(NCSNv2):
    """The RefineNet whose every normalisation knows the noise level, and that pools by means.

    ``c_noise`` is the index of the level, rounded; one outside ``0 ... num_scales - 1`` gives NaN.

    Attributes:
      num_scales: number of noise levels.
    """

    num_scales: int = 10

    def _style(self) -> refinenet.Style:
        norm = functools.partial(refinenet.InstanceNormPlus, self.num_scales, self.unbiased)
        return refinenet.Style(
            norm=norm,
            refine_norm=norm,
            pool=refinenet.mean_pool,
            interpolation=self.interpolation,
            act=layers.ACTIVATIONS[self.nonlinearity],
            dtype=self.dtype,
        )


def check(net: NCSNv2, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
    """Refuse fields or shapes of ``(x, c_noise)`` that the network cannot work with.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    levels = len(net.ch_mult)
    divisor = 2 ** sum(dilation == 1 for dilation in net.dilations[1:])
    scales = net.num_scales if isinstance(net, NCSN) else 1
    norm = net.normalization
    rows = [(field, getattr(net, field)) for field in ("ch_mult", "dilations", "refine_mult")]
    checks.require(
        [
            *checks.choices(net, CHOICES),
            (
                "normalization",
                norm,
                "InstanceNorm++ in a network that knows the level",
                norm == "InstanceNorm++" or not isinstance(net, NCSN),
            ),
            ("out_epsilon", net.out_epsilon, "positive", net.out_epsilon > 0),
            ("nf", net.nf, "at least 2", net.nf >= 2),
            ("num_scales", scales, "at least 1", scales >= 1),
            *((f, row, "one or more positive integers", min(row, default=0) > 0) for f, row in rows),
            *((f, row, f"of length {levels}, as ch_mult is", len(row) == levels) for f, row in rows),
            (
                "refine_mult",
                net.refine_mult,
                f"{net.ch_mult[-1]} at the last level, as ch_mult is",
                net.refine_mult[-1] == net.ch_mult[-1],
            ),
            checks.input_range(net.input_range),
            *checks.arguments(shape, noise_shape, divisor),
        ]
    )

"""NCSN++ and DDPM++: the U-Nets of Song et al. 2021 (arXiv:2011.13456), section 4.4, appendix H."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond, Conditions
from score_sde.names import ReadIf
from score_sde.nets import checks, embedding, layers
from score_sde.nets.remat import POLICIES, rematerialised
from score_sde.nets.resample import BOX

CHOICES: dict[str, tuple[object, ...]] = {
    "resblock_type": ("biggan", "ddpm"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
    "embedding_type": ("positional", "fourier"),
    "nonlinearity": tuple(layers.ACTIVATIONS),
    "dtype": ("float32", "bfloat16"),
    "remat": tuple(POLICIES),
}


class NCSNpp(nn.Module):
    """A residual U-Net conditioned on the noise level, for any number of spatial axes.

    The options have the names of the released configurations.  The defaults are DDPM++ for
    CIFAR-10; NCSN++ adds ``fir=True`` and ``progressive_input="residual"``.

    Attributes:
      nf: channels at full resolution; even, at least 4.
      ch_mult: multiple of ``nf`` at every level; each level has half the resolution of the last.
      num_res_blocks: residual blocks per level on the way down (one more on the way up).
      attn_resolutions: attention where the first spatial size of the feature map is listed.
      dropout: probability, before the second convolution of every block.
      resamp_with_conv: convolve when resampling (``resblock_type="ddpm"`` only).
      noise_conditional: whether the network sees the noise level at all.
      fir, fir_kernel: resample with this filter instead of nearest neighbours and 2 x 2 means.
      skip_rescale: divide the sums of branches by sqrt(2).
      resblock_type: ``biggan`` resamples inside residual blocks, ``ddpm`` between them.
      progressive: how the output grows over resolutions: ``none``, ``output_skip``, ``residual``.
      progressive_input: how the input enters at lower resolutions: ``none``, ``input_skip``,
        ``residual``.
      progressive_combine: ``sum`` or ``cat``, for ``input_skip``.
      embedding_type: ``positional`` embeds ``c_noise``; ``fourier`` embeds ``2 pi w c_noise``.
      fourier_scale: standard deviation of w.
      init_scale: variance scale of the last layer of every branch; 0 means almost zero.
      nonlinearity: ``swish``, ``elu``, ``relu`` or ``lrelu`` (slope 0.2).
      conditions: what the network takes, by name: classes and vectors are added to the embedded noise
        level, images are further channels of its input.
      input_range: the data range, mapped affinely onto [-1, 1] as the first operation.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
      remat: what the blocks compute again in the backward pass to save memory: ``none``, ``products``
        (all but convolutions and matrix products) or ``full``.
    """

    nf: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    resamp_with_conv: bool = True
    noise_conditional: bool = True
    fir: bool = False
    fir_kernel: tuple[float, ...] = (1, 3, 3, 1)
    skip_rescale: bool = True
    resblock_type: str = "biggan"
    progressive: str = "none"
    progressive_input: str = "none"
    progressive_combine: str = "sum"
    embedding_type: str = "positional"
    fourier_scale: float = 16.0
    init_scale: float = 0.0
    nonlinearity: str = "swish"
    conditions: Conditions = ()
    input_range: tuple[float, float] = (-1.0, 1.0)
    dtype: str = "float32"
    remat: str = "none"
    read_if: ClassVar[ReadIf] = {
        "resamp_with_conv": ("resblock_type", ("ddpm",)),
        "fir_kernel": ("fir", bool),
        "progressive_combine": ("progressive_input", ("input_skip",)),
        "fourier_scale": ("embedding_type", ("fourier",)),
    }

    def __post_init__(self) -> None:
        # Configuration files and command lines have lists; a network is hashable.
        for field in ("ch_mult", "attn_resolutions", "fir_kernel", "input_range"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, cond: Cond, train: bool = False) -> Array:
        """The raw network output F.

        Args:
          x: ``(B, *S, C)`` float32, any channel count; spatial sizes divisible by
            ``2 ** (len(ch_mult) - 1)``.
          c_noise: ``(B,)`` float32, embedded as it is.  Released models take ``999 t`` (VP and
            sub-VP, positional), the level's index (discrete) or ``ln sigma`` (VE, fourier).
          cond: all of ``conditions``, ``(B, *shape)`` each, null values where there is none.
          train: whether dropout acts; needs the random stream ``"dropout"``.

        Returns:
          ``(B, *S, C)`` float32.

        Raises:
          ValueError: a field, or a shape, that the network cannot work with.
        """
        check(self, x.shape, c_noise.shape)
        low, high = self.input_range
        scale = 2 / (high - low)
        x = (x.astype(jnp.float32) * scale - (low * scale + 1)).astype(self.dtype)
        time = self._noise_level(c_noise.astype(jnp.float32), cond)
        skips = self._down(embedding.with_images(x, self.conditions, cond), time, train)
        h = skips[-1]
        h = self._block(h.shape[-1], "mid_block_0")(h, time, train)
        h = self._attention("mid_attention")(h)
        h = self._block(h.shape[-1], "mid_block_1")(h, time, train)
        return self._up(h, skips, time, train, channels=x.shape[-1]).astype(jnp.float32)

    def _noise_level(self, c_noise: Array, cond: Cond) -> Array | None:
        """``(B, 4 nf)``, or None for an unconditional network."""
        if not self.noise_conditional:
            return None
        if self.embedding_type == "fourier":
            waves = layers.FourierEmbedding(self.nf, self.fourier_scale, name="time_embedding")(c_noise)
        else:
            waves = layers.positional_embedding(c_noise, self.nf)
        width = 4 * self.nf
        h = layers.Dense(width, dtype=self.dtype, name="time_dense_0")(waves)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        h = layers.Dense(width, dtype=self.dtype, name="time_dense_1")(h)
        return embedding.add(h, self.conditions, cond, embedding.added(self.dtype))

    def _down(self, x: Array, time: Array | None, train: bool) -> list[Array]:
        """Feature maps of the way down, in the order in which they were made."""
        skips = [self._conv(self.nf, "stem")(x)]
        pyramid = x
        for level, multiple in enumerate(self.ch_mult):
            h = skips[-1]
            for i in range(self.num_res_blocks):
                h = self._block(self.nf * multiple, f"down_{level}_block_{i}")(h, time, train)
                if h.shape[1] in self.attn_resolutions:
                    h = self._attention(f"down_{level}_attention_{i}")(h)
                skips.append(h)
            if level == len(self.ch_mult) - 1:
                break
            h = self._resample(h, "down", f"down_{level}_resample", time, train)
            name = f"pyramid_down_{level}"
            if self.progressive_input == "input_skip":
                pyramid = layers.downsample(pyramid, self._kernel or BOX)
                h = layers.Combine(self.progressive_combine, self.dtype, name=name)(pyramid, h)
            elif self.progressive_input == "residual":
                pyramid = layers.Downsample(h.shape[-1], self._kernel, self.dtype, name=name)(pyramid)
                h = pyramid = layers.join(pyramid, h, self.skip_rescale)
            skips.append(h)
        return skips

    def _up(self, h: Array, skips: list[Array], time: Array | None, train: bool, channels: int) -> Array:
        """From the lowest resolution to the output, consuming ``skips`` from the end."""
        top = len(self.ch_mult) - 1
        pyramid: Array | None = None
        for level in reversed(range(top + 1)):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                block = self._block(self.nf * self.ch_mult[level], f"up_{level}_block_{i}")
                h = block(h, time, train)
            if h.shape[1] in self.attn_resolutions:
                h = self._attention(f"up_{level}_attention")(h)
            if self.progressive == "output_skip":
                image = self._readout(h, channels, self.init_scale, f"pyramid_up_{level}")
                if pyramid is not None:
                    image = layers.upsample(pyramid, self._kernel or BOX) + image
                pyramid = image
            elif self.progressive == "residual" and pyramid is None:
                pyramid = self._readout(h, h.shape[-1], 1.0, f"pyramid_up_{level}")
            elif pyramid is not None:
                pyramid = layers.Upsample(h.shape[-1], self._kernel, self.dtype, name=f"pyramid_up_{level}")(
                    pyramid
                )
                h = pyramid = layers.join(pyramid, h, self.skip_rescale)
            if level:
                h = self._resample(h, "up", f"up_{level}_resample", time, train)
        if self.progressive == "output_skip" and pyramid is not None:
            return pyramid
        return self._readout(h, channels, self.init_scale, "out")

    @property
    def _kernel(self) -> tuple[float, ...] | None:
        return self.fir_kernel if self.fir else None

    def _conv(self, features: int, name: str, scale: float = 1.0) -> layers.Conv:
        return layers.Conv(features, scale, dtype=self.dtype, name=name)

    def _attention(self, name: str) -> layers.Attention:
        norm = self._norm(name)
        attention = rematerialised(layers.Attention, self.remat)
        return attention(self.init_scale, self.skip_rescale, self.dtype, norm=norm, name=name)

    def _block(self, features: int, name: str, resample: str = "none") -> layers.ResBlock:
        return rematerialised(layers.ResBlock, self.remat, static=(3,))(
            features,
            resample,
            self._kernel or BOX,
            shortcut_scale=1.0 if self.resblock_type == "biggan" else 0.1,
            nonlinearity=self.nonlinearity,
            dropout=self.dropout,
            init_scale=self.init_scale,
            skip_rescale=self.skip_rescale,
            dtype=self.dtype,
            norm=self._norm(name),
            name=name,
        )

    def _norm(self, where: str) -> layers.MakeNorm:
        """What makes the normalisations of a layer; a variant of the network may tell layers apart."""
        return layers.GroupNorm

    def _resample(self, h: Array, direction: str, name: str, time: Array | None, train: bool) -> Array:
        if self.resblock_type == "biggan":
            return self._block(h.shape[-1], name, direction)(h, time, train)
        kind = layers.Upsample if direction == "up" else layers.Downsample
        features = h.shape[-1] if self.resamp_with_conv else None
        return kind(features, self._kernel, self.dtype, name=name)(h)

    def _readout(self, h: Array, features: int, scale: float, name: str) -> Array:
        h = self._norm(name)(name=f"{name}_norm")(h)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        return self._conv(features, f"{name}_conv", scale)(h)


def check(net: NCSNpp, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
    """Refuse fields or shapes of ``(x, c_noise)`` that the network cannot work with.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    kernel = net.fir_kernel
    checks.require(
        [
            *checks.choices(net, CHOICES),
            *checks.unet(net),
            (
                "fir_kernel",
                kernel,
                "two or more taps with a nonzero sum",
                len(kernel) >= 2 and sum(kernel) != 0,
            ),
            ("fourier_scale", net.fourier_scale, "positive", net.fourier_scale > 0),
            ("init_scale", net.init_scale, "zero or positive", net.init_scale >= 0),
            checks.embeds_conditions(net, net.noise_conditional),
            *checks.arguments(shape, noise_shape, 2 ** (len(net.ch_mult) - 1)),
        ]
    )

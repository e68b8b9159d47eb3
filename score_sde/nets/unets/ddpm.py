"""The U-Net of DDPM: Ho et al. 2020 (arXiv:2006.11239), appendix B."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond, Conditions
from score_sde.nets import checks, embedding, layers
from score_sde.nets.remat import POLICIES, rematerialised

CHOICES: dict[str, tuple[object, ...]] = {
    "up_attention": ("level", "block"),
    "downsample_padding": (0, 1),
    "nonlinearity": tuple(layers.ACTIVATIONS),
    "dtype": ("float32", "bfloat16"),
    "remat": tuple(POLICIES),
}


class DDPM(nn.Module):
    """A residual U-Net conditioned on the noise level, for any number of spatial axes.

    The defaults are the CIFAR-10 model of Song et al. 2021 (arXiv:2011.13456).  Ho et al. differ
    in ``up_attention="block"`` only; so does the library diffusers (``UNet2DModel``), whose names
    the other options bear that Song et al. have no name for.

    Attributes:
      nf: channels at full resolution; even, at least 4.
      ch_mult: multiple of ``nf`` at every level; each level has half the resolution of the last.
      num_res_blocks: residual blocks per level on the way down (one more on the way up).
      attn_resolutions: attention where the first spatial size of the feature map is listed.
      up_attention: on the way up, after every ``block`` of such a ``level`` or once at its end.
      attention_head_dim: channels of each attention head; 0 for a single head.
      dropout: probability, before the second convolution of every block.
      resamp_with_conv: convolve when resampling; or take nearest neighbours and 2 x 2 means.
      downsample_padding: zeros before each axis of the strided convolutions, with one behind.
      noise_conditional: whether the network sees the noise level at all.
      flip_sin_to_cos: embed the noise level in cosines, then sines.
      freq_shift: of the embedding's frequencies, see ``layers.positional_embedding``.
      norm_num_groups: groups of every group normalisation; divides ``nf`` times each multiple.
      norm_eps: added to the variances there.
      scale_shift: the noise level scales and shifts inside a block, see ``layers.ResBlock``.
      nonlinearity: ``swish``, ``elu``, ``relu`` or ``lrelu`` (slope 0.2).
      conditions: what the network takes, as for ``NCSNpp``.
      input_range: the data range, mapped affinely onto [-1, 1] as the first operation.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
      remat: what the blocks compute again in the backward pass to save memory: ``none``, ``products``
        (all but convolutions and matrix products) or ``full``.
    """

    nf: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    up_attention: str = "level"
    attention_head_dim: int = 0
    dropout: float = 0.1
    resamp_with_conv: bool = True
    downsample_padding: int = 0
    noise_conditional: bool = True
    flip_sin_to_cos: bool = False
    freq_shift: float = 1.0
    norm_num_groups: int = 32
    norm_eps: float = 1e-6
    scale_shift: bool = False
    nonlinearity: str = "swish"
    conditions: Conditions = ()
    input_range: tuple[float, float] = (-1.0, 1.0)
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self) -> None:
        # Configuration files and command lines have lists; a network is hashable.
        for field in ("ch_mult", "attn_resolutions", "input_range"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, c_noise: Array, cond: Cond, train: bool = False) -> Array:
        """The raw network output F.

        Args:
          x: ``(B, *S, C)`` float32, any channel count; spatial sizes divisible by
            ``2 ** (len(ch_mult) - 1)``.
          c_noise: ``(B,)`` float32, embedded as it is: the level's index, or ``999 t``.
          cond: all of ``conditions``, as for ``NCSNpp``.
          train: whether dropout acts; needs the random stream ``"dropout"``.

        Returns:
          ``(B, *S, C)`` float32.

        Raises:
          ValueError: a field, a shape or a condition that the network cannot work with.
        """
        check(self, x.shape, c_noise.shape)
        act = layers.ACTIVATIONS[self.nonlinearity]
        low, high = self.input_range
        scale = 2 / (high - low)
        h = (x.astype(jnp.float32) * scale - (low * scale + 1)).astype(self.dtype)
        time = self._noise_level(c_noise.astype(jnp.float32), cond)
        top = len(self.ch_mult) - 1

        skips = [self._conv(self.nf, "stem")(embedding.with_images(h, self.conditions, cond))]
        for level, multiple in enumerate(self.ch_mult):
            h = skips[-1]
            for i in range(self.num_res_blocks):
                h = self._block(self.nf * multiple, f"down_{level}_block_{i}")(h, time, train)
                h = self._attend(h, f"down_{level}_attention_{i}")
                skips.append(h)
            if level < top:
                padding = (self.downsample_padding, 1)
                kind = layers.Downsample(self._resampled(h), None, self.dtype, padding, name=f"down_{level}")
                skips.append(kind(h))

        h = skips[-1]
        h = self._block(h.shape[-1], "mid_block_0")(h, time, train)
        # With scale_shift the library diffusers leaves the norm out here; nothing else has scale_shift.
        h = self._attention("mid_attention", None if self.scale_shift else self._norm)(h)
        h = self._block(h.shape[-1], "mid_block_1")(h, time, train)

        for level in reversed(range(top + 1)):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(self.nf * self.ch_mult[level], f"up_{level}_block_{i}")(h, time, train)
                if self.up_attention == "block" or i == self.num_res_blocks:
                    h = self._attend(h, f"up_{level}_attention_{i}")
            if level:
                h = layers.Upsample(self._resampled(h), None, self.dtype, name=f"up_{level}")(h)

        h = act(self._norm(name="out_norm")(h))
        return self._conv(x.shape[-1], "out_conv", 0.0)(h).astype(jnp.float32)

    def _noise_level(self, c_noise: Array, cond: Cond) -> Array | None:
        """``(B, 4 nf)``, or None for an unconditional network."""
        if not self.noise_conditional:
            return None
        h = layers.positional_embedding(c_noise, self.nf, self.freq_shift, self.flip_sin_to_cos)
        h = layers.Dense(4 * self.nf, dtype=self.dtype, name="time_dense_0")(h)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        h = layers.Dense(4 * self.nf, dtype=self.dtype, name="time_dense_1")(h)
        return embedding.add(h, self.conditions, cond, embedding.added(self.dtype))

    @property
    def _norm(self) -> Callable[..., layers.GroupNorm]:
        return functools.partial(layers.GroupNorm, self.norm_eps, self.norm_num_groups)

    def _resampled(self, h: Array) -> int | None:
        return h.shape[-1] if self.resamp_with_conv else None

    def _conv(self, features: int, name: str, scale: float = 1.0) -> layers.Conv:
        return layers.Conv(features, scale, dtype=self.dtype, name=name)

    def _block(self, features: int, name: str) -> layers.ResBlock:
        return rematerialised(layers.ResBlock, self.remat, static=(3,))(
            features,
            shortcut_scale=0.1,
            nonlinearity=self.nonlinearity,
            dropout=self.dropout,
            skip_rescale=False,
            dtype=self.dtype,
            norm=self._norm,
            scale_shift=self.scale_shift,
            name=name,
        )

    def _attend(self, h: Array, name: str) -> Array:
        """Attention, where the resolution is one of those listed."""
        return self._attention(name, self._norm)(h) if h.shape[1] in self.attn_resolutions else h

    def _attention(self, name: str, norm: Callable[..., nn.Module] | None) -> layers.Attention:
        return rematerialised(layers.Attention, self.remat)(
            skip_rescale=False,
            dtype=self.dtype,
            head_channels=self.attention_head_dim,
            norm=norm,
            name=name,
        )


def check(net: DDPM, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
    """Refuse fields or shapes of ``(x, c_noise)`` that the network cannot work with.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    divisor = 2 ** (len(net.ch_mult) - 1)
    widths = [net.nf * multiple for multiple in net.ch_mult]
    groups, head = net.norm_num_groups, net.attention_head_dim
    checks.require(
        [
            *checks.choices(net, CHOICES),
            *checks.unet(net),
            ("freq_shift", net.freq_shift, "less than nf / 2", net.freq_shift < net.nf // 2),
            ("norm_eps", net.norm_eps, "positive", net.norm_eps > 0),
            (
                "norm_num_groups",
                groups,
                f"a divisor of the widths {widths}",
                groups > 0 and not any(width % groups for width in widths),
            ),
            (
                "attention_head_dim",
                head,
                f"0, or a divisor of the widths {widths}",
                head == 0 or (head > 0 and not any(width % head for width in widths)),
            ),
            checks.embeds_conditions(net, net.noise_conditional),
            *checks.arguments(shape, noise_shape, divisor),
        ]
    )

"""The U-Net of Dhariwal and Nichol 2021 (arXiv:2105.05233) as in Karras et al. 2022, appendix F.1."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond, Conditions
from score_sde.nets import checks, embedding, layers
from score_sde.nets.initial import inward, standard
from score_sde.nets.remat import POLICIES, rematerialised

_NORM = functools.partial(layers.GroupNorm, 1e-5)
_HEAD = 64  # channels of every attention head


class ADM(nn.Module):
    """Scale-shift blocks, heads of 64 channels, attention after every block.

    A feature map with fewer than 64 channels has no attention.  The defaults are ImageNet 64.  Values are
    drawn as in the released code: uniform by fan-in with a bias, the last layer of every branch zero.

    Attributes:
      nf: channels that the multiples are of; even, at least 4.
      ch_mult: multiple of ``nf`` at every level; each level has half the resolution of the last.
      num_res_blocks: residual blocks per level on the way down (one more on the way up).
      attn_resolutions: attention where the first spatial size of the feature map is listed.
      dropout: probability, before the second convolution of every block.
      conditions: what the network takes, by name: vectors enter the noise embedding before its two layers
        and classes after them, images are further channels of the input.
      embedding_mult: multiple of ``nf`` that the noise embedding has, which every block sees.
      out_channels: channels of the output; 0 for as many as the input has.
      input_range: the data range, mapped affinely onto [-1, 1] as the first operation.
      dtype: of the computation, ``float32`` or ``bfloat16``; parameters are float32.
      remat: what the blocks compute again in the backward pass to save memory: ``none``, ``products``
        (all but convolutions and matrix products) or ``full``.
    """

    nf: int = 192
    ch_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)
    dropout: float = 0.1
    conditions: Conditions = ()
    embedding_mult: int = 4
    out_channels: int = 0
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
          c_noise: ``(B,)`` float32, embedded as it is.
          cond: all of ``conditions``, ``(B, *shape)`` each, null values where there is none.
          train: whether dropout acts; needs the random stream ``"dropout"``.

        Returns:
          ``(B, *S, C)`` float32, or of ``out_channels``.

        Raises:
          ValueError: a field, a shape or a condition that the network cannot work with.
        """
        check(self, x.shape, c_noise.shape)
        low, high = self.input_range
        scale = 2 / (high - low)
        h = (x.astype(jnp.float32) * scale - (low * scale + 1)).astype(self.dtype)
        time = self._noise_level(c_noise.astype(jnp.float32), cond)

        h = embedding.with_images(h, self.conditions, cond)
        skips = [self._conv(self.nf * self.ch_mult[0], "stem")(h)]
        for level, multiple in enumerate(self.ch_mult):
            for i in range(self.num_res_blocks):
                h = self._block(self.nf * multiple, f"down_{level}_block_{i}")(skips[-1], time, train)
                skips.append(self._attend(h, f"down_{level}_attention_{i}"))
            if level < len(self.ch_mult) - 1:
                h = skips[-1]
                skips.append(self._block(h.shape[-1], f"down_{level}_resample", "down")(h, time, train))

        h = skips[-1]
        h = self._block(h.shape[-1], "mid_block_0")(h, time, train)
        h = self._attention(h, "mid_attention")
        h = self._block(h.shape[-1], "mid_block_1")(h, time, train)

        for level in reversed(range(len(self.ch_mult))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(self.nf * self.ch_mult[level], f"up_{level}_block_{i}")(h, time, train)
                h = self._attend(h, f"up_{level}_attention_{i}")
            if level:
                h = self._block(h.shape[-1], f"up_{level}_resample", "up")(h, time, train)

        h = jax.nn.swish(_NORM(name="out_norm")(h))
        return self._conv(self.out_channels or x.shape[-1], "out_conv", 0.0)(h).astype(jnp.float32)

    def _noise_level(self, c_noise: Array, cond: Cond) -> Array:
        """``(B, embedding_mult * nf)``: vectors enter before the two layers, classes after them."""
        dense = functools.partial(layers.Dense, dtype=self.dtype, law=inward)
        h = layers.positional_embedding(c_noise, self.nf, shift=0.0, cosines_first=True)
        before = {"vector": lambda _, features, name: dense(features, 0.0, bias=False, name=name)}
        h = embedding.add(h, self.conditions, cond, before)
        width = self.embedding_mult * self.nf
        h = jax.nn.swish(dense(width, name="time_dense_0")(h))
        h = dense(width, name="time_dense_1")(h)
        after = {"class": functools.partial(embedding.one_hot, dtype=self.dtype, law=standard)}
        return embedding.add(h, self.conditions, cond, after)

    def _conv(self, features: int, name: str, scale: float = 1.0) -> layers.Conv:
        return layers.Conv(features, scale, dtype=self.dtype, law=inward, name=name)

    def _attend(self, h: Array, name: str) -> Array:
        """Attention, where the resolution is one of those listed."""
        return self._attention(h, name) if h.shape[1] in self.attn_resolutions else h

    def _attention(self, h: Array, name: str) -> Array:
        """Attention, where there are channels for one head."""
        if h.shape[-1] < _HEAD:
            return h
        return rematerialised(layers.Attention, self.remat)(
            skip_rescale=False,
            dtype=self.dtype,
            head_channels=_HEAD,
            norm=_NORM,
            law=inward,
            scale=1.0,
            name=name,
        )(h)

    def _block(self, features: int, name: str, resample: str = "none") -> layers.ResBlock:
        return rematerialised(layers.ResBlock, self.remat, static=(3,))(
            features,
            resample,
            dropout=self.dropout,
            skip_rescale=False,
            dtype=self.dtype,
            norm=_NORM,
            scale_shift=True,
            project_resampled=False,
            law=inward,
            name=name,
        )


def check(net: ADM, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> None:
    """Refuse fields or shapes of ``(x, c_noise)`` that the network cannot work with.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    checks.require(
        [
            *checks.choices(net, {"dtype": ("float32", "bfloat16"), "remat": tuple(POLICIES)}),
            *checks.unet(net),
            ("embedding_mult", net.embedding_mult, "positive", net.embedding_mult > 0),
            ("out_channels", net.out_channels, "zero or positive", net.out_channels >= 0),
            *checks.arguments(shape, noise_shape, 2 ** (len(net.ch_mult) - 1)),
        ]
    )

"""The U-Net of Dhariwal and Nichol 2021 (arXiv:2105.05233) as in Karras et al. 2022, appendix F.1."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.nets import layers
from score_sde.nets.ncsnpp import NCSNpp
from score_sde.nets.remat import rematerialised
from score_sde.nets.songunet import SongUNet

_NORM = functools.partial(layers.GroupNorm, 1e-5)


class ADM(SongUNet):
    """Scale-shift blocks, heads of 64 channels, attention after every block.

    A feature map with fewer than 64 channels has no attention.  The defaults are ImageNet 64.

    Attributes:
      augment_dim: length of ``cond["augment"]``, numbers that say how an image was augmented; 0 for none.
      out_channels: channels of the output; 0 for as many as the input has.
    """

    __doc__ = f"{__doc__}\n{(NCSNpp.__doc__ or '').partition('Attributes:')[2].lstrip(chr(10))}"

    nf: int = 192
    ch_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)
    dropout: float = 0.1
    skip_rescale: bool = False

    def _noise_level(self, c_noise: Array, cond: Mapping[str, Array] | None) -> Array:
        cond = cond or {}
        half = self.nf // 2
        frequencies = (1e-4 ** (np.arange(half) / half)).astype(np.float32)
        angle = c_noise[:, None] * frequencies[None, :]
        h = self._augmented(jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1), cond)
        h = layers.Dense(4 * self.nf, dtype=self.dtype, name="time_dense_0")(h)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        h = layers.Dense(4 * self.nf, dtype=self.dtype, name="time_dense_1")(h)
        if self.num_classes:
            labels = cond.get("label", jnp.full(c_noise.shape, -1))
            code = jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype)
            h = h + layers.Dense(4 * self.nf, bias=False, dtype=self.dtype, name="label")(code)
        return h

    def _up(self, h: Array, skips: list[Array], time: Array | None, train: bool, channels: int) -> Array:
        for level in reversed(range(len(self.ch_mult))):
            for i in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(self.nf * self.ch_mult[level], f"up_{level}_block_{i}")(h, time, train)
                if h.shape[1] in self.attn_resolutions:
                    h = self._attention(f"up_{level}_attention_{i}")(h)
            if level:
                h = self._resample(h, "up", f"up_{level}_resample", time, train)
        h = layers.ACTIVATIONS[self.nonlinearity](_NORM(name="out_norm")(h))
        return self._conv(self.out_channels or channels, "out_conv", self.init_scale)(h)

    def _attention(self, name: str) -> "_Attention":
        attention = rematerialised(_Attention, self.remat)
        return attention(self.init_scale, self.skip_rescale, self.dtype, 64, _NORM, name=name)

    def _block(self, features: int, name: str, resample: str = "none") -> layers.ResBlock:
        return rematerialised(layers.ResBlock, self.remat, static=(3,))(
            features,
            resample,
            nonlinearity=self.nonlinearity,
            dropout=self.dropout,
            init_scale=self.init_scale,
            skip_rescale=self.skip_rescale,
            dtype=self.dtype,
            scale_shift=True,
            project_resampled=False,
            norm=_NORM,
            name=name,
        )


class _Attention(layers.Attention):
    """Attention, where there are channels for one head."""

    def __call__(self, x: Array) -> Array:
        return super().__call__(x) if x.shape[-1] >= self.head_channels else x

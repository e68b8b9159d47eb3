"""NCSN++ as the library diffusers has it (``UNet2DModel`` of ``Skip`` blocks, google/ncsnpp-*)."""

import functools

from jax import Array

from score_sde.nets import layers
from score_sde.nets.remat import rematerialised
from score_sde.nets.unets.ncsnpp import NCSNpp


class NCSNppDiffusers(NCSNpp):
    """``NCSNpp`` with other numbers of groups, which differ below 128 channels only.

    There are 32 groups in the attention beside the levels and where a block on the way up begins
    at a level with attention, and ``norm_num_groups`` in the middle and at the end.  The other
    defaults, too, are those of the networks for 256 pixels.

    Attributes:
      norm_num_groups: as said; 0 for ``min(C // 4, 32)``.
      norm_eps: added to the variances of every group normalisation.
      attention_head_dim: channels of each attention head; 0 for a single head.
    """

    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2)
    num_res_blocks: int = 2
    dropout: float = 0.0
    fir: bool = True
    progressive: str = "output_skip"
    progressive_input: str = "input_skip"
    embedding_type: str = "fourier"
    norm_num_groups: int = 0
    norm_eps: float = 1e-6
    attention_head_dim: int = 0

    def _attention(self, name: str) -> layers.Attention:
        return rematerialised(layers.Attention, self.remat)(
            self.init_scale,
            self.skip_rescale,
            self.dtype,
            head_channels=self.attention_head_dim,
            norm=self._norm(name),
            name=name,
        )

    def _norm(self, where: str) -> layers.MakeNorm:
        norm = functools.partial(layers.GroupNorm, self.norm_eps)
        if where.startswith("mid") or where in ("out", "pyramid_up_0"):
            return functools.partial(norm, groups=self.norm_num_groups or None)
        if "attention" in where:
            return functools.partial(norm, groups=32)
        if where.startswith("up") and "block" in where:
            return lambda name: lambda x: norm(groups=self._up_groups(name, x), name=name)(x)
        return norm

    def _up_groups(self, name: str, x: Array) -> int | None:
        return 32 if name == "norm_0" and x.shape[1] in self.attn_resolutions else None

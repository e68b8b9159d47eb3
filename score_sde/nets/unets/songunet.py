"""DDPM++ and NCSN++ as reparameterised by Karras et al. 2022 (arXiv:2206.00364), appendix F.1."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.nets import checks, layers
from score_sde.nets.resample import BOX
from score_sde.nets.unets.ncsnpp import NCSNpp


class SongUNet(NCSNpp):
    """``NCSNpp`` whose labels enter the noise embedding before its two layers.

    The defaults are DDPM++ for CIFAR-10; NCSN++ adds ``fir=True``, ``embedding_type="fourier"`` and
    ``progressive_input="residual"``.  ``noise_conditional`` must stay on.

    Attributes:
      augment_dim: length of ``cond["augment"]``, numbers that say how an image was augmented; 0 for none.
      noise_mult: multiple of ``nf`` that the features of the noise level have; 0 for one, or for Fourier
        features two.
      embedding_mult: multiple of ``nf`` that the noise embedding has, which every block sees.
      out_channels: channels of the output; 0 for as many as the input has.
    """

    __doc__ = f"{__doc__}\n{(NCSNpp.__doc__ or '').partition('Attributes:')[2].lstrip(chr(10))}"

    ch_mult: tuple[int, ...] = (2, 2, 2)
    dropout: float = 0.13
    augment_dim: int = 0
    noise_mult: int = 0
    embedding_mult: int = 4
    out_channels: int = 0

    def _embedded(self, c_noise: Array) -> Array:
        """Features of the noise level, ``(B, noise_mult * nf)``."""
        if self.embedding_type == "fourier":
            waves = (self.noise_mult or 2) * self.nf // 2
            embedding = layers.FourierEmbedding(waves, self.fourier_scale, True, name="time_embedding")
            return embedding(c_noise)
        return layers.positional_embedding(c_noise, (self.noise_mult or 1) * self.nf)

    def _labelled(self, h: Array, cond: Mapping[str, Array]) -> Array:
        """``h`` plus a linear map of the label; no label is the zero vector, so only the bias acts."""
        if not self.num_classes:
            return h
        labels = cond.get("label", jnp.full(h.shape[:1], -1))
        code = jax.nn.one_hot(labels, self.num_classes) * math.sqrt(self.num_classes)
        return h + layers.Dense(h.shape[-1], name="label")(code)

    def _augmented(self, h: Array, cond: Mapping[str, Array]) -> Array:
        """``h`` plus a linear map of the augmentation; zero means none."""
        if not self.augment_dim:
            return h
        code = cond.get("augment", jnp.zeros((h.shape[0], self.augment_dim), jnp.float32))
        return h + layers.Dense(h.shape[-1], bias=False, name="augment")(code)

    def _noise_level(self, c_noise: Array, cond: Mapping[str, Array] | None) -> Array:
        checks.require(
            [
                (
                    "noise_conditional",
                    self.noise_conditional,
                    "True: EDM's networks see the level",
                    self.noise_conditional,
                ),
                ("noise_mult", self.noise_mult, "zero or positive", self.noise_mult >= 0),
                ("embedding_mult", self.embedding_mult, "positive", self.embedding_mult > 0),
            ]
        )
        h = self._augmented(self._labelled(self._embedded(c_noise), cond or {}), cond or {})
        width = self.embedding_mult * self.nf
        h = layers.Dense(width, dtype=self.dtype, name="time_dense_0")(h)
        h = layers.ACTIVATIONS[self.nonlinearity](h)
        return layers.Dense(width, dtype=self.dtype, name="time_dense_1")(h)

    @property
    def _kernel(self) -> tuple[float, ...]:
        """Without FIR a box, also where ``NCSNpp`` convolves with a stride instead."""
        return self.fir_kernel if self.fir else BOX

    def _up(self, h: Array, skips: list[Array], time: Array | None, train: bool, channels: int) -> Array:
        return super()._up(h, skips, time, train, self.out_channels or channels)

"""DDPM++ and NCSN++ as reparameterised by Karras et al. 2022 (arXiv:2206.00364), appendix F.1."""

import functools
import math

import jax
from jax import Array

from score_sde.conditions import Cond, Condition
from score_sde.nets import checks, embedding, layers
from score_sde.nets.resample import BOX
from score_sde.nets.unets.ncsnpp import NCSNpp


def _scaled_class(condition: Condition, features: int, name: str) -> embedding.Embed:
    """A linear map of a class; no class is the zero vector, so only the bias acts."""
    dense = layers.Dense(features, name=name)
    return lambda number: dense(jax.nn.one_hot(number, condition.classes) * math.sqrt(condition.classes))


_BEFORE: dict[str, embedding.Embedding] = {
    "class": _scaled_class,
    "vector": functools.partial(embedding.linear, dtype="float32"),
}


class SongUNet(NCSNpp):
    """``NCSNpp`` whose conditions enter the noise embedding before its two layers.

    The defaults are DDPM++ for CIFAR-10; NCSN++ adds ``fir=True``, ``embedding_type="fourier"`` and
    ``progressive_input="residual"``.  ``noise_conditional`` must stay on.

    Attributes:
      noise_mult: multiple of ``nf`` that the features of the noise level have; 0 for one, or for Fourier
        features two.
      embedding_mult: multiple of ``nf`` that the noise embedding has, which every block sees.
      out_channels: channels of the output; 0 for as many as the input has.
    """

    __doc__ = f"{__doc__}\n{(NCSNpp.__doc__ or '').partition('Attributes:')[2].lstrip(chr(10))}"

    ch_mult: tuple[int, ...] = (2, 2, 2)
    dropout: float = 0.13
    noise_mult: int = 0
    embedding_mult: int = 4
    out_channels: int = 0

    def _embedded(self, c_noise: Array) -> Array:
        """Features of the noise level, ``(B, noise_mult * nf)``."""
        if self.embedding_type == "fourier":
            waves = (self.noise_mult or 2) * self.nf // 2
            return layers.FourierEmbedding(waves, self.fourier_scale, True, name="time_embedding")(c_noise)
        return layers.positional_embedding(c_noise, (self.noise_mult or 1) * self.nf)

    def _noise_level(self, c_noise: Array, cond: Cond) -> Array:
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
        h = embedding.add(self._embedded(c_noise), self.conditions, cond, _BEFORE)
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

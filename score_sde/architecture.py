"""A model without its parameters: codec, process, network, and how the network is read."""

from dataclasses import dataclass, replace

import numpy as np
from jax import Array

from score_sde.arrays import Params, Parts
from score_sde.codecs import NO_PARAMS, Codec, picture_values
from score_sde.conditions import Cond, Conditions
from score_sde.data import Spec
from score_sde.denoiser import Denoiser, Precondition
from score_sde.images.pictures import is_picture
from score_sde.nets import Net
from score_sde.sde import SDE


@dataclass(frozen=True)
class Architecture:
    """What parameters become a denoiser with: hashable.

    Parameters come in parts by name: ``net``, and ``schedule`` where the process is learned, ``codec`` where
    the codec has parameters.

    Attributes:
      spec: one raw example of the data.
      codec: raw examples to the state of the process and back.
      conditions: those of the data that the model takes.
      precondition: the row of coefficients that makes the network a denoiser.
    """

    spec: Spec
    codec: Codec
    conditions: Conditions
    sde: SDE
    net: Net
    precondition: Precondition

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of what the process perturbs, of one example."""
        return self.codec.state_shape(self.spec)

    def init(self, key: Array) -> dict[str, Params]:
        """Fresh parts that diffusion trains: ``net``, and what the process learns."""
        return {"net": self.net.init(key, self.state_shape), **self.sde.parts()}

    def bind(self, parts: Parts, cond: Cond) -> Denoiser:
        """The denoiser of some parts under some conditions, each an array of ``B`` rows.

        Conditions that the data have and the network does not take are left out.  Data may have others than
        ``spec`` says: that of an imported model says none.
        """
        known = dict(self.net.conditions)
        taken = {name: values for name, values in cond.items() if name in known}
        return Denoiser(parts["net"], self.sde, self.net, self.precondition, taken)

    def decode(self, parts: Parts, x0: Array | np.ndarray) -> np.ndarray:
        """States as users keep them: uint8 pictures ``0 .. 255``, or the data's own units.

        Args:
          x0: ``(B, *state_shape)``.
        """
        raw = self.codec.decode(codec_params(parts), x0)
        return np.asarray(picture_values(raw, self.spec.grey_levels) if self.is_picture else raw)

    @property
    def is_picture(self) -> bool:
        """Whether examples are pictures."""
        return is_picture(self.spec.shape, self.spec.grey_levels)

    def freeze(self, parts: Parts) -> "Architecture":
        """With the process as training has left it: given from now on, as plain numbers of the host."""
        return replace(self, sde=self.sde.freeze(parts))


def codec_params(parts: Parts) -> Params:
    """Parameters of the codec; none, where it has none."""
    return parts.get("codec", NO_PARAMS)

"""Examples of a model to latents and back, with progress, and resumed where it was killed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import Architecture, codec_params
from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.evaluate.cache import NO_CACHE, Cache
from score_sde.evaluate.parts import PerExample, Readable, compile_parts, map_examples
from score_sde.experiment.assemble import inversion_of
from score_sde.experiment.schema import Config
from score_sde.inversion import latents
from score_sde.inversion.latents import Transport
from score_sde.runtime.processes import is_chief
from score_sde.runtime.progress import Progress

if TYPE_CHECKING:
    from score_sde.runs.model import Model


@dataclass(frozen=True)
class Inverter:
    """The way between examples and latents: functions of parts, examples and conditions.

    Attributes:
      transport: along the ODE.
      t_min: the time at which the data are placed.
      batch_size: examples computed together.
    """

    architecture: Architecture
    transport: Transport
    t_min: float
    batch_size: int

    @classmethod
    def of(cls, config: Config, architecture: Architecture) -> "Inverter":
        """What ``config.inversion`` describes.

        Raises:
          ConfigError: a field that is impossible.
        """
        transport, t_min = inversion_of(config, architecture)
        return cls(architecture, transport, t_min, config.inversion.batch_size)

    def encode(self, parts: Parts, raw: Array, cond: Cond) -> dict[str, Array]:
        """``latent`` of raw examples."""
        denoise, x = self.architecture.bind(parts, cond), self._state(parts, raw)
        sde = self.architecture.sde
        return {"latent": latents.encode(denoise, sde, x, self.transport, t_min=self.t_min).x}

    def encode_without(self, parts: Parts, raw: Array, cond: Cond) -> dict[str, Array]:
        """``latent`` of raw examples, with null conditions whatever the data say."""
        return self.encode(parts, raw, {})

    def decode(self, parts: Parts, latent: Array, cond: Cond) -> dict[str, Array]:
        """``x``, in the model's range, of latents."""
        denoise, sde = self.architecture.bind(parts, cond), self.architecture.sde
        return {"x": latents.decode(denoise, sde, latent, self.transport, t_min=self.t_min).x}

    def round_trip(self, parts: Parts, raw: Array, cond: Cond) -> dict[str, Array]:
        """Raw examples encoded and decoded: the fields of ``latents.RoundTrip``."""
        denoise, x = self.architecture.bind(parts, cond), self._state(parts, raw)
        sde = self.architecture.sde
        return latents.round_trip(denoise, sde, x, self.transport, t_min=self.t_min)._asdict()

    def _state(self, parts: Parts, raw: Array) -> Array:
        return jnp.asarray(self.architecture.codec.middle(codec_params(parts), raw))


def map_with(
    model: "Model",
    function: PerExample,
    examples: Readable,
    what: str = "",
    *,
    batch_size: int | None = None,
    keep: str | None = None,
) -> dict[str, np.ndarray]:
    """``function(parts, x, cond)`` of all examples, on all devices.

    Args:
      what: shown with the progress; empty: none is shown.
      keep: a fingerprint of whatever the function depends on; its results are kept in the workdir under it.
    """
    size = model.config.inversion.batch_size if batch_size is None else batch_size
    cache = NO_CACHE if keep is None else Cache(model.results / keep, write=is_chief())
    title = f"{what} (checkpoint {model.step})"
    with Progress(len(examples), title, "example", quiet=not (what and is_chief())) as bar:
        return map_examples(
            compile_parts(function, model.mesh),
            model.parts,
            examples,
            model.mesh,
            batch_size=size,
            cache=cache,
            note=bar.update,
        )

"""A checkpoint that turns examples into codes and back: what the modes about codes share."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.codecs import NO_PARAMS
from score_sde.conditions import Cond
from score_sde.evaluate.parts import PerExample, Readable, compile_parts, map_examples
from score_sde.experiment.assemble import Experiment, inversion_of
from score_sde.experiment.sections import as_tree
from score_sde.flags import Options
from score_sde.inversion import latents as codes
from score_sde.modes.workdir import from_workdir, is_chief, restore_average
from score_sde.names import ConfigError
from score_sde.nets import digest
from score_sde.runtime.progress import Progress


class Coder:
    """The chosen checkpoint of a workdir, and the way between examples and codes that the config describes.

    Attributes:
      experiment: as assembled.
      step: of the checkpoint.
      transport: along the ODE.
      t_min: where the data are taken to lie.

    Raises:
      ConfigError: a field of ``config.inversion`` that is impossible.
    """

    def __init__(self, options: Options):
        self.experiment: Experiment = from_workdir(options)
        self.transport, self.t_min = inversion_of(self.experiment)
        self._label, self._own = _label(options, self.experiment), options.samples is None
        self._workdir = options.workdir
        self.step, self.mesh, self.params = restore_average(options, self.experiment)
        self._weights = digest(self.params)

    def told(self, cond: Cond, count: int) -> dict[str, Array]:
        """What the model is told of ``count`` examples: what ``--condition`` says, or what the data have.

        Of the data only, as a class of other files may have another number.
        """
        told: dict[str, Array] = {}
        for name, condition in self.experiment.conditions:
            null = jnp.asarray(condition.nulls(count))
            value = jnp.asarray(self._fixed.get(name, condition.null))
            own = self._own and name not in self._fixed and name in cond
            told[name] = cond[name] if own else jnp.broadcast_to(value[None], null.shape)
        return told

    def round_trip(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """Raw examples encoded and decoded: ``code``, ``back``, ``rms``, ``largest``, ``evaluations``."""
        denoise = self.experiment.bind(params, self.told(cond, len(raw)))
        x = self.experiment.codec.middle(NO_PARAMS, raw)
        trip = codes.round_trip(denoise, self.experiment.sde, x, self.transport, t_min=self.t_min)
        return trip._asdict()

    def encode(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """``code`` of raw examples."""
        return self._encoded(params, raw, self.told(cond, len(raw)))

    def encode_untold(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """``code`` of raw examples, of whose conditions the model is told nothing."""
        return self._encoded(params, raw, {})

    def _encoded(self, params: Any, raw: Array, told: Cond) -> dict[str, Array]:
        denoise, x = self.experiment.bind(params, told), self.experiment.codec.middle(NO_PARAMS, raw)
        return {"code": codes.encode(denoise, self.experiment.sde, x, self.transport, t_min=self.t_min).x}

    def decode(self, params: Any, code: Array, cond: Cond) -> dict[str, Array]:
        """``x``, in the model's range, of codes and the conditions that the model is told."""
        denoise = self.experiment.bind(params, cond)
        return {"x": codes.decode(denoise, self.experiment.sde, code, self.transport, t_min=self.t_min).x}

    def run(
        self,
        function: PerExample,
        examples: Readable,
        what: str,
        *,
        batch_size: int | None = None,
        keep: Any = None,
    ) -> dict[str, np.ndarray]:
        """``function(params, x, cond)`` of all examples, with progress.

        Args:
          keep: whatever the function depends on beside the config and the parameters; its results are kept
            in the workdir, and a killed run goes on.  None: nothing is kept.
        """
        size = self.experiment.config.inversion.batch_size if batch_size is None else batch_size
        directory = None if keep is None else self._directory(keep, size)
        with Progress(
            len(examples), f"{what} (checkpoint {self.step})", "example", quiet=not is_chief()
        ) as bar:
            return map_examples(
                compile_parts(function, self.mesh),
                self.params,
                examples,
                self.mesh,
                batch_size=size,
                directory=directory,
                note=bar.update,
            )

    def _directory(self, keep: Any, size: int) -> Path:
        config = as_tree(self.experiment.config)
        what = {
            **{
                section: config[section]
                for section in ("sde", "model", "denoiser", "data", "codec", "inversion")
            },
            "parameters": self._weights,
            "told": ({name: value.tolist() for name, value in self._fixed.items()}, self._own),
            "batch": size,
            "jax": jax.__version__,
            "keep": keep,
        }
        for field in ("split", "num_examples", "frames", "temperature", "batch_size"):
            del what["inversion"][field]  # they choose examples, not what becomes of them
        name = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return self._workdir / "codes" / name


def _label(options: Options, experiment: Experiment) -> int | None:
    if options.label is None:
        return None
    if not experiment.labelled:
        raise ConfigError(f"--label={options.label}: the model was trained without labels")
    if options.label >= experiment.spec.num_classes:
        raise ConfigError(
            f"--label={options.label}: the model knows the classes 0 to {experiment.spec.num_classes - 1}"
        )
    return options.label

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
from score_sde.experiment.assemble import Experiment
from score_sde.flags import Options
from score_sde.inversion import latents as codes
from score_sde.modes.chosen import fixed_conditions
from score_sde.modes.workdir import from_workdir, is_chief, restore_average
from score_sde.names import ConfigError, build, find
from score_sde.names import options as option_names
from score_sde.nets import digest
from score_sde.runtime.progress import Progress
from score_sde.solvers import GRIDS, SOLVERS


class Coder:
    """The chosen checkpoint of a workdir, and the way between examples and codes that the config describes.

    Attributes:
      experiment: as assembled.
      step: of the checkpoint.
      transport: along the ODE.
      t_min: where the data are taken to lie.

    Raises:
      ConfigError: a field of ``config.codes`` that is impossible.
    """

    def __init__(self, options: Options):
        self.experiment: Experiment = from_workdir(options)
        config, sde = self.experiment.config.codes, self.experiment.sde
        self.t_min: float = sde.t_min if config.t_min is None else config.t_min
        if not 0 < self.t_min < sde.t_max:
            raise ConfigError(f"config.codes.t_min = {self.t_min}: must be in (0, {sde.t_max})")
        self.transport = make_transport(self.experiment)
        self._fixed, self._own = fixed_conditions(options, self.experiment), options.samples is None
        self._workdir = options.workdir
        self.step, self.mesh, self.params = restore_average(options, self.experiment)
        self._weights = digest(self.params)

    def cond(self, given: Cond, count: int) -> dict[str, Array]:
        """The conditions of ``count`` examples: what ``--condition`` says, or what the data have.

        Of the data only, as a class of other files may have another number.
        """
        cond: dict[str, Array] = {}
        for name, condition in self.experiment.conditions:
            null = jnp.asarray(condition.nulls(count))
            value = jnp.asarray(self._fixed.get(name, condition.null))
            own = self._own and name not in self._fixed and name in given
            cond[name] = given[name] if own else jnp.broadcast_to(value[None], null.shape)
        return cond

    def round_trip(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """Raw examples encoded and decoded: ``code``, ``back``, ``rms``, ``largest``, ``evaluations``."""
        denoise = self.experiment.bind(params, self.cond(cond, len(raw)))
        x = self.experiment.codec.middle(NO_PARAMS, raw)
        trip = codes.round_trip(denoise, self.experiment.sde, x, self.transport, t_min=self.t_min)
        return trip._asdict()

    def encode(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """``code`` of raw examples."""
        return self._encoded(params, raw, self.cond(cond, len(raw)))

    def encode_unconditionally(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        """``code`` of raw examples, whose conditions do not matter."""
        return self._encoded(params, raw, {})

    def _encoded(self, params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        denoise, x = self.experiment.bind(params, cond), self.experiment.codec.middle(NO_PARAMS, raw)
        return {"code": codes.encode(denoise, self.experiment.sde, x, self.transport, t_min=self.t_min).x}

    def decode(self, params: Any, code: Array, cond: Cond) -> dict[str, Array]:
        """``x``, in the model's range, of codes and their conditions."""
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
        size = self.experiment.config.codes.batch_size if batch_size is None else batch_size
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
        config = self.experiment.config.to_dict()
        what = {
            **{section: config[section] for section in ("sde", "model", "denoiser", "data", "codes")},
            "parameters": self._weights,
            "conditions": ({name: value.tolist() for name, value in self._fixed.items()}, self._own),
            "batch": size,
            "jax": jax.__version__,
            "keep": keep,
        }
        for field in ("split", "num_examples", "frames", "temperature", "batch_size"):
            del what["codes"][field]  # they choose examples, not what becomes of them
        name = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return self._workdir / "codes" / name


def make_transport(experiment: Experiment) -> codes.Transport:
    """The way that ``config.codes`` describes: ``solver="ode"``, or a deterministic solver on a grid.

    Raises:
      ConfigError: an unknown name, or a solver that cannot be walked both ways.
    """
    config, sampling, sde = experiment.config.codes, experiment.config.sampling, experiment.sde
    if config.solver == "ode":
        return build(codes.Adaptive, config, "codes")
    given = {key: value for key, value in sampling.items() if value is not None}
    solver = build(find(SOLVERS, config.solver, "codes.solver"), given, "sampling", denoise=False)
    make_grid = find(GRIDS, config.grid, "codes.grid")
    takes = {"sde": sde} if "sde" in option_names(make_grid) else {}
    grid = build(make_grid, sampling, "sampling", **takes)
    try:
        transport = codes.stepped(solver, grid, config.steps)
        t_min = sde.t_min if config.t_min is None else config.t_min
        transport.plan(sde, t_min, sde.t_max)
    except ValueError as error:
        raise ConfigError(f"config.codes.solver = {config.solver!r}: {error}") from error
    return transport

"""The sampling, likelihood and evaluation of a workdir: what the modes share."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from score_sde.codecs import NO_PARAMS, picture_values
from score_sde.data import Source, Spec
from score_sde.experiment.assemble import Experiment, assemble
from score_sde.experiment.schema import changed
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.names import ConfigError
from score_sde.runtime.mesh import make_mesh
from score_sde.train import Checkpoints, combine, read_best

BEST = "best.json"  # of a workdir: which checkpoint training has kept as the best


class First:
    """The first ``count`` examples of a source."""

    def __init__(self, source: Source, count: int):
        self.spec, self._source, self._count = source.spec, source, count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self._source.read(indices)


def from_workdir(options: Options) -> Experiment:
    """The experiment that a workdir remembers; the data need not be there.

    Of a learned process the schedule is that of the chosen checkpoint.
    """
    if "spec" not in options.saved:
        raise FileNotFoundError(
            f"--workdir={options.workdir}: holds no trained model; run --mode=train first"
        )
    experiment = assemble(options.config, Spec.from_json(options.saved["spec"]))
    return experiment.settle(_restored(options, experiment)[2]) if experiment.learns else experiment


def dequantized(options: Options) -> Options:
    """The options with integer data dequantised, as a density needs."""
    return dataclasses.replace(options, config=changed(options.config, {"codec.dequantize": True}))


def restore_average(options: Options, experiment: Experiment) -> tuple[int, Mesh, Any]:
    """Step, mesh and averaged parameters of the network, of the chosen checkpoint."""
    learned = options.config.sde.options.get("trainable", False)  # and then ``experiment`` is settled
    trained = assemble(options.config, experiment.spec) if learned else experiment
    step, mesh, params = _restored(options, trained)
    return step, mesh, trained.network(params)


def _restored(options: Options, experiment: Experiment) -> tuple[int, Mesh, Any]:
    """The same of all that is trained."""
    directory = options.workdir / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"--workdir={options.workdir}: holds no checkpoints yet")
    mesh = make_mesh()
    if options.best:
        options = dataclasses.replace(options, step=best_step(options.workdir), best=False)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    with Checkpoints(directory) as checkpoints:
        if options.sigma_rel is not None:
            step, params = _recombined(options, options.sigma_rel, checkpoints, shapes, mesh)
        else:
            step, params = checkpoints.restore_ema(shapes, mesh, options.step)
    return step, mesh, params


def best_step(workdir: Path) -> int:
    """The step of the checkpoint that training has kept as the best.

    Raises:
      FileNotFoundError: it has kept none.
    """
    record = read_best(workdir / BEST)
    if record is None:
        raise FileNotFoundError(
            f"--best: no best checkpoint in {workdir}; training keeps one where config.training.best_metric "
            "is set, from its first measurement on"
        )
    return record.step


def _recombined(
    options: Options, sigma_rel: float, checkpoints: Checkpoints, shapes: Any, mesh: Mesh
) -> tuple[int, Any]:
    """An average of another length, from those of the kept checkpoints."""
    ema = options.config.ema
    if ema.name != "power":
        raise ConfigError(
            f"--sigma_rel={sigma_rel}: needs a run with config.ema.name = 'power', this one has {ema.name!r}"
        )
    last = checkpoints.steps[-1] if options.step is None else options.step
    if last not in checkpoints.steps:
        raise FileNotFoundError(f"no checkpoint of step {last}; there are {list(checkpoints.steps)}")
    steps = [step for step in checkpoints.steps if 0 < step <= last]
    plan = combine(steps, ema.options["sigma_rel"], last, sigma_rel)
    say(
        f"average of sigma_rel = {sigma_rel:g} from {len(steps)} checkpoints; its weights are off by "
        f"{plan.error:.2g} of their size"
    )
    total: Any = None
    for step, weight in zip(steps, plan.weights, strict=True):
        part = checkpoints.restore_ema(shapes, mesh, step)[1]
        part = jax.tree.map(lambda leaf, w=float(weight): w * leaf, part)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return last, total


def outside(experiment: Experiment, x: np.ndarray) -> np.ndarray:
    """Samples as users keep them: uint8 pictures for images, the data's own units otherwise."""
    raw, spec = experiment.codec.decode(NO_PARAMS, x), experiment.spec
    return np.asarray(picture_values(raw, spec.grey_levels) if drawable(spec) and spec.grey_levels else raw)


def drawable(spec: Spec) -> bool:
    """Whether examples are pictures."""
    return pictures.is_picture(spec.shape, spec.grey_levels)


def pictures_path(options: Options, spec: Spec, name: str) -> Path:
    """Where examples go: ``--output``, or ``samples/<name>`` of the workdir.

    Raises:
      ConfigError, ValueError: it cannot hold them; said before any work.
    """
    default = options.workdir / "samples" / f"{name}{'.png' if drawable(spec) else '.npz'}"
    path = default if options.output is None else Path(options.output)
    pictures.check_output(path)
    if path.suffix != ".npz" and not drawable(spec):
        raise ConfigError(f"--output={path}: examples of shape {spec.shape} are no pictures; use a .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_chief() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def say(message: str) -> None:
    """Print on the first process."""
    if is_chief():
        print(message, flush=True)


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)

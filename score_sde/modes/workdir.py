"""The sampling, likelihood and evaluation of a workdir: what the modes share."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from score_sde import pictures
from score_sde.data import Source, Spec
from score_sde.experiment import Experiment, assemble
from score_sde.flags import Options
from score_sde.mesh import make_mesh
from score_sde.train import Checkpoints


class First:
    """The first ``count`` examples of a source."""

    def __init__(self, source: Source, count: int):
        self.spec, self._source, self._count = source.spec, source, count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self._source.read(indices)


def from_workdir(options: Options) -> Experiment:
    """The experiment that a workdir remembers; the data need not be there."""
    if "spec" not in options.saved:
        raise FileNotFoundError(
            f"--workdir={options.workdir}: holds no trained model; run --mode=train first"
        )
    spec = dict(options.saved["spec"])
    return assemble(options.config, Spec(**{**spec, "shape": tuple(spec["shape"])}))


def restore_average(options: Options, experiment: Experiment) -> tuple[int, Mesh, Any]:
    """Step, mesh and averaged parameters of the chosen checkpoint."""
    directory = options.workdir / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"--workdir={options.workdir}: holds no checkpoints yet")
    mesh = make_mesh()
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    with Checkpoints(directory) as checkpoints:
        step, params = checkpoints.restore_ema(shapes, mesh, options.step)
    return step, mesh, params


def outside(experiment: Experiment, x: np.ndarray) -> np.ndarray:
    """Samples as users keep them: uint8 pictures for images, the data's own units otherwise."""
    convert = experiment.scaling.to_uint8 if drawable(experiment.spec) else experiment.scaling.decode
    return np.asarray(convert(x))


def drawable(spec: Spec) -> bool:
    """Whether examples are pictures."""
    return pictures.is_picture(spec.shape, spec.levels)


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

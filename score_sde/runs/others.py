"""Runs that take part in the guidance of another."""

import functools
from pathlib import Path

import jax

from score_sde.experiment.others import Run, classifier_of
from score_sde.runs.workdir import Choice, Workdir
from score_sde.runtime.mesh import make_mesh
from score_sde.train import CHECKPOINTS, Checkpoints


def open_run(workdir: str, step: int | None = None) -> Run:
    """A trained run with its averaged parameters; the last few are kept.

    Args:
      step: of the checkpoint; None: the newest.

    Raises:
      FileNotFoundError: no run, or no such checkpoint, is there.
    """
    run = Workdir.open(workdir)
    if step is None and run.steps:
        step = run.steps[-1]
    return _opened(str(Path(workdir).resolve()), step)


@functools.lru_cache(maxsize=4)
def _opened(path: str, step: int | None) -> Run:
    run = Workdir.open(path)
    architecture = run.architecture
    model = classifier_of(run.config, architecture)
    if model is None:
        parts = run.restore(Choice(step))[2]
        return Run(run.config, architecture.freeze(parts), parts)
    with Checkpoints(run.path / CHECKPOINTS) as checkpoints:
        parts = checkpoints.restore_ema(jax.eval_shape(model.init, jax.random.key(0)), make_mesh(), step)[1]
    return Run(run.config, architecture, parts)

"""``--mode=sample``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from score_sde import pictures
from score_sde.config import ConfigError
from score_sde.experiment import Experiment
from score_sde.flags import Options
from score_sde.modes.workdir import (
    drawable,
    from_workdir,
    is_chief,
    outside,
    pictures_path,
    restore_average,
    say,
)
from score_sde.progress import Progress
from score_sde.sampling import Draw, compile_film, compile_sample, generate
from score_sde.solvers import Hooks, StepSolver

SHOWN = 8  # samples whose states are shown


def sample(options: Options) -> int:
    """Draw samples from the averaged parameters of a checkpoint."""
    seed = options.config.seed if options.seed is None else options.seed
    experiment = from_workdir(options)
    spec = experiment.spec
    output = pictures_path(options, spec, "samples")
    step, mesh, params = restore_average(options, experiment)
    labels = _labels(options, experiment)
    count, config = _count(options), experiment.config.sampling
    steps = next((len(rows) for rows in jax.tree.leaves(experiment.plan.rows)), 0)
    batches: list[np.ndarray] = []
    states: list[np.ndarray] = []
    with Progress(count, f"sample (checkpoint {step})", "sample", quiet=not is_chief()) as progress:

        def show(i: Any) -> None:
            progress.update(progress.done, f"step {int(i) + 1}" + (f"/{steps}" if steps else ""))

        draw = _compile(experiment, mesh, show)
        for batch in generate(
            draw,
            params,
            experiment.plan,
            mesh,
            seed=seed,
            num_samples=count,
            batch_size=config.batch_size,
            labels=labels,
        ):
            if config.keep_every_steps:
                states.append(batch[:, :-1])
                batch = batch[:, -1]
            batches.append(outside(experiment, batch))
            progress.update(progress.done + len(batch))
    if is_chief():
        pictures.write(output, np.concatenate(batches), seed=seed)
        if states:
            _write_states(output, experiment, np.concatenate(states))
    say(f"{count} samples in {output}")
    return 0


def _compile(experiment: Experiment, mesh: Mesh, show: Callable[[Any], None]) -> Draw:
    """The sampler: of samples, or of every so many states and then the sample."""
    every = experiment.config.sampling.keep_every_steps
    parts = (experiment.bind_sampler, experiment.path, experiment.solver, mesh)
    if not every:
        return compile_sample(*parts, shape=experiment.spec.shape, progress=show)
    solver = cast(StepSolver, experiment.solver)  # others were refused when the experiment was assembled
    hooks = Hooks(keep_every_steps=every, keep=solver.steps(experiment.plan) // every)
    return compile_film(*parts[:2], solver, mesh, hooks, shape=experiment.spec.shape, progress=show)


def _write_states(output: Path, experiment: Experiment, states: np.ndarray) -> None:
    """The states ``(N, keep, *D)`` beside the samples: all as an array, the first few as pictures in rows."""
    path = output.with_name(output.stem + "_states.npz")
    every = experiment.config.sampling.keep_every_steps
    np.savez(path, states=states, every_steps=np.int64(every))
    say(f"their states after every {every} steps, in the model's range, in {path}")
    if drawable(experiment.spec) and states.shape[1]:
        first = states[:SHOWN]
        strip = outside(experiment, first.reshape(-1, *first.shape[2:]))
        pictures.grid(strip, columns=first.shape[1]).save(path.with_suffix(".png"))


def _count(options: Options) -> int:
    return 64 if options.num_samples is None else options.num_samples


def _labels(options: Options, experiment: Experiment) -> np.ndarray | None:
    classes, count = experiment.spec.num_classes, _count(options)
    if not experiment.config.training.conditional:
        if options.label is not None:
            raise ConfigError(f"--label={options.label}: the model was trained without labels")
        return None
    if options.label is None:
        return np.arange(count) % classes
    if options.label >= classes:
        raise ConfigError(f"--label={options.label}: the model knows the classes 0 to {classes - 1}")
    return np.full(count, options.label)

"""``--mode=sample``."""

from typing import Any

import jax
import numpy as np

from score_sde import pictures
from score_sde.config import ConfigError
from score_sde.experiment import Experiment
from score_sde.flags import Options
from score_sde.modes.workdir import (
    from_workdir,
    is_chief,
    outside,
    pictures_path,
    restore_average,
    say,
)
from score_sde.progress import Progress
from score_sde.sampling import compile_sample, generate


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
    with Progress(count, f"sample (checkpoint {step})", "sample", quiet=not is_chief()) as progress:

        def show(i: Any) -> None:
            progress.update(progress.done, f"step {int(i) + 1}/{steps}")

        draw = compile_sample(
            experiment.bind, experiment.sde, experiment.solver, mesh, shape=spec.shape, progress=show
        )
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
            batches.append(outside(experiment, batch))
            progress.update(progress.done + len(batch))
    if is_chief():
        pictures.write(output, np.concatenate(batches), seed=seed)
    say(f"{count} samples in {output}")
    return 0


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

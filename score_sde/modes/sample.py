"""``--mode=sample``."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde import pictures
from score_sde.config import ConfigError
from score_sde.data import Spec
from score_sde.experiment import Experiment
from score_sde.flags import Options
from score_sde.mesh import round_up
from score_sde.modes.stored import Stored, identity
from score_sde.modes.workdir import drawable, from_workdir, is_chief, outside, restore_average, say
from score_sde.progress import Progress
from score_sde.sampling import compile_sample, generate, generate_share


def sample(options: Options) -> int:
    """Draw samples from the averaged parameters of a checkpoint."""
    seed = options.config.seed if options.seed is None else options.seed
    experiment = from_workdir(options)
    spec = experiment.spec
    output = _output(options, spec)
    step, mesh, params = restore_average(options, experiment)
    labels = _labels(options, experiment)
    count = _count(options)
    size = round_up(min(experiment.config.sampling.batch_size, count), mesh)
    steps = next((len(rows) for rows in jax.tree.leaves(experiment.plan.rows)), 0)
    stored = None
    if output.suffix != ".png":
        # A file of arrays is joined from parts when all are there.
        place = output.with_name(output.name + ".parts") if output.suffix else output
        what = identity(experiment, params, options.label, seed, size)
        stored = Stored(place, count, as_pictures=not output.suffix, what=what)
    firsts = list(range(0, count, size)) if stored is None else stored.missing(size)
    there = count - sum(min(size, count - first) for first in firsts)
    if there:
        say(f"going on: {there} of {count} samples are there")
    kept: list[np.ndarray] = []
    title = f"sample (checkpoint {step})"
    with Progress(count, title, "sample", start=there, quiet=not is_chief()) as progress:

        def show(i: Any) -> None:
            progress.update(progress.done, f"step {int(i) + 1}/{steps}")

        draw = compile_sample(
            experiment.bind, experiment.sde, experiment.solver, mesh, shape=spec.shape, progress=show
        )
        plan = experiment.plan
        if stored is None:
            options_of = {"seed": seed, "num_samples": count, "batch_size": size, "labels": labels}
            for batch in generate(draw, params, plan, mesh, **options_of):
                kept.append(outside(experiment, batch))
                progress.update(progress.done + len(batch))
        else:
            options_of = {"seed": seed, "num_samples": count, "size": size, "labels": labels}
            for first, rows in generate_share(draw, params, plan, firsts=firsts, **options_of):
                stored.write(first, outside(experiment, rows))
                progress.update(min(count, progress.done + size))
    if stored is None and is_chief():
        pictures.write(output, np.concatenate(kept), seed=seed)
    if stored is not None and jax.process_count() > 1:
        multihost_utils.sync_global_devices("samples are written")
    if stored is not None and output.suffix and is_chief():
        stored.join(output, seed)
    say(f"{count} samples in {output}")
    return 0


def _count(options: Options) -> int:
    return 64 if options.num_samples is None else options.num_samples


def _output(options: Options, spec: Spec) -> Path:
    """Where samples go, refused before any work if they cannot."""
    default = options.workdir / "samples" / ("samples.png" if drawable(spec) else "samples.npz")
    path = default if options.output is None else Path(options.output)
    pictures.check_output(path)
    if path.suffix != ".npz" and not drawable(spec):
        raise ConfigError(f"--output={path}: examples of shape {spec.shape} are no pictures; use a .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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

"""``--mode=sample``."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from score_sde.experiment.assemble import Experiment, Sampler, sampler_of
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.stored import Stored, identity
from score_sde.modes.workdir import (
    drawable,
    from_workdir,
    is_chief,
    outside,
    pictures_path,
    restore_average,
    say,
)
from score_sde.runtime.mesh import round_up
from score_sde.runtime.progress import Progress
from score_sde.sampling.chunks import compile_trajectory
from score_sde.sampling.draw import Draw, compile_sample, generate, generate_share
from score_sde.solvers import Hooks, StepSolver

SHOWN = 8  # samples whose states are shown


def sample(options: Options) -> int:
    """Draw samples from the averaged parameters of a checkpoint."""
    seed = options.config.seed if options.seed is None else options.seed
    experiment = from_workdir(options)
    sampler = sampler_of(experiment)
    spec = experiment.spec
    output = pictures_path(options, spec, "samples")
    step, mesh, params = restore_average(options, experiment)
    labels = _labels(options, experiment)
    work = _Work(options, experiment, sampler, step, mesh, params, labels, _count(options), seed)
    if output.suffix == ".png" or experiment.config.sampling.keep_every_steps:
        _in_memory(work, output)
    else:
        _to_disk(work, output)
    say(f"{work.count} samples in {output}")
    return 0


@dataclass(frozen=True)
class _Work:
    """What is to be drawn, and of what."""

    options: Options
    experiment: Experiment
    sampler: Sampler
    step: int
    mesh: Mesh
    params: Any
    chosen: Chosen
    count: int
    seed: int

    @property
    def size(self) -> int:
        """Samples of a batch."""
        return round_up(min(self.experiment.config.sampling.batch_size, self.count), self.mesh)

    @property
    def draws(self) -> dict[str, Any]:
        """Arguments of those who generate."""
        inputs = self.experiment.guidance.inputs(self.count)
        return {"seed": self.seed, "num_samples": self.count, "labels": self.labels, "inputs": inputs}

    def progress(self, there: int = 0) -> Progress:
        title = f"sample (checkpoint {self.step})"
        return Progress(self.count, title, "sample", start=there, quiet=not is_chief())

    def compile(self, progress: Progress) -> Draw:
        plan = self.sampler.plan
        steps = next((len(rows) for rows in jax.tree.leaves(plan.rows)), 0)

        def show(i: int) -> None:
            progress.update(progress.done, f"step {i + 1}/{steps}")

        return _compile(self.experiment, self.sampler, self.mesh, show)


def _in_memory(work: _Work, output: Path) -> None:
    """All samples at once: for one picture of them, and where states on the way are kept."""
    experiment = work.experiment
    batches: list[np.ndarray] = []
    states: list[np.ndarray] = []
    with work.progress() as progress:
        draw = work.compile(progress)
        for batch in generate(
            draw, work.params, work.sampler.plan, work.mesh, batch_size=work.size, **work.draws
        ):
            if experiment.config.sampling.keep_every_steps:
                states.append(batch[:, :-1])
                batch = batch[:, -1]
            batches.append(outside(experiment, batch))
            progress.update(progress.done + len(batch))
    if is_chief():
        pictures.write(output, np.concatenate(batches), seed=work.seed)
        if states:
            _write_states(output, experiment, np.concatenate(states))


def _to_disk(work: _Work, output: Path) -> None:
    """Batch by batch, each process its own share, going on from what is there."""
    experiment, count, size = work.experiment, work.count, work.size
    # A file of arrays is joined from parts when all are there.
    place = output.with_name(output.name + ".parts") if output.suffix else output
    what = identity(experiment, work.sampler.plan, work.params, work.options.label, work.seed, size)
    stored = Stored(place, count, as_pictures=not output.suffix, what=what)
    firsts = stored.missing(size)
    there = count - sum(min(size, count - first) for first in firsts)
    if there:
        say(f"going on: {there} of {count} samples are there")
    with work.progress(there) as progress:
        draw = work.compile(progress)
        shares = generate_share(draw, work.params, work.sampler.plan, firsts=firsts, size=size, **work.draws)
        with ThreadPoolExecutor(1) as thread:  # writes a batch while the next one is drawn
            writing: Future[None] | None = None
            for first, rows in shares:
                if writing is not None:
                    writing.result()
                writing = thread.submit(stored.write, first, outside(experiment, rows))
                progress.update(min(count, progress.done + size))
            if writing is not None:
                writing.result()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("samples are written")
    if output.suffix and is_chief():
        stored.join(output, work.seed)


def _compile(experiment: Experiment, sampler: Sampler, mesh: Mesh, show: Callable[[Any], None]) -> Draw:
    """The sampler: of samples, or of every so many states and then the sample."""
    every = experiment.config.sampling.keep_every_steps
    parts = (sampler.bind, sampler.process, sampler.solver, mesh)
    if not every:
        return compile_sample(*parts, shape=experiment.spec.shape, progress=show)
    solver = cast(StepSolver, sampler.solver)  # others were refused with the sampler
    hooks = Hooks(keep_every_steps=every, keep=solver.steps(sampler.plan) // every)
    return compile_trajectory(*parts[:2], solver, mesh, hooks, shape=experiment.spec.shape, progress=show)


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
    if not experiment.labelled:
        if options.label is not None:
            raise ConfigError(f"--label={options.label}: the model was trained without labels")
        return None
    if options.label is None:
        return np.arange(count) % classes
    if options.label >= classes:
        raise ConfigError(f"--label={options.label}: the model knows the classes 0 to {classes - 1}")
    return np.full(count, options.label)

"""Samples of a model as files, with progress, and resumed where they are written one by one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.conditions import Chosen
from score_sde.images import pictures
from score_sde.runs.model import Model
from score_sde.runs.stored import Stored, identity
from score_sde.runtime.mesh import round_up
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress
from score_sde.sampling.draw import generate, generate_share

SHOWN = 8  # samples whose states are shown


@dataclass(frozen=True)
class Request:
    """What is to be drawn, and of what."""

    model: Model
    chosen: Chosen
    count: int
    seed: int

    @property
    def size(self) -> int:
        """Samples of a batch."""
        return round_up(min(self.model.config.sampling.batch_size, self.count), self.model.mesh)

    def progress(self, there: int = 0) -> Progress:
        """A bar that begins with what is there already."""
        title = f"sample (checkpoint {self.model.step})"
        return Progress(self.count, title, "sample", start=there, quiet=not is_chief())

    def shown(self, progress: Progress) -> Callable[[int], None]:
        """What tells the bar the step of a batch."""
        steps = self.model.sampler.steps

        def show(step: int) -> None:
            progress.update(progress.done, f"step {step + 1}/{steps}")

        return show


def write_samples(request: Request, output: Path) -> None:
    """Draw, and write as the suffix of the path asks; states on the way beside it, where they are wanted.

    Raises:
      ConfigError: a folder that holds other samples.
      FloatingPointError: samples that are not finite.
    """
    if request.model.config.sampling.keep_every_steps:
        _with_states(request, output)
    elif output.suffix == ".png":
        _in_memory(request, output)
    else:
        _one_by_one(request, output)


def _in_memory(request: Request, output: Path) -> None:
    """All samples at once, for one picture of them."""
    model, drawn = request.model, []
    with request.progress() as progress:
        for batch in model.batches(
            request.count, seed=request.seed, chosen=request.chosen, progress=request.shown(progress)
        ):
            drawn.append(model.architecture.decode(model.parts, batch))
            progress.update(progress.done + len(batch))
    if is_chief():
        pictures.write(output, np.concatenate(drawn), seed=request.seed)


def _with_states(request: Request, output: Path) -> None:
    """Samples, and the states after every so many steps."""
    model, every = request.model, request.model.config.sampling.keep_every_steps
    sampler, batches = model.sampler, []
    with request.progress() as progress:
        for batch in generate(
            sampler.compile_trajectory(model.mesh, every, request.shown(progress)),
            model.parts,
            sampler.plan,
            model.mesh,
            seed=request.seed,
            num_samples=request.count,
            batch_size=request.size,
            chosen=request.chosen,
            inputs=sampler.guidance.inputs(request.count),
        ):
            batches.append(batch)
            progress.update(progress.done + len(batch))
    if is_chief():
        whole = np.concatenate(batches)
        pictures.write(output, model.architecture.decode(model.parts, whole[:, -1]), seed=request.seed)
        _write_states(output, model, whole[:, :-1])


def _write_states(output: Path, model: Model, states: np.ndarray) -> None:
    """The states ``(N, kept, *D)`` beside the samples: all as an array, the first few as pictures in rows."""
    path = output.with_name(output.stem + "_states.npz")
    every = model.config.sampling.keep_every_steps
    np.savez(path, states=states, every_steps=np.int64(every))
    say(f"their states after every {every} steps, in the model's range, in {path}")
    if model.architecture.is_picture and states.shape[1]:
        first = states[:SHOWN]
        strip = model.architecture.decode(model.parts, first.reshape(-1, *first.shape[2:]))
        pictures.grid(strip, columns=first.shape[1]).save(path.with_suffix(".png"))


def _one_by_one(request: Request, output: Path) -> None:
    """Batch by batch, each process its own share, resumed from what is there."""
    model, count, size = request.model, request.count, request.size
    # A file of arrays is joined from parts when all are there.
    place = output.with_name(output.name + ".parts") if output.suffix else output
    what = identity(model, request.chosen, request.seed, size)
    stored = Stored(place, count, as_pictures=not output.suffix, what=what)
    firsts = stored.missing(size)
    there = count - sum(min(size, count - first) for first in firsts)
    if there:
        say(f"resuming: {there} of {count} samples are there")
    sampler = model.sampler
    with request.progress(there) as progress, ThreadPoolExecutor(1) as thread:
        writing: Future[None] | None = None  # a batch, while the next one is drawn
        for first, rows in generate_share(
            sampler.compile(model.mesh, request.shown(progress)),
            model.parts,
            sampler.plan,
            seed=request.seed,
            firsts=firsts,
            size=size,
            num_samples=count,
            chosen=request.chosen,
            inputs=sampler.guidance.inputs(count),
        ):
            if writing is not None:
                writing.result()
            writing = thread.submit(stored.write, first, model.architecture.decode(model.parts, rows))
            progress.update(min(count, progress.done + size))
        if writing is not None:
            writing.result()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("samples are written")
    if output.suffix and is_chief():
        stored.join(output, request.seed)

"""``--mode=train``."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_sde import config as configs
from score_sde import pictures
from score_sde.config import ConfigError
from score_sde.data import Batches, Source, warn_if_unscaled
from score_sde.evaluate import level_times, measure_levels
from score_sde.experiment import Experiment, assemble, open_source
from score_sde.flags import Options
from score_sde.mesh import batch_sharding, make_mesh, state_shardings
from score_sde.modes.workdir import First, drawable, is_chief, outside, say
from score_sde.sampling import compile_sample, generate
from score_sde.train import (
    Checkpoints,
    Every,
    Log,
    TrainState,
    compile_step,
    init_state,
    make_step,
)
from score_sde.train import train as train_loop


def train(options: Options) -> int:
    """Fit a model, or go on from the newest checkpoint of the workdir."""
    config, workdir = options.config, options.workdir
    source, held_out = open_source(config, "train"), open_source(config, "test")
    experiment = assemble(config, source.spec)
    warn_if_unscaled(source, experiment.scaling)
    mesh, training = make_mesh(config.mesh.fsdp), config.training
    if training.batch_size % (training.accumulate_steps * mesh.size):
        raise ConfigError(
            f"config.training.batch_size = {training.batch_size}: must be a multiple of accumulate_steps x "
            f"devices = {training.accumulate_steps} x {mesh.size}"
        )
    batches = Batches(
        source,
        batch_size=training.batch_size,
        seed=config.seed,
        sharding=batch_sharding(mesh),
        placement=config.data.placement,
        num_workers=config.data.num_workers,
        steps_per_dispatch=training.steps_per_dispatch,
    )
    make = init_state(experiment.init, experiment.optimizer, config.seed)
    shapes = jax.eval_shape(make)
    with Checkpoints(
        workdir / "checkpoints",
        keep_last=training.keep_last,
        keep_every_steps=training.keep_every_steps,
    ) as checkpoints:
        if checkpoints.steps:
            state = checkpoints.restore(shapes, mesh)
            say(f"going on from step {int(state.step)} of {workdir}")
        else:
            state = jax.jit(make, out_shardings=state_shardings(mesh, shapes))()
        if int(state.step) % training.steps_per_dispatch:
            raise ConfigError(
                f"config.training.steps_per_dispatch = {training.steps_per_dispatch}: must divide "
                f"{int(state.step)}, the step to go on from"
            )
        first = is_chief()
        if first:
            configs.save(workdir, config, **experiment.extra)
        say(_summary(experiment, len(source), mesh.size, shapes))
        step = make_step(
            experiment.objective,
            experiment.optimizer,
            experiment.ema,
            config.seed,
            training.accumulate_steps,
        )
        with Log(workdir, int(state.step)) if first else NoLog() as log:
            state, finished = train_loop(
                compile_step(step, mesh, shapes, training.steps_per_dispatch),
                state,
                batches.from_step(int(state.step)),
                steps=training.steps,
                batch_size=training.batch_size,
                checkpoints=checkpoints,
                log=log,
                checkpoint_every_steps=training.checkpoint_every_steps,
                log_every_steps=training.log_every_steps,
                steps_per_dispatch=training.steps_per_dispatch,
                actions=(_held_out(experiment, held_out, mesh), _grids(experiment, workdir, mesh)),
                quiet=not first,
            )
    if finished:
        say(f"finished: checkpoints, metrics and samples are in {workdir}")
    return 0


def _held_out(experiment: Experiment, source: Source, mesh: Any) -> Every:
    """Loss by noise level on the first held-out examples."""
    config = experiment.config
    times = level_times(experiment.sde, 10)
    measure = measure_levels(experiment.bind, experiment.sde, mesh)
    some = First(source, min(len(source), config.training.eval_examples))

    def act(step: int, state: TrainState) -> dict[str, Any]:
        levels = measure(
            state.ema,
            some,
            experiment.scaling,
            times=times,
            batch_size=config.evaluate.batch_size,
            seed=config.seed,
        )
        say(f"step {step}: held-out loss {levels.mean:.4g}")
        return {
            "held_out_loss": levels.mean,
            "held_out_loss_by_level": levels.noise.tolist(),
            "held_out_log_snr": levels.log_snr.tolist(),
        }

    return Every(config.training.eval_every_steps, act, at_end=True)


def _grids(experiment: Experiment, workdir: Path, mesh: Any) -> Every:
    """Sample grids of the averaged parameters, always from the same noise."""
    config = experiment.config
    draw = compile_sample(
        experiment.bind_sampler, experiment.path, experiment.solver, mesh, shape=experiment.spec.shape
    )
    count = config.training.sample_count
    labels = np.arange(count) % experiment.spec.num_classes if config.training.conditional else None

    def act(step: int, state: TrainState) -> dict[str, Any]:
        batches = generate(
            draw,
            state.ema,
            experiment.plan,
            mesh,
            seed=config.seed,
            num_samples=count,
            batch_size=config.sampling.batch_size,
            labels=labels,
        )
        samples = outside(experiment, np.concatenate(list(batches)))
        suffix = ".png" if drawable(experiment.spec) else ".npz"
        path = workdir / "samples" / f"step_{step:08d}{suffix}"
        if is_chief():
            pictures.write(path, samples, seed=config.seed)
            say(f"step {step}: samples in {path}")
        return {}

    return Every(config.training.sample_every_steps, act, at_end=True)


class NoLog:
    """The log of a process that keeps none."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, step: int, values: dict[str, Any]) -> None: ...


def _summary(experiment: Experiment, examples: int, devices: int, shapes: TrainState) -> str:
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params))
    return (
        f"{type(experiment.sde).__name__} on {examples} examples of shape {experiment.spec.shape}; "
        f"{count / 1e6:.3f} M parameters; {devices} x {jax.devices()[0].device_kind}"
    )

"""``--mode=train``."""

import math
from typing import Any

import jax

from score_sde.codecs import warn_if_unscaled
from score_sde.data import Batches
from score_sde.experiment import files as configs
from score_sde.experiment.assemble import (
    Experiment,
    assemble,
    average_of,
    objective_of,
    open_source,
    optimizer_of,
    sampler_of,
)
from score_sde.experiment.sections import as_tree
from score_sde.flags import Options
from score_sde.modes import actions
from score_sde.modes.weights import make_extractor
from score_sde.modes.workdir import BEST, is_chief, say
from score_sde.names import ConfigError
from score_sde.runtime import compilation_cache as programs
from score_sde.runtime.mesh import batch_sharding, make_mesh, state_shardings
from score_sde.train import (
    PROGRAMS,
    Best,
    Checkpoints,
    Log,
    TrainState,
    compile_step,
    init_state,
    make_step,
    slow_average,
)
from score_sde.train import train as train_loop


def train(options: Options) -> int:
    """Fit a model, or go on from the newest checkpoint of the workdir."""
    config, workdir = options.config, options.workdir
    source, held_out = open_source(config, "train"), open_source(config, "test")
    experiment = assemble(config, source.spec)
    sampler_of(experiment)  # what is wrong with it is said now, not after the last step
    optimizer, ema = optimizer_of(config), average_of(config)
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
    # Made before anything is compiled or written: what is wrong with them is said at once.
    extractor = make_extractor(options)
    best_metric = actions.check_best_metric(options, extractor.name)
    measurements = (
        actions.held_out(experiment, held_out, mesh),
        actions.samples(experiment, options, extractor, source, mesh),
    )
    step = make_step(
        objective_of(experiment),
        optimizer,
        ema,
        config.seed,
        training.accumulate_steps,
    )
    make = init_state(experiment.init, optimizer, config.seed)
    directory = workdir / "checkpoints"
    names = [] if directory.is_dir() else [make.__name__]  # a run that goes on makes no state
    programs.read_ahead([*names, *PROGRAMS], of=f"{config}")
    shapes = jax.eval_shape(make)
    with Checkpoints(
        directory,
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
            configs.save(workdir, as_tree(config), **experiment.extra)
        say(_summary(experiment, len(source), mesh.size, shapes))
        best = Best(checkpoints, workdir / BEST, best_metric, write=first) if best_metric else None
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
                actions=measurements,
                best=best,
                warning=slow_average(ema, training.steps),
                streamed=batches.placement == "stream",
                quiet=not first,
            )
    if finished:
        say(f"finished: checkpoints, metrics and samples are in {workdir}")
    return 0


class NoLog:
    """The log of a process that keeps none."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

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

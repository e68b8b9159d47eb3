"""Fit a task: from a source and a workdir to a trained state, resumed from whatever is there."""

from collections.abc import Callable
from typing import TypeVar

import jax
import optax
from jax.sharding import Mesh

from score_sde.arrays import Parts
from score_sde.data import Batches
from score_sde.runtime.mesh import batch_sharding, state_shardings
from score_sde.runtime.processes import is_chief, say
from score_sde.tasks.base import Setting, Task
from score_sde.train.best import Best
from score_sde.train.checkpoint import Checkpoints
from score_sde.train.ema import Decay
from score_sde.train.log import Log, NoLog
from score_sde.train.loop import train
from score_sde.train.schedule import Schedule
from score_sde.train.state import TrainState
from score_sde.train.step import compile_step, init_state, make_step
from score_sde.train.watch import slow_average

Examples = TypeVar("Examples")
BEST = "best.json"  # of a workdir: which checkpoint training has kept as the best
CHECKPOINTS = "checkpoints"


def fit(
    task: Task[Examples],
    setting: Setting,
    optimizer: optax.GradientTransformation,
    ema: Decay,
    schedule: Schedule,
    *,
    placement: str = "auto",
    num_workers: int = 0,
    begin: Callable[[TrainState], None] | None = None,
) -> tuple[TrainState, Parts, bool]:
    """Train a task to its end, or until a signal asks to stop; from the newest checkpoint of the workdir.

    Args:
      begin: called with the shapes of the state once everything has been checked and before the first step: a
        place to write down what is being trained.

    Returns:
      The state, the frozen parts, and whether it is finished (False: interrupted).

    Raises:
      ValueError: a batch that the devices do not divide, a checkpoint of another architecture.
      FloatingPointError: a loss or gradient was not finite; no later state has been saved.
      OSError: a checkpoint could not be written.
    """
    mesh, workdir, seed = setting.mesh, setting.workdir, setting.seed
    _check_batch(schedule, mesh)
    batches = _batches(setting, schedule, placement, num_workers)
    measures = task.measures(setting)
    step = make_step(task, optimizer, ema, seed, schedule.accumulate_steps)
    with Checkpoints(
        workdir / CHECKPOINTS, keep_last=schedule.keep_last, keep_every_steps=schedule.keep_every_steps
    ) as checkpoints:
        state, frozen, shapes = _begin(task, optimizer, seed, mesh, checkpoints)
        done = int(state.step)
        _check_resumed(schedule, done)
        if done:
            say(f"resuming from step {done} of {workdir}")
        if begin is not None:
            begin(shapes)
        given = jax.eval_shape(lambda: frozen)
        compiled = compile_step(step, mesh, shapes, given, schedule.steps_per_dispatch)
        metric = schedule.best_metric
        best = Best(checkpoints, workdir / BEST, metric, write=is_chief()) if metric else None
        with Log(workdir, done) if is_chief() else NoLog() as log:
            state, finished = train(
                lambda state, batch: compiled(state, frozen, batch),
                state,
                batches.from_step(done),
                schedule,
                frozen=frozen,
                checkpoints=checkpoints,
                log=log,
                measures=measures,
                best=best,
                warning=slow_average(ema, schedule.steps),
                streamed=batches.placement == "stream",
                quiet=not is_chief(),
            )
    return state, frozen, finished


def _batches(setting: Setting, schedule: Schedule, placement: str, num_workers: int) -> Batches:
    """Raw training batches on the devices."""
    return Batches(
        setting.source,
        batch_size=schedule.batch_size,
        seed=setting.seed,
        sharding=batch_sharding(setting.mesh),
        placement=placement,
        num_workers=num_workers,
        steps_per_dispatch=schedule.steps_per_dispatch,
    )


def _begin(
    task: Task[Examples],
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    checkpoints: Checkpoints,
) -> tuple[TrainState, Parts, TrainState]:
    """The state and the frozen parts to start from, on the devices, and the shapes of the state."""
    make = init_state(task, optimizer, seed)
    given = jax.eval_shape(task.frozen)
    shapes = jax.eval_shape(make, given)
    where = state_shardings(mesh, shapes)
    if checkpoints.steps:
        frozen = checkpoints.restore_frozen(given, mesh)
        return checkpoints.restore(shapes, mesh), frozen, shapes
    frozen = jax.device_put(task.frozen(), state_shardings(mesh, given))
    checkpoints.save_frozen(frozen)
    return jax.jit(make, out_shardings=where)(frozen), frozen, shapes


def _check_batch(schedule: Schedule, mesh: Mesh) -> None:
    if schedule.batch_size % (schedule.accumulate_steps * mesh.size):
        raise ValueError(
            f"config.training.batch_size = {schedule.batch_size}: must be a multiple of accumulate_steps x "
            f"devices = {schedule.accumulate_steps} x {mesh.size}"
        )


def _check_resumed(schedule: Schedule, done: int) -> None:
    if done % schedule.steps_per_dispatch:
        raise ValueError(
            f"config.training.steps_per_dispatch = {schedule.steps_per_dispatch}: must divide {done}, the "
            "step to resume from"
        )

"""The training loop: batches through the step, what is logged, saved and measured on the way."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from score_sde.arrays import Parts
from score_sde.runtime.progress import Progress
from score_sde.tasks.base import Batch, Measure, Metrics, Value
from score_sde.train.best import Best
from score_sde.train.checkpoint import Checkpoints
from score_sde.train.measuring import Measuring, Record, Writes, lacking
from score_sde.train.schedule import Schedule
from score_sde.train.signals import agree_to_stop, stop_signal
from score_sde.train.state import TrainState
from score_sde.train.watch import Watch

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclass
class _Input:
    """Batches, and for how long the devices stood still because the next one was not there, at most.

    The host runs ahead of the devices: its own waiting matters only if the step before is done as well.
    """

    batches: Iterator[Batch]
    idle_seconds: float = 0.0

    def next(self, before: Metrics | None) -> Batch:
        start = time.monotonic()
        batch = next(self.batches)
        done: Any = None if before is None else before["finite"]
        if done is None or done.is_ready():
            self.idle_seconds += time.monotonic() - start
        return batch


@dataclass
class _Pending:
    """Metrics still on the devices, so that the host need not wait for every step."""

    steps: list[int] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)

    def add(self, first: int, metrics: Metrics) -> None:
        """Metrics of a dispatch from step ``first`` on; returns once the one before it is done.

        The devices compute one while one waits for them.  With more, the progress shown would be the host's,
        and a signal to stop would be followed after all of them.
        """
        jax.block_until_ready(self.metrics[-1:])
        self.steps.append(first)
        self.metrics.append(metrics)

    def drain(self) -> dict[str, Value]:
        """Means since the last drain, and the standard deviation of the loss from step to step.

        Raises:
          FloatingPointError: a loss or gradient was not finite, naming the first such step.
        """
        host = jax.device_get(self.metrics)
        for first, metrics in zip(self.steps, host, strict=True):
            bad = ~np.atleast_1d(metrics["finite"])
            if bad.any():
                i = int(np.argmax(bad))
                loss = float(np.atleast_1d(metrics["loss"])[i])
                norm = float(np.atleast_1d(metrics["grad_norm"])[i])
                raise FloatingPointError(
                    f"step {first + i}: loss {loss} and gradient norm {norm}; training stopped. The last "
                    "checkpoint is from before; a lower optimizer.learning_rate or clip_norm may help"
                )
        names = [name for name in (host[0] if host else {}) if name != "finite"]
        means: dict[str, Value] = {
            name: float(np.mean([np.mean(metrics[name], dtype=np.float64) for metrics in host]))
            for name in names
        }
        if host:
            losses = np.concatenate([np.atleast_1d(metrics["loss"]) for metrics in host])
            means["loss_deviation"] = float(np.std(losses, dtype=np.float64))
        self.steps.clear()
        self.metrics.clear()
        return means


@dataclass
class _Pace:
    """Training images a second since something was last logged."""

    source: _Input
    done: int
    since: float = field(default_factory=time.monotonic)

    def restart(self, done: int) -> None:
        """Count from here: after a line of the log, a measurement, or the first step, which compiles."""
        self.done, self.since, self.source.idle_seconds = done, time.monotonic(), 0.0

    def values(self, done: int, batch_size: int, streamed: bool) -> dict[str, float]:
        """What is logged of it; nothing, before there is anything to count."""
        if done <= self.done:
            return {}
        seconds = time.monotonic() - self.since
        rate = {"images_per_second": (done - self.done) * batch_size / seconds}
        return rate | ({"input_wait": self.source.idle_seconds / seconds} if streamed else {})


def train(
    step: Step,
    state: TrainState,
    batches: Iterator[Batch],
    schedule: Schedule,
    *,
    frozen: Parts,
    checkpoints: Checkpoints,
    log: Writes,
    measures: tuple[Measure, ...] = (),
    best: Best | None = None,
    warning: str | None = None,
    streamed: bool = True,
    quiet: bool = False,
) -> tuple[TrainState, bool]:
    """Train until ``state.step`` reaches ``schedule.steps``, or a signal asks to stop.

    Ctrl-C and SIGTERM finish the step at hand, or the chunk of a measurement, save and return.  Of several
    processes, a SIGTERM to any one stops all at the same step.  Measurements that the step it resumes from
    still lacks come first.

    Args:
      batches: from the state's step on.
      warning: something known before the first step.
      streamed: whether batches come from outside the devices, so that waiting for them is worth reporting.

    Returns:
      The state, and whether it is finished, with all measurements (False: interrupted).

    Raises:
      FloatingPointError: a loss or gradient was not finite; no later state has been saved.
      OSError: a checkpoint could not be written.
    """
    done, steps, stride = int(state.step), schedule.steps, schedule.steps_per_dispatch
    with stop_signal() as stopped, Progress(steps, "train", start=done, quiet=quiet) as progress:
        record = Record(log, Watch(steps), progress)
        record.warn_once(done, warning)
        measure = Measuring(frozen, best, record, progress, stopped)
        complete = measure(lacking(_due(measures, done - stride, done, steps), done, log.lines), done, state)
        running = _Running(schedule, record, progress, _Input(batches), done, streamed)
        stop = stopped.is_set()
        while done < steps and not stop:
            state = running.dispatch(step, state, done)
            before, done = done, done + stride
            due = _due(measures, before, done, steps)
            save = _crosses(schedule.checkpoint_every_steps, before, done) or done >= steps
            if due or save:
                record(done, running.pending.drain())
            if save:  # first: measuring may take longer than whoever stops this process waits
                checkpoints.save(done, state)
            complete = measure(due, done, state)
            if due:
                running.pace.restart(done)
            stop = agree_to_stop(stopped, running.dispatches)
        if done > 0:
            running.finish(checkpoints, done, state)
        finished = done >= steps and complete
        if not finished:
            progress.say(f"interrupted: saved step {done}; run the same command to resume")
    return state, finished


def _due(measures: tuple[Measure, ...], before: int, done: int, steps: int) -> list[Measure]:
    """Measurements that a step in ``(before, done]`` asks for; none before the first step."""
    return [one for one in measures if done and one.due(before, done, steps)]


def _crosses(every: int, before: int, after: int) -> bool:
    """Whether a multiple is in ``(before, after]``."""
    return before // every != after // every


class _Running:
    """Dispatches of steps, and the lines of the log about them."""

    def __init__(
        self,
        schedule: Schedule,
        record: Record,
        progress: Progress,
        source: _Input,
        done: int,
        streamed: bool,
    ):
        self._schedule, self._record, self._progress = schedule, record, progress
        self._source, self._streamed = source, streamed
        self._metrics: Metrics | None = None
        self._note = ""
        self.dispatches = 0
        self.pending, self.pace = _Pending(), _Pace(source, done)

    def dispatch(self, step: Step, state: TrainState, done: int) -> TrainState:
        """The state after one call of the compiled step, ``done`` steps before it; logs where that is due."""
        schedule, batch = self._schedule, self._source.next(self._metrics)
        after = done + schedule.steps_per_dispatch
        self.dispatches += 1
        if self.dispatches == 1:  # which compiles
            state, self._metrics = _first(step, state, batch, self._progress)
            self.pace.restart(after)
        else:
            state, self._metrics = step(state, batch)
        self.pending.add(done, self._metrics)
        if _crosses(schedule.log_every_steps, done, after) or after >= schedule.steps:
            self._log(after)
        self._progress.update(after, self._note)
        return state

    def finish(self, checkpoints: Checkpoints, done: int, state: TrainState) -> None:
        """What has not been logged, and the last checkpoint."""
        self._record(done, self.pending.drain())
        checkpoints.save(done, state)
        checkpoints.wait()

    def _log(self, done: int) -> None:
        means = self.pending.drain()
        pace = self.pace.values(done, self._schedule.batch_size, self._streamed)
        parts = [f"loss {means['loss']:.4g}"]
        if "images_per_second" in pace:
            parts.append(f"{pace['images_per_second']:.3g} images/s")
        if "input_wait" in pace:
            parts.append(f"input wait {pace['input_wait']:.1%}")
        self._record(done, {**means, **pace})
        self._note = "  ".join([*parts, self._record.note]).rstrip()
        self.pace.restart(done)


def _first(step: Step, state: TrainState, batch: Batch, progress: Progress) -> tuple[TrainState, Metrics]:
    """The first step, waited for, with the time that compiling it takes shown as it passes."""
    start = time.monotonic()
    with progress.ticking("compiling the training step"):
        result = jax.block_until_ready(step(state, batch))
    progress.say(f"compiled the training step and ran it once in {time.monotonic() - start:.1f} s")
    return result

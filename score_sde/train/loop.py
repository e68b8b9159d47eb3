"""The training loop: batches through the step, and what happens every so many steps."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.runtime.progress import Progress
from score_sde.train.best import Best
from score_sde.train.checkpoint import Checkpoints
from score_sde.train.log import Value
from score_sde.train.state import TrainState
from score_sde.train.step import Batch, Metrics, Step
from score_sde.train.watch import Watch


@dataclass(frozen=True)
class Every:
    """Something done at multiples of ``steps`` (0: never) and, if asked, at the end.

    Attributes:
      act: called with the step and the state; what it returns is logged.
      logs: a name that it returns a value under, from which a run that goes on sees that it was done; without
        one it is done again.
    """

    steps: int
    act: Callable[[int, TrainState], dict[str, Value]]
    at_end: bool = False
    logs: str = ""

    def due(self, before: int, after: int, last: int) -> bool:
        """Whether a multiple of ``steps`` lies in ``(before, after]``."""
        crossed = self.steps > 0 and after // self.steps > before // self.steps
        return crossed or (self.at_end and after >= last)


class Writes(Protocol):
    """Where metrics go.

    Attributes:
      lines: what was logged before the run was interrupted.
    """

    lines: list[dict[str, Any]]

    def write(self, step: int, values: dict[str, Value]) -> None:
        """Record values under a step."""
        ...


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


def train(
    step: Step,
    state: TrainState,
    batches: Iterator[Batch],
    *,
    steps: int,
    batch_size: int,
    checkpoints: Checkpoints,
    log: Writes,
    checkpoint_every_steps: int,
    log_every_steps: int,
    steps_per_dispatch: int = 1,
    actions: tuple[Every, ...] = (),
    best: Best | None = None,
    warning: str | None = None,
    streamed: bool = True,
    quiet: bool = False,
) -> tuple[TrainState, bool]:
    """Train until ``state.step`` reaches ``steps``, or a signal asks to stop.

    Ctrl-C and SIGTERM finish the step or action at hand, save and return.  Of several processes, a SIGTERM to
    any one stops all at the same step.  Actions that the step it goes on from still lacks come first.

    Args:
      batches: from the state's step on.
      batch_size: examples a step, for the rate.
      best: is offered what the actions have measured.
      warning: something known before the first step.
      streamed: whether batches come from outside the devices, so that waiting for them is worth reporting.

    Returns:
      The state, and whether it is finished, with all actions (False: interrupted).

    Raises:
      FloatingPointError: a loss or gradient was not finite; no later state has been saved.
      OSError: a checkpoint could not be written.
    """
    done, pending, source = int(state.step), _Pending(), _Input(batches)
    metrics: Metrics | None = None
    last_logged, logged_at = time.monotonic(), done
    with (
        _stop_signal() as stopped,
        Progress(steps, "train", start=done, quiet=quiet) as progress,
    ):
        record = _Record(log, Watch(steps), progress)
        if warning is not None:
            record.warn_once(done, warning)
        measure = _Measure(best, record, progress, stopped)
        due = [action for action in actions if done and action.due(done - steps_per_dispatch, done, steps)]
        complete = measure(_lacking(due, done, log.lines), done, state)
        note, stop, dispatch = "", stopped.is_set(), 0
        while done < steps and not stop:
            before = done
            batch = source.next(metrics)
            if dispatch == 0:
                state, metrics = _first(step, state, batch, progress)
                last_logged, source.idle_seconds = time.monotonic(), 0.0
                logged_at = done + steps_per_dispatch
            else:
                state, metrics = step(state, batch)
            pending.add(before, metrics)
            done += steps_per_dispatch
            if before // log_every_steps != done // log_every_steps or done >= steps:
                means = pending.drain()
                note = f"loss {means['loss']:.4g}"
                seconds = time.monotonic() - last_logged
                if done > logged_at:  # the first step does not count: it is mostly compilation
                    means["images_per_second"] = rate = (done - logged_at) * batch_size / seconds
                    note += f"  {rate:.3g} images/s"
                    if streamed:
                        means["input_wait"] = idle = source.idle_seconds / seconds
                        note += f"  input wait {idle:.1%}"
                record(done, means)
                note = f"{note}  {record.note}".rstrip()
                last_logged, logged_at, source.idle_seconds = time.monotonic(), done, 0.0
            progress.update(done, note)
            due = [action for action in actions if action.due(before, done, steps)]
            save = before // checkpoint_every_steps != done // checkpoint_every_steps or done >= steps
            if due or save:
                record(done, pending.drain())
            if save:  # first: measuring may take longer than whoever stops this process waits
                checkpoints.save(done, state)
            complete = measure(due, done, state)
            if due:
                last_logged, logged_at, source.idle_seconds = time.monotonic(), done, 0.0
            dispatch += 1
            stop = _agree_to_stop(stopped, dispatch)
        if done > 0:
            record(done, pending.drain())
            checkpoints.save(done, state)
            checkpoints.wait()
        finished = done >= steps and complete
        if not finished:
            progress.say(f"interrupted: saved step {done}; run the same command to go on")
    return state, finished


def _first(step: Step, state: TrainState, batch: Batch, progress: Progress) -> tuple[TrainState, Metrics]:
    """The first step, waited for, with the time that compiling it takes shown as it passes."""
    start = time.monotonic()
    with progress.ticking("compiling the training step"):
        result = jax.block_until_ready(step(state, batch))
    progress.say(f"compiled the training step and ran it once in {time.monotonic() - start:.1f} s")
    return result


def _lacking(due: list[Every], step: int, lines: list[dict[str, Any]]) -> list[Every]:
    """Those of the actions due at a step of which the log has nothing, for all processes as for the first."""
    logged = {name for line in lines if line["step"] == step for name in line}
    lacks = np.array([action.logs not in logged for action in due], np.int32)
    if jax.process_count() > 1 and due:  # the others have no log
        lacks = multihost_utils.broadcast_one_to_all(lacks)
    return [action for action, lack in zip(due, lacks, strict=True) if lack]


@dataclass(frozen=True)
class _Measure:
    """Acts, and returns whether it did all; asked to stop it leaves the rest until the run goes on."""

    best: Best | None
    record: "_Record"
    progress: Progress
    stopped: threading.Event

    def __call__(self, due: list[Every], step: int, state: TrainState) -> bool:
        for action in due:
            if self.stopped.is_set():
                return False
            values = action.act(step, state)
            if self.best is not None and self.best.offer(step, values, state):
                self.progress.say(f"step {step}: best {self.best.metric} so far, kept")
            self.record(step, values)  # last: what is logged is not done again
        return True


class _Record:
    """Writes the log, and warns of what it reads there."""

    def __init__(self, log: Writes, watch: Watch, progress: Progress):
        self._log, self._watch, self._progress = log, watch, progress
        for line in log.lines:
            watch.see(line["step"], line)

    def __call__(self, step: int, values: dict[str, Value]) -> None:
        if not values:
            return
        self._log.write(step, values)
        for alarm in self._watch.see(step, values):
            self._warn(step, alarm.text)

    @property
    def note(self) -> str:
        return self._watch.note

    def warn_once(self, step: int, text: str) -> None:
        """Warn, unless the run was warned before it was interrupted."""
        if all(line.get("warning") != text for line in self._log.lines):
            self._warn(step, text)

    def _warn(self, step: int, text: str) -> None:
        self._progress.say(f"warning: step {step}: {text}")
        self._log.write(step, {"warning": text})


def _agree_to_stop(stopped: threading.Event, dispatch: int) -> bool:
    """Whether to stop now; all processes give the same answer for the same ``dispatch``, counted from 1.

    Alone, a process follows its own signals.  Several must not: one that left would leave the others waiting
    in a collective.  The coordination service passes a SIGTERM on and names the dispatch at which all stop.
    """
    if jax.process_count() == 1:
        return stopped.is_set()
    return multihost_utils.reached_preemption_sync_point(dispatch)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event set by Ctrl-C or SIGTERM while inside; a second Ctrl-C acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield event
        return

    def ask(number: int, _: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

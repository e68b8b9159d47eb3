"""What is measured during training: shown as it goes, left when a signal asks, logged when it is done."""

import threading
import time
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.arrays import Parts
from score_sde.runtime.progress import Progress, duration
from score_sde.tasks.base import Logged, Measure, Note, Value
from score_sde.train.best import Best
from score_sde.train.state import TrainState
from score_sde.train.watch import Watch


class Writes(Protocol):
    """Where metrics go.

    Attributes:
      lines: what was logged before the run was interrupted.
    """

    lines: list[Logged]

    def write(self, step: int, values: dict[str, Value]) -> None:
        """Record values under a step."""
        ...


def lacking(due: list[Measure], step: int, lines: list[Logged]) -> list[Measure]:
    """Those due at a step of which the log has nothing, for all processes as for the first."""
    logged = {name for line in lines if line["step"] == step for name in line}
    lacks = np.array([measure.logs not in logged for measure in due], np.int32)
    if jax.process_count() > 1 and due:  # the others have no log
        lacks = multihost_utils.broadcast_one_to_all(lacks)
    return [measure for measure, lack in zip(due, lacks, strict=True) if lack]


class _Left(Exception):
    """A measurement is left, to be made up for when the run is resumed."""


@dataclass(frozen=True)
class Measuring:
    """Measures, and returns whether it did all; asked to stop it leaves the rest until the run is resumed."""

    frozen: Parts
    best: Best | None
    record: "Record"
    progress: Progress
    stopped: threading.Event

    def __call__(self, due: list[Measure], step: int, state: TrainState) -> bool:
        for measure in due:
            if self.stopped.is_set():
                return False
            try:
                values = measure.act(step, state, self.frozen, self._note(measure))
            except _Left:
                return False
            if self.best is not None and self.best.offer(step, values, state):
                self.progress.say(f"step {step}: best {self.best.metric} so far, kept")
            self.record(step, values)  # last: what is logged is not done again
        return True

    def _note(self, measure: Measure) -> Note:
        """Shows how far it is and how long it will take, and leaves it where a signal asks to stop."""
        start, name = time.monotonic(), (measure.logs or "measurement").replace("_", " ")

        def note(done: int, total: int, text: str) -> None:
            # Several processes stop together, after the measurement: one that left would let the others wait.
            if self.stopped.is_set() and done < total and jax.process_count() == 1:
                raise _Left
            left = (time.monotonic() - start) * (total - done) / max(done, 1)
            parts = [f"{name} {done}/{total}", text, f"{duration(left)} left" if done < total else ""]
            self.progress.update(self.progress.done, "  ".join(filter(None, parts)))

        return note


class Record:
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

    def warn_once(self, step: int, text: str | None) -> None:
        """Warn, unless there is nothing to say or the run was warned before it was interrupted."""
        if text is not None and all(line.get("warning") != text for line in self._log.lines):
            self._warn(step, text)

    def _warn(self, step: int, text: str) -> None:
        self._progress.say(f"warning: step {step}: {text}")
        self._log.write(step, {"warning": text})

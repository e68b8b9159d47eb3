"""The best checkpoint so far: kept for good, until there is a better one."""

import json
import math
import os
from pathlib import Path
from typing import NamedTuple

from score_sde.runtime.files import read_json
from score_sde.tasks.base import Logged
from score_sde.train.checkpoint import Checkpoints
from score_sde.train.state import TrainState


class Record(NamedTuple):
    """What ``best.json`` holds.

    Attributes:
      step: of the checkpoint.
      metric: name of what decides, as it is logged; the lowest is the best.
      value: of it.
    """

    step: int
    metric: str
    value: float


def read_best(path: Path) -> Record | None:
    """The record of a file; None if there is none, or none that can be read."""
    try:
        return Record(**read_json(path))
    except (FileNotFoundError, ValueError, TypeError):  # it is made again
        return None


class Best:
    """Saves a checkpoint whenever the metric is lower than ever before, and no longer keeps the one before.

    A kill at any moment leaves the record naming a checkpoint that exists: the new one is on disk before the
    record names it, and the old one stays until then.

    Args:
      path: of the record.
      metric: name of a logged number.
      write: whether this process writes the record; of several, one does.
    """

    def __init__(self, checkpoints: Checkpoints, path: Path, metric: str, *, write: bool = True):
        self._checkpoints, self._path, self.metric, self._write = checkpoints, path, metric, write
        record = read_best(path)
        known = record is not None and record.metric == metric and record.step in checkpoints.steps
        self.record = record if known else None
        if self.record is not None:
            checkpoints.keep = {self.record.step}

    def offer(self, step: int, values: Logged, state: TrainState) -> bool:
        """Consider what was measured of ``state``; whether it is the best so far and has been saved."""
        value = values.get(self.metric)
        if value is None or not math.isfinite(value):
            return False
        if self.record is not None and value >= self.record.value:
            return False
        self._checkpoints.keep.add(step)
        self._checkpoints.save(step, state)
        self._checkpoints.wait()
        self.record = Record(step, self.metric, float(value))
        if self._write:
            fresh = self._path.with_suffix(".tmp")
            fresh.write_text(json.dumps(self.record._asdict()) + "\n", encoding="utf-8")
            os.replace(fresh, self._path)
        self._checkpoints.keep = {step}  # what was best before goes when the next checkpoint is written
        return True

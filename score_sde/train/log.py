"""Metrics on disk: JSON lines for programs, TensorBoard for people."""

import json
import math
import os
import sys
from pathlib import Path
from types import TracebackType
from unittest import mock

from score_sde.tasks.base import Logged, Value

# tensorboardX imports torch when it finds one, for pictures of torch models; nothing here needs it.
with mock.patch.dict(sys.modules, {"torch": None}):
    from tensorboardX import SummaryWriter


class Log:
    """``metrics.jsonl`` and ``tensorboard/`` of a workdir; a context manager.

    Args:
      workdir: made when missing.
      resume_step: lines of later steps, written before a kill but after the last checkpoint, are dropped:
        those steps are about to be made again.

    Attributes:
      lines: what was there before, as it was written.
    """

    def __init__(self, workdir: Path, resume_step: int = 0):
        workdir.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        self.lines: list[Logged] = _drop_after(self._path, resume_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, values: dict[str, Value]) -> None:
        """Record values under a step; lists (a value per noise level) and words go to the JSON lines only."""
        clean = {name: _finite(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if not isinstance(value, list | str):
                self._board.add_scalar(name, value, step)
        self._board.flush()


class NoLog:
    """The log of a process that keeps none."""

    def __init__(self) -> None:
        self.lines: list[Logged] = []

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, step: int, values: dict[str, Value]) -> None:
        """Nothing."""


def _finite(value: Value) -> Value | list:
    """JSON has no NaN."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value if math.isfinite(value) else str(value)


def _drop_after(path: Path, step: int) -> list[Logged]:
    """Rewrite the file without lines of later steps; what is left."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            if values["step"] <= step:
                kept.append((line, values))
        except (json.JSONDecodeError, KeyError):
            continue  # cut off by a kill
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(line + "\n" for line, _ in kept), encoding="utf-8")
    os.replace(fresh, path)
    return [values for _, values in kept]

"""Progress of long work: a live bar on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich import progress as bars


class Progress:
    """Counts towards ``total``, showing rate and time left; a context manager.

    On a terminal it is one live line.  Elsewhere it prints a line at most every ``every_seconds``, and one
    at the end.  Only the first process of a distributed run should make one (``quiet`` for the others).

    Attributes:
      done: the count so far.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str = "step",
        *,
        start: int = 0,
        every_seconds: float = 10.0,
        quiet: bool = False,
    ):
        self.total, self.done = total, start
        self._what, self._unit, self._every = what, unit, every_seconds
        # Rates count from the first advance on: what comes before it is mostly compilation.
        self._since, self._first = time.monotonic(), start
        self._started = self._said = self._since
        self._moving, self._quiet, self._note = False, quiet, ""
        self._shown: int | None = None
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=20),
                bars.TextColumn("{task.completed}/{task.total}"),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeRemainingColumn(),
                bars.TextColumn("{task.fields[note]}"),
                transient=False,
            )

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(
                self._what, total=self.total, completed=self.done, note="", rate=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self._quiet and self._said > self._started and self._shown != self.done:
            self._line()

    @property
    def rate(self) -> float | None:
        """Units a second since the first advance; None until there is a second one."""
        if not self._moving or self.done <= self._first:
            return None
        return (self.done - self._first) / max(time.monotonic() - self._since, 1e-9)

    def update(self, done: int, note: str = "") -> None:
        """Set the count; ``note`` is shown after it."""
        if done > self.done and not self._moving:
            self._moving, self._since, self._first = True, time.monotonic(), done
        self.done, self._note = done, note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note, rate=self._speed())
        elif not self._quiet and time.monotonic() - self._said >= self._every:
            self._line()

    @contextmanager
    def ticking(self, what: str) -> Iterator[None]:
        """Show ``what`` and the seconds that pass while the block runs, which itself shows nothing."""
        start, over = time.monotonic(), threading.Event()

        def tick() -> None:
            while True:
                self.update(self.done, f"{what} {duration(time.monotonic() - start)}")
                if over.wait(1.0):
                    return

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def _speed(self) -> str:
        return "" if self.rate is None else f"{self.rate:.3g} {self._unit}/s"

    def _line(self) -> None:
        self._said, self._shown = time.monotonic(), self.done
        parts = [f"{self._what} {self.done}/{self.total}", self._speed()]
        if self.rate is not None and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        print("  ".join(filter(None, [*parts, self._note])), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``"1h 02m"``, ``"3m 20s"`` or ``"12s"``."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"

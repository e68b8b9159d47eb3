"""A line on stderr when reading takes long enough for someone to wonder."""

import sys
import time
from collections.abc import Iterable, Iterator

_QUIET_SECONDS = 5.0


def progress(items: Iterable[int], total: int, what: str) -> Iterator[int]:
    """Pass on running counts ``items`` (of ``total``), saying ``what`` at most every 5 seconds."""
    start = said = time.monotonic()
    for done in items:
        now = time.monotonic()
        if now - said >= _QUIET_SECONDS:
            said = now
            left = (now - start) * (total - done) / max(done, 1)
            print(f"{what}: {done} of {total}, about {left:.0f} s left", file=sys.stderr)
        yield done
    if said != start:
        print(f"{what}: {total} in {time.monotonic() - start:.0f} s", file=sys.stderr)

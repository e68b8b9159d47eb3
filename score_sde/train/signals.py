"""Ctrl-C and SIGTERM during training, for one process and for several."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


def agree_to_stop(stopped: threading.Event, dispatch: int) -> bool:
    """Whether to stop now; all processes give the same answer for the same ``dispatch``, counted from 1.

    Alone, a process follows its own signals.  Several must not: one that left would leave the others waiting
    in a collective.  The coordination service passes a SIGTERM on and names the dispatch at which all stop.
    """
    if jax.process_count() == 1:
        return stopped.is_set()
    return multihost_utils.reached_preemption_sync_point(dispatch)


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
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

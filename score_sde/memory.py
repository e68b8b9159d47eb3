"""Memory of the CPU backend, kept between executions."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of malloc.h; a threshold of -1 is none


def keep_freed() -> bool:
    """Let the C library keep what is freed, to give it out again; returns whether it does (only glibc's can).

    XLA's CPU backend allocates the temporaries of a program anew at each execution.  Blocks of that size come
    from the system and go back to it, which clears them page by page: a fifth of the time of a training step.
    What is kept is the process's largest use, so far.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return mallopt is not None and all(mallopt(*setting) for setting in settings)

"""Memory for XLA's CPU backend, which asks the C library for the temporaries of a program at each execution.

A training step takes memory thousands of times, from several threads at once.  By default glibc gives large
blocks back to the system, which clears them again 4 KB at a time.  Its settings are read once, when a process
starts, so that a program sets them by starting itself again.
"""

import os
import sys

SETTINGS = {
    "glibc.malloc.hugetlb": 1,  # pages of 2 MB, of which there are 512 times fewer to hand out and to look up
    "glibc.malloc.mmap_max": 0,  # from the heaps of the threads, that need not wait for each other,
    "glibc.malloc.trim_threshold": 2**64 - 1,  # and which keep what is freed
}
"""glibc's names and values, as ``GLIBC_TUNABLES`` has them; versions that do not know one ignore it."""


def tunables(given: str = "") -> str:
    """``GLIBC_TUNABLES`` with ``SETTINGS`` added to those ``given``, which take precedence."""
    named = {setting.partition("=")[0] for setting in given.split(":")}
    added = [f"{name}={value}" for name, value in SETTINGS.items() if name not in named]
    return ":".join(filter(None, [given, *added]))


def settle() -> None:
    """Start this program again with ``SETTINGS``, in the same process, unless it has them; returns if so.

    It returns too where that is not for this program to decide, in a notebook or another program that runs it
    and under a debugger, and where the C library is not glibc.  To be called before anything else is done.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    wanted = tunables(given)
    if wanted == given or not _is_ours() or not _has_glibc():
        return
    os.environ["GLIBC_TUNABLES"] = wanted
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_ours() -> bool:
    """Whether the process was started as ``python [...] FILE ARGUMENTS``, with the arguments of now."""
    return sys.orig_argv[-len(sys.argv) :] == sys.argv and bool(sys.executable) and sys.gettrace() is None


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # no such function, no such name
        return False

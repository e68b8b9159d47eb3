"""Memory for XLA's CPU backend, which asks the C library for the temporaries of a program at each execution.

By default glibc gives large blocks back to the system, which clears them again 4 KB at a time.  Its settings
are read once, when a process starts, so that a program sets them by starting itself again.
"""

import os
import sys

SETTINGS = {
    "glibc.malloc.hugetlb": 1,  # pages of 2 MB, of which there are 512 times fewer to hand out and to look up
    "glibc.malloc.arena_max": 1,  # one heap, since those of threads end at 64 MB,
    "glibc.malloc.mmap_max": 0,  # for blocks of all sizes,
    "glibc.malloc.trim_threshold": 2**64 - 1,  # that keeps what is freed
}
"""glibc's names and values, as ``GLIBC_TUNABLES`` has them; versions that do not know one ignore it."""

CONTRACTION_KERNEL = "TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL"
"""Where "0", Eigen multiplies the blocks of a convolution itself.

By default oneDNN does, no faster, and takes memory for each of them, thousands of times a step: there the
threads of two devices wait for each other.
"""

_STARTED_AGAIN = "SCORE_SDE_STARTED_AGAIN"  # the process that was: a system may take ``GLIBC_TUNABLES`` away


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
    os.environ.setdefault(CONTRACTION_KERNEL, "0")
    given = os.environ.get("GLIBC_TUNABLES", "")
    wanted, process = tunables(given), str(os.getpid())
    if wanted == given or os.environ.get(_STARTED_AGAIN) == process or not _is_ours() or not _has_glibc():
        return
    os.environ |= {"GLIBC_TUNABLES": wanted, _STARTED_AGAIN: process}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_ours() -> bool:
    """Whether the process was started as ``python [...] FILE ARGUMENTS``, with the arguments of now."""
    return sys.orig_argv[-len(sys.argv) :] == sys.argv and bool(sys.executable) and sys.gettrace() is None


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # no such function, no such name
        return False

"""Memory for XLA's CPU backend, which asks the C library for the temporaries of a program at each execution.

By default glibc gives large blocks back to the system, which clears them again 4 KB at a time.  Its settings
are read once, when a process starts, so that a program sets them by starting itself again.
"""

import os
import sys

from score_sde.cpu import switch

SETTINGS = {
    "glibc.malloc.hugetlb": 1,  # pages of 2 MB, of which there are 512 times fewer to hand out and to look up
    "glibc.malloc.arena_max": 1,  # one heap, since those of threads end at 64 MB,
    "glibc.malloc.mmap_max": 0,  # for blocks of all sizes,
    "glibc.malloc.trim_threshold": 2**64 - 1,  # that keeps what is freed
}
"""glibc's names and values, as ``GLIBC_TUNABLES`` has them; versions that do not know one ignore it."""

TUNABLES = "GLIBC_TUNABLES"

CONTRACTION_KERNEL = "TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL"
"""Where "0", Eigen multiplies the blocks of a convolution itself.

By default oneDNN does, no faster, and takes memory for each of them, thousands of times a step: there the
threads of two devices wait for each other.  XLA reads the variable at the first such product, so it stays in
the environment and child processes inherit it; only XLA's and TensorFlow's kernels for CPUs read it.
"""

_RESTARTED = "SCORE_SDE_RESTARTED"  # set between the two starts only: what ``TUNABLES`` was before


def tunables(given: str = "") -> str:
    """``GLIBC_TUNABLES`` with ``SETTINGS`` added to those ``given``, which take precedence."""
    named = {setting.partition("=")[0] for setting in given.split(":")}
    added = [f"{name}={value}" for name, value in SETTINGS.items() if name not in named]
    return ":".join(filter(None, [given, *added]))


def restart_with_settings() -> None:
    """Start this program again with ``SETTINGS``, in the same process; returns in the second start.

    The second start gives the environment back as it was, since glibc has read it by then: no child process
    inherits the settings.

    It returns at once, and changes nothing, where JAX may have an accelerator or ``switch`` is off.  There is
    no second start where that is not for this program to decide: in a notebook or another program that runs
    it, and under a debugger; nor where the C library is not glibc, or has the settings.  To be called before
    anything else is done.
    """
    if _RESTARTED in os.environ:
        _restore(os.environ.pop(_RESTARTED))
        return
    if not switch.acts_before_start():
        return
    os.environ.setdefault(CONTRACTION_KERNEL, "0")
    given = os.environ.get(TUNABLES, "")
    wanted = tunables(given)
    if wanted == given or not _is_ours() or not _has_glibc():
        return
    os.environ |= {TUNABLES: wanted, _RESTARTED: given}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _restore(given: str) -> None:
    if given:
        os.environ[TUNABLES] = given
    else:
        os.environ.pop(TUNABLES, None)  # a system may have taken it away


def _is_ours() -> bool:
    """Whether the process was started as ``python [...] FILE ARGUMENTS``, with the arguments of now."""
    return sys.orig_argv[-len(sys.argv) :] == sys.argv and bool(sys.executable) and sys.gettrace() is None


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # no such function, no such name
        return False

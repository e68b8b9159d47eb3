"""When the code for CPUs acts: only where JAX has no accelerator, and not where the user turns it off."""

import importlib.metadata
import importlib.util
import os

SWITCH = "SCORE_SDE_CPU"
"""Environment variable: ``0`` turns everything in this folder off.  It is set before the process starts."""

_OFF = {"0", "false", "no", "off"}
_PLUGINS = ("jax_plugins", "libtpu")  # packages that JAX looks for when it starts
_LIBRARIES = ("PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH")  # variables that name files to load


def is_on() -> bool:
    """Whether the user has left ``SWITCH`` on, as it is by default."""
    return os.environ.get(SWITCH, "").lower() not in _OFF


def acts_before_start() -> bool:
    """Whether the code for CPUs acts, asked before JAX starts and without importing it.

    JAX must not be able to find an accelerator: ``JAX_PLATFORMS`` allows CPUs alone, or nothing is installed
    that could drive another device.  An installed plugin counts even without its device, since only JAX can
    find out whether there is one.
    """
    return is_on() and not _accelerator_is_possible()


def acts() -> bool:
    """Whether the code for CPUs acts; JAX starts, if it has not yet."""
    if not is_on():
        return False
    import jax  # not before: a process that starts itself again needs only what is above

    return jax.default_backend() == "cpu"


def _accelerator_is_possible() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    return (
        any(os.environ.get(name) for name in _LIBRARIES)
        or any(importlib.util.find_spec(name) for name in _PLUGINS)
        or bool(importlib.metadata.entry_points(group="jax_plugins"))
    )

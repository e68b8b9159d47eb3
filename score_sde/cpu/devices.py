"""A device of each core of a CPU: XLA runs the small convolutions of small networks on one core."""

import os
import warnings

import jax

from score_sde.cpu import switch

_FLAG = "xla_force_host_platform_device_count"
_SMALLEST_SHARE = 16  # examples that a core must get for it to be a device of its own


def use_cores(batch: int, asked: int = 0) -> None:
    """Let cores be devices, before JAX starts.

    Nothing changes where the environment says how many devices there are, and where JAX runs already, as in a
    notebook.

    Args:
      batch: examples that are computed at once, which the devices share evenly.
      asked: how many devices; 0: one for each core that gets 16 examples or more, if ``switch`` is on and JAX
        cannot have an accelerator, and else what JAX makes.

    Raises:
      ValueError: ``asked`` is negative.
    """
    if asked < 0:
        raise ValueError(f"config.mesh.cpu_devices = {asked}: must be 0 or more")
    if "JAX_NUM_CPU_DEVICES" in os.environ or _FLAG in os.environ.get("XLA_FLAGS", ""):
        return
    if not asked and not switch.acts_before_start():
        return
    try:
        jax.config.update("jax_num_cpu_devices", asked or even_share(batch, _cores()))
    except RuntimeError:  # JAX runs already
        if asked:
            warnings.warn(f"config.mesh.cpu_devices = {asked} has no effect: JAX runs already", stacklevel=2)


def even_share(batch: int, cores: int) -> int:
    """The most devices among ``cores`` that share ``batch`` examples evenly and get enough of them each."""
    fits = [n for n in range(1, cores + 1) if batch % n == 0 and batch // n >= _SMALLEST_SHARE]
    return max(fits, default=1)


def _cores() -> int:
    """Cores that this process may use; not every system tells more than how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

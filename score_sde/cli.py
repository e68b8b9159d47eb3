"""Run a parsed command line."""

import os
from typing import Any

import jax

from score_sde.flags import Options, fail
from score_sde.modes import MODES


def run(options: Options) -> int:
    """Run a mode; returns the exit status.

    A mistake in a config, a file or a number is one message and status 2, not a trace.
    """
    if options.config.mesh.distributed:
        jax.distributed.initialize()  # finds its peers by itself on TPU pods and under SLURM
    _use_cores(options.config)
    try:
        return MODES[options.mode](options)
    except (ValueError, ImportError, FloatingPointError, OSError) as error:
        fail(f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _use_cores(config: Any) -> None:
    """Let each core of a CPU be a device, as far as they share the batch evenly.

    XLA runs the small convolutions of small networks on one core; a device a core is faster.  On machines
    with an accelerator this changes nothing.
    """
    cores = config.mesh.cpu_devices or len(os.sched_getaffinity(0))
    if config.mesh.cpu_devices < 0:
        fail(f"config.mesh.cpu_devices = {config.mesh.cpu_devices}: must be 0 or more")
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return  # the user has said how many
    share = [n for n in range(1, cores + 1) if config.training.batch_size % n == 0]
    count = share[-1] if share and not config.mesh.cpu_devices else cores
    if count != jax.config.jax_num_cpu_devices:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", count)

"""Run a parsed command line."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

import jax

from score_sde import modes
from score_sde.experiment.schema import Config
from score_sde.flags import Options, fail
from score_sde.runtime import compilation_cache as programs

_SMALLEST_SHARE = 16  # examples that a core must get for it to be a device of its own


def run(options: Options) -> int:
    """Run a mode; returns the exit status.

    A mistake in a config, a file or a number is one message and status 2, not a trace.
    """
    _join(options)
    _use_cores(options.config)
    programs.keep(options.compile_cache)
    with _leaving_nobody_waiting():
        try:
            return modes.find(options.mode)(options)
        except (ValueError, ImportError, FloatingPointError, OSError) as error:
            fail(f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _leaving_nobody_waiting() -> Iterator[None]:
    """End this process at once where it fails as one of several.

    An orderly exit waits for the others, and they wait in their next exchange for this one.  They notice that
    it is gone, and end as well.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        status = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _join(options: Options) -> None:
    """Meet the other processes of the job, if there are any."""
    try:
        if options.coordinator is not None:
            jax.distributed.initialize(options.coordinator, options.num_processes, options.process_id)
        elif options.config.mesh.distributed:
            jax.distributed.initialize()  # finds its peers by itself on TPU pods and under SLURM
    except (RuntimeError, ValueError) as error:
        fail(f"cannot join the other processes: {error}")


def _use_cores(config: Config) -> None:
    """Let each core of a CPU be a device, as far as they share the batch evenly.

    XLA runs the small convolutions of small networks on one core; a device a core is faster.  On machines
    with an accelerator this changes nothing.
    """
    cores = config.mesh.cpu_devices or _cores()
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return  # the user has said how many
    batch = config.training.batch_size // config.training.accumulate_steps
    share = [n for n in range(1, cores + 1) if batch % n == 0 and batch // n >= _SMALLEST_SHARE]
    count = cores if config.mesh.cpu_devices else max(share, default=1)
    if count != jax.config.jax_num_cpu_devices:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", count)


def _cores() -> int:
    """Cores that this process may use; not every system tells more than how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

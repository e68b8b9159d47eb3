"""Run a parsed command line."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Iterator

import jax

from score_sde import modes
from score_sde.cpu import devices
from score_sde.flags import Options, fail
from score_sde.runtime import compilation_cache


def run(options: Options) -> int:
    """Run a mode; returns the exit status.

    A mistake in a config, a file or a number is one message and status 2, not a trace.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _join(options)
    mesh, training = options.config.mesh, options.config.training
    compilation_cache.keep(options.compile_cache)
    with _leaving_nobody_waiting():
        try:
            devices.use_cores(training.batch_size // max(1, training.accumulate_steps), mesh.cpu_devices)
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

"""``run.py``, which also prints when its training step is compiled or read: then the devices begin it."""

import gc
import runpy
import sys
from pathlib import Path

from score_sde.cpu import malloc as memory

RUN = Path(__file__).parents[2] / "run.py"
BEGINS = "the devices begin the training step"
_FIRST = {"jit(gradient)", "jit(steps)"}  # what a step begins with: score_sde.train.PROGRAMS


def _say(event: str, seconds: float, **about: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration" and about.get("fun_name") in _FIRST:
        print(BEGINS, flush=True)


if __name__ == "__main__":
    memory.settle()
    gc.set_threshold(100_000)  # as run.py, for what is imported here

    import jax

    jax.monitoring.register_event_duration_secs_listener(_say)
    sys.argv[0] = str(RUN)
    runpy.run_path(str(RUN), run_name="__main__")

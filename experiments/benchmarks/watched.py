"""``run.py``, which also prints when its training step is compiled or read: then the devices begin it."""

import gc
import runpy
import sys
from pathlib import Path

from score_sde.cpu import malloc

RUN = Path(__file__).parents[2] / "run.py"
BEGINS = "the devices begin the training step"
_STEP = "jit(steps)"  # what score_sde.train.compile_step makes


def _say(event: str, duration_secs: float, **about: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration" and about.get("fun_name") == _STEP:
        print(BEGINS, flush=True)


if __name__ == "__main__":
    malloc.restart_with_settings()
    gc.set_threshold(100_000)  # as run.py, for what is imported here

    import jax

    jax.monitoring.register_event_duration_secs_listener(_say)
    sys.argv[0] = str(RUN)
    runpy.run_path(str(RUN), run_name="__main__")
